"""`python -m sender` is `crm-sender`."""

import sys

from sender.cli import main

sys.exit(main())
