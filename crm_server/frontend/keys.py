"""The webhook keys' page, for admins: when each was used, which is due to be changed, and who sends which release."""

from starlette.responses import Response

from crm_server.frontend.rendering import page
from crm_server.frontend.visits import Visit
from crm_server.releases import DAYS, list_releases
from crm_server.webhook_keys import LARGEST_AGE_DAYS, list_keys


async def list_webhook_keys(visit: Visit) -> Response:
    """Show the keys that this server knows, and those that were used once; and the contract's releases."""
    secrets = [key.get_secret_value() for key in visit.webhook_keys]
    keys, releases = await visit.queue.read(
        lambda connection: (list_keys(connection, secrets), list_releases(connection))
    )
    return page(
        visit,
        "keys.html",
        keys=keys,
        are_known=bool(secrets),
        largest_age=LARGEST_AGE_DAYS,
        releases=releases,
        days=DAYS,
    )
