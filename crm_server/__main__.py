"""Run `crm-server` as `python -m crm_server`."""

import sys

from crm_server.cli import main

sys.exit(main())
