"""What a try to deliver a webhook comes to: delivered, to be tried again, or given up."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.webhooks.sending import Answer
from contracts.webhooks import Delivery, DeliveryStatus

GROWTH = 4.0
LONGEST_PAUSE = 3 * 3600.0
GONE = 410
"""The answer by which a receiver says that it wants no more (Standard Webhooks)."""


@dataclass(frozen=True)
class Schedule:
    """How often to try, and the seconds after the first try."""

    attempts: int = 10
    first_pause: float = 5.0

    def pause(self, attempts: int, chance: float) -> float:
        """Seconds to wait after so many tries; `chance` in [0, 1) spreads them from half to one and a half.

        Receivers that were away together are thereby not all called together when they are back.
        """
        return min(self.first_pause * GROWTH ** (attempts - 1), LONGEST_PAUSE) * (0.5 + chance)


def after(before: Delivery, answer: Answer, schedule: Schedule, at: datetime, chance: float) -> Delivery:
    """Return how a delivery stands after one more try, which ended at a time."""
    attempts = before.attempts + 1
    status = DeliveryStatus.PENDING
    if answer.accepted:
        status = DeliveryStatus.DELIVERED
    elif attempts >= schedule.attempts or answer.status_code == GONE:
        status = DeliveryStatus.FAILED
    pending = status is DeliveryStatus.PENDING
    pause = timedelta(seconds=schedule.pause(attempts, chance))
    return Delivery(
        status=status,
        attempts=attempts,
        last_attempt_at=at,
        next_attempt_at=at + pause if pending else None,
        status_code=answer.status_code,
        detail=answer.detail,
    )
