"""A `crm-server` whose contract gives its first release up: `python -m tests.crm_server.giving_up serve …`."""

import sys
from datetime import date

from generated import operations
from generated.operations import RELEASES, Deprecated

GIVEN_UP = next(iter(RELEASES))
DAYS = Deprecated(date(2023, 6, 30), date(2099, 7, 1))

if __name__ == "__main__":
    operations.DEPRECATED = {GIVEN_UP: DAYS}

    from crm_server import cli

    sys.exit(cli.main(sys.argv[1:]))
