"""Try a CRM that runs: health, contract, a wrong key, and a test webhook of each event. Nothing is stored there.

python -m scripts.smoke http://localhost:5001/webhooks

The key (CRM_API_KEY) and, where webhooks are signed, the secret (CRM_SIGNING_SECRET) come from the
environment or `.env`. Exit code 0 when all is well, 1 when something is not, 2 when it was used wrongly.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from typing import Any

from pydantic import SecretStr

from generated.operations import WEBHOOKS
from sender import SenderSettings, SettingsError
from sender.status import test_integration
from sender.transport import Transport

REFUSED = "401 Unauthorized"


def main(argv: list[str] | None = None) -> int:
    """Try each step and print what came of it."""
    parser = argparse.ArgumentParser(
        prog="smoke", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", nargs="?", help="where the webhooks are (default: CRM_WEBHOOK_URL)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    if options.url:
        os.environ["CRM_WEBHOOK_URL"] = options.url
    try:
        settings = SenderSettings.read(".env")
        if settings.api_key is None:
            raise SettingsError("CRM_API_KEY is not set: give it the key that the CRM has as WEBHOOK_API_KEY")
        steps = [*test_integration(settings)["steps"], try_wrong_key(settings)]
    except SettingsError as error:
        print(f"smoke: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(steps, indent=2))
    else:
        for step in steps:
            print(f"{'fine' if step['ok'] else 'FAILED':<8}{step['step']:<24}{step['answer']}")
    return 0 if all(step["ok"] for step in steps) else 1


def try_wrong_key(settings: SenderSettings) -> dict[str, Any]:
    """Send a test webhook with a key that nobody has; it must be refused."""
    stranger = settings.model_copy(update={"api_key": SecretStr(secrets.token_urlsafe())})
    with Transport(stranger) as transport:
        _, words = transport.probe(next(iter(WEBHOOKS.values())).path)
    return {"step": "a wrong key", "ok": words == REFUSED, "answer": words}


if __name__ == "__main__":
    sys.exit(main())
