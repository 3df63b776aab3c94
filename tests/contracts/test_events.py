import pytest
from pydantic import ValidationError

from contracts.events import CandidateEvent, Completed, Decision, decode, encode


def candidate(**attributes: object) -> CandidateEvent:
    defaults = {
        "nfe": 1,
        "chain": 0,
        "level": 0,
        "t": 1.0,
        "draw": 0,
        "reward": 0.5,
        "rewards": {},
        "best_reward": 0.5,
        "decision": Decision.INITIAL,
    }
    return CandidateEvent.model_validate(defaults | attributes)


def test_an_event_is_written_without_its_number() -> None:
    event = candidate()
    assert '"seq"' not in encode(event)
    assert decode('{"seq":4,' + encode(event)[1:]) == event.model_copy(update={"seq": 4})


def test_the_type_tells_events_apart() -> None:
    assert isinstance(decode(encode(Completed(nfe_spent=1, best_reward=0.1))), Completed)
    with pytest.raises(ValidationError):
        decode('{"type":"other"}')


def test_a_reward_that_is_no_number_is_no_event() -> None:
    with pytest.raises(ValidationError):
        candidate(reward=float("nan"))
