"""What a receiver is sent: the same text at every try."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from contracts.jobs import Generation, Record, Status, document

WebhookType = Literal["generation.completed", "generation.failed", "generation.canceled"]
TYPES: dict[Status, WebhookType] = {
    Status.SUCCEEDED: "generation.completed",
    Status.FAILED: "generation.failed",
    Status.CANCELED: "generation.canceled",
}


class Message(BaseModel):
    """The body of a webhook (Standard Webhooks): what happened, when, and the job document."""

    model_config = ConfigDict(frozen=True)

    type: WebhookType
    timestamp: datetime
    data: Generation


def payload(record: Record) -> str:
    """Write the message of an ended job, without what changes with each try to deliver it."""
    message = Message(
        type=TYPES[record.status],
        timestamp=record.completed_at or record.created_at,
        data=document(record),
    )
    return message.model_dump_json(exclude={"data": {"webhook"}})
