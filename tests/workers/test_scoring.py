"""The reward `http` against real services on loopback that answer well, wrongly, slowly and never."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from contracts.resolution import accept
from contracts.settings import Settings
from models.registry import load_reward
from models.rewards.protocol import Reward, RewardLoadError, RewardValueError
from workers import scoring
from workers.engine import Engine, Needs
from workers.needs import reward_needs
from workers.scoring import ScoringError

Scores = list[dict[str, Any]]
Change = Callable[[Scores], object]


@dataclass
class Service:
    """Scores by mean brightness; `change` spoils the answer, `codes` come first, `pause` slows each piece."""

    change: Change = lambda scores: {"scores": scores}
    codes: list[int] = field(default_factory=list[int])
    pause: float = 0.0
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    headers: dict[str, str] = field(default_factory=dict[str, str])
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        self.asked.append(body)
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        scores = [{"id": each["id"], "score": brightness(each["png"])} for each in body["images"]]
        given = self.change(scores)
        data = given if isinstance(given, bytes) else json.dumps(given).encode()
        handler.send_response(self.codes.pop(0) if self.codes else 200)
        handler.send_header("Location", "/elsewhere")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        for at in range(0, len(data), 8 if self.pause else len(data)):
            time.sleep(self.pause)
            handler.wfile.write(data[at : at + (8 if self.pause else len(data))])


def brightness(png: str) -> float:
    return float(np.array(Image.open(BytesIO(base64.b64decode(png)))).mean() / 255)


@contextmanager
def serving(service: Service) -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            service.answer(self)

        def log_message(self, *_: object, **__: object) -> None:
            """Do not write to the test's output."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object, **__: object) -> None:
            """Workers hang up on services that are too slow."""

    server = Server(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_address[1]}/score?model=mine"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "PAUSE", 0.01)


def needs_of(service: Service, **settings: object) -> Needs:
    given = {
        "reward_url": service.url,
        "reward_networks": "127.0.0.0/8",
        "reward_timeout_seconds": 60,
    }
    return reward_needs(Settings.model_validate(given | settings))


def reward_at(service: Service, **settings: object) -> Reward:
    return load_reward("http", **needs_of(service, **settings)["http"])


def greys(count: int) -> Tensor:
    values = torch.linspace(0, 1, count).mul(255).round().div(255)
    return values.view(-1, 1, 1, 1).expand(-1, 3, 8, 12)


@pytest.mark.parametrize(
    "change",
    [
        lambda scores: {"scores": scores},
        lambda scores: {"scores": scores[::-1], "model": "mine"},
        lambda scores: {"scores": sorted(scores, key=str)},
    ],
)
def test_scores_belong_to_the_pictures_that_were_sent(change: Change) -> None:
    with serving(Service(change)) as service:
        scores = reward_at(service).score(greys(20), "a grey sky")
    assert torch.allclose(scores, greys(20)[:, 0, 0, 0])
    assert [len(body["images"]) for body in service.asked] == [16, 4]
    assert {body["prompt"] for body in service.asked} == {"a grey sky"}
    ids = [image["id"] for body in service.asked for image in body["images"]]
    assert len(set(ids)) == 20


def test_each_answer_is_a_step(engine: Engine) -> None:
    told: list[int] = []
    with serving(Service()) as service:
        asked = replace(engine, needs=needs_of(service))
        reward = asked.reward("http")
        # As the engine's process does it: once all is loaded.
        asked.stepped = lambda: told.append(len(service.asked))
        reward.score(greys(40), "")
    assert told == [1, 2, 3]


def test_a_token_is_sent_where_there_is_one() -> None:
    with serving(Service()) as service:
        reward_at(service).score(greys(1), "")
        assert "authorization" not in service.headers
        reward_at(service, reward_token="s3cret").score(greys(1), "")  # noqa: S106 a test's
        assert service.headers["authorization"] == "Bearer s3cret"


def set_all(key: str, value: object) -> Change:
    return lambda scores: {"scores": [each | {key: value} for each in scores]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: b"", "must answer with"),
        (lambda _: b"<html>", "must answer with"),
        (lambda _: b"[" * 100_000, "must answer with"),
        (lambda scores: scores, "must answer with"),
        (lambda scores: {"scores": [each["score"] for each in scores]}, "must answer with"),
        (set_all("score", "0.5"), "must answer with"),
        (set_all("score", None), "must answer with"),
        (set_all("score", [1]), "must answer with"),
        (lambda scores: {"scores": [{"id": each["id"], "score": True} for each in scores]}, "must answer"),
        (set_all("score", float("nan")), "score nan is not finite"),
        (set_all("score", float("inf")), "score inf is not finite"),
        (set_all("score", 1e300), r"score 1e\+300 is not finite"),
        (set_all("score", 10**400), "is not finite"),
        (set_all("id", "0"), "3 scores for 3 images, 1 of them with an id that was not sent"),
        (lambda scores: {"scores": scores[1:]}, "2 scores for 3 images"),
        (lambda scores: {"scores": [*scores, scores[0]]}, "4 scores for 3 images"),
        (lambda scores: {"scores": [scores[0]] * 3}, "3 scores for 3 images, 0 of them"),
    ],
)
def test_a_wrong_answer_is_told_with_what_is_wanted(change: Change, said: str) -> None:
    with serving(Service(change)) as service, pytest.raises(RewardValueError, match=said) as caught:
        reward_at(service).score(greys(3), "")
    assert '{"scores": [{"id": ..., "score": number}, ...]}' in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("code", [429, 500, 503])
def test_what_may_pass_is_tried_again(code: int) -> None:
    with serving(Service(codes=[code, code])) as service:
        assert reward_at(service).score(greys(2), "").tolist() == [0, 1]
    assert len(service.asked) == 3


@pytest.mark.parametrize(("code", "tries"), [(400, 1), (307, 1), (404, 1), (204, 1), (500, 3)])
def test_what_does_not_pass_fails_with_the_code(code: int, tries: int) -> None:
    change: Change = lambda scores: b"" if code == 204 else {"scores": scores}  # noqa: E731 one of two
    with (
        serving(Service(change, codes=[code] * 9)) as service,
        pytest.raises(ScoringError, match=f"ROLLOVER_REWARD_URL gave no scores: it answered {code}"),
    ):
        reward_at(service).score(greys(1), "")
    assert len(service.asked) == tries


def test_a_service_that_never_ends_its_answer_is_given_up_in_time() -> None:
    # Each piece comes in time; the answer as a whole would take half an hour.
    with serving(Service(lambda _: b" " * 100_000, pause=0.15)) as service:
        reward = reward_at(service, reward_timeout_seconds=0.3)
        with pytest.raises(ScoringError, match=r"not answer within 0\.3 s \(ROLLOVER_REWARD_TIMEOUT_SECONDS"):
            reward.score(greys(1), "")


def test_all_tries_together_have_one_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock by which only the pauses take time, each longer than the limit.
    passed: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(passed), sleep=passed.append)
    monkeypatch.setattr(scoring, "time", clock)
    monkeypatch.setattr(scoring, "PAUSE", 200)
    with serving(Service(codes=[503, 503, 503])) as service:
        with pytest.raises(ScoringError, match="it answered 503"):
            reward_at(service).score(greys(1), "")
        assert len(service.asked) == 1


def test_a_service_that_has_gone_is_told() -> None:
    with serving(Service()) as service:
        reward = reward_at(service)
    with pytest.raises(ScoringError, match="the connection failed"):
        reward.score(greys(1), "")


def test_an_endless_answer_is_not_read() -> None:
    with (
        serving(Service(lambda _: b" " * (scoring.LONGEST + 1))) as service,
        pytest.raises(ScoringError, match="longer than 1048576 bytes"),
    ):
        reward_at(service).score(greys(1), "")


def test_an_inner_service_must_be_allowed() -> None:
    with serving(Service()) as service:
        with pytest.raises(ValidationError, match="unless the server's ROLLOVER_REWARD_NETWORKS lists it"):
            reward_at(service, reward_networks="")
        assert service.asked == []


def test_the_reward_is_listed_where_it_has_a_service() -> None:
    settings = Settings(reward_url="https://scores.example/")
    assert accept({"prompt": "x", "reward": "http"}, caps=settings.caps).reward[0].name == "http"
    with pytest.raises(RewardLoadError, match="set ROLLOVER_REWARD_URL"):
        load_reward("http")


def test_a_token_without_a_service_is_refused() -> None:
    with pytest.raises(ValidationError, match="no ROLLOVER_REWARD_URL to send it to"):
        Settings.model_validate({"reward_token": "s3cret"})
