"""What a try comes to, and when the next one is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.webhooks.schedule import LONGEST_PAUSE, Schedule, after
from app.webhooks.sending import Answer
from contracts.jobs import now
from contracts.webhooks import Delivery, DeliveryStatus

CHANCE = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 50), st.floats(0.01, 3600), CHANCE)
def test_pauses_grow_up_to_a_limit_and_are_spread(attempts: int, first: float, chance: float) -> None:
    middle = min(first * 4.0 ** (attempts - 1), LONGEST_PAUSE)
    assert 0.5 * middle <= Schedule(50, first).pause(attempts, chance) <= 1.5 * middle


def test_the_defaults_try_for_hours_and_not_for_days() -> None:
    schedule = Schedule()
    pauses = [schedule.pause(attempts, chance=0.5) for attempts in range(1, schedule.attempts)]
    assert pauses[:4] == [5, 20, 80, 320]
    assert 6 < sum(pauses) / 3600 < 24


@pytest.mark.parametrize(
    ("attempts", "code", "status"),
    [
        (0, 204, DeliveryStatus.DELIVERED),
        (9, 200, DeliveryStatus.DELIVERED),
        (0, 500, DeliveryStatus.PENDING),
        (0, 302, DeliveryStatus.PENDING),
        (0, 404, DeliveryStatus.PENDING),
        (0, None, DeliveryStatus.PENDING),
        (8, 500, DeliveryStatus.PENDING),
        (9, 500, DeliveryStatus.FAILED),
        (9, None, DeliveryStatus.FAILED),
        (0, 410, DeliveryStatus.FAILED),
    ],
)
def test_what_a_try_comes_to(attempts: int, code: int | None, status: DeliveryStatus) -> None:
    at = now()
    delivery = after(Delivery(attempts=attempts), Answer(code, "d"), Schedule(10), at, chance=0.5)
    assert (delivery.status, delivery.attempts, delivery.status_code) == (status, attempts + 1, code)
    assert delivery.last_attempt_at == at
    assert (delivery.next_attempt_at is not None) == (status is DeliveryStatus.PENDING)
    if delivery.next_attempt_at:
        assert delivery.next_attempt_at > at
