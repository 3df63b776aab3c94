"""A webhook as a submission asks for it, and how far its delivery is."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from contracts.destinations import MAX_URL_CHARS
from contracts.search import Strict

WebhookEvent = Literal["completed", "failed", "canceled"]
"""How a job may end: the types of its final events."""


class Webhook(Strict):
    """Whom to tell of the end of a job, and of which ends."""

    url: str = Field(
        max_length=MAX_URL_CHARS,
        description="http or https; see docs/api.md for where it may lead",
        json_schema_extra={"format": "uri"},
    )
    events: Annotated[tuple[WebhookEvent, ...], Field(strict=False, min_length=1, max_length=3)] = (
        "completed",
        "failed",
        "canceled",
    )


class DeliveryStatus(StrEnum):
    """How far a delivery is; the last two are final."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Delivery(BaseModel):
    """The delivery of an ended job's webhook."""

    model_config = ConfigDict(frozen=True)

    status: DeliveryStatus = DeliveryStatus.PENDING
    attempts: int = 0
    last_attempt_at: datetime | None = None
    next_attempt_at: datetime | None = Field(default=None, description="after a try that failed")
    status_code: int | None = Field(default=None, description="of the receiver's last answer")
    detail: str | None = Field(default=None, description="why the last try failed")


def webhook_id(generation: str) -> str:
    """`webhook-id` of a job's only webhook, the same at every try."""
    return "msg_" + generation.removeprefix("gen_")
