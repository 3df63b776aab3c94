"""What a receiver needs to tell our webhooks from others'."""

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from app.callers import REFUSALS, CallerDep
from app.services import ServicesDep
from app.webhooks.signing import root_secret, secret_of

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], responses=REFUSALS)


class WebhookSecret(BaseModel):
    """The secret of the caller's webhooks, as Standard Webhooks' libraries take it."""

    secret: str = Field(description="`whsec_` and 32 bytes in base64")


@router.get("/secret")
async def secret(response: Response, services: ServicesDep, caller: CallerDep) -> WebhookSecret:
    """Return the secret that this API key's webhooks are signed with."""
    response.headers["Cache-Control"] = "no-store"
    root = await root_secret(services.store.redis, services.settings)
    return WebhookSecret(secret=secret_of(root, caller.owner))
