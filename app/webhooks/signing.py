"""Standard Webhooks' signatures, with a secret for each API key so that none can sign for another."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from standardwebhooks import Webhook

from contracts.keys import WEBHOOK_SECRET_KEY
from contracts.settings import Settings

SECRET_PREFIX = "whsec_"  # noqa: S105 (the specification's)


async def root_secret(redis: Any, settings: Settings) -> str:  # noqa: ANN401 (its types cover both clients)
    """Return what every secret is made from: the setting, or what is kept in Redis, made once."""
    if settings.webhook_secret:
        return settings.webhook_secret.get_secret_value()
    kept = await redis.get(WEBHOOK_SECRET_KEY)
    if kept is None:
        await redis.set(WEBHOOK_SECRET_KEY, secrets.token_urlsafe(32), nx=True)
        kept = await redis.get(WEBHOOK_SECRET_KEY)
    return kept


def secret_of(root: str, owner: str | None) -> str:
    """Return the secret that an API key's webhooks are signed with; None: those of a server without keys."""
    made = hmac.digest(root.encode(), f"rollover webhooks of {owner or ''}".encode(), hashlib.sha256)
    return SECRET_PREFIX + base64.b64encode(made).decode()


def signed(secret: str, message: str, body: str, at: datetime) -> Mapping[str, str]:
    """Return the headers of one try to deliver a message at a time in UTC."""
    # The package takes the clock's digits for UTC, whatever the zone.
    at = at.astimezone(UTC)
    return {
        "webhook-id": message,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message, at, body),
    }
