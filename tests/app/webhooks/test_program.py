"""`python -m app.webhooks`, killed at the worst moment."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from app.webhooks.program import main
from contracts.keys import OUTBOX_KEY
from tests.app.hand import Hand
from tests.app.webhooks.conftest import SECRET
from tests.app.webhooks.receiver import receiving
from tests.app.webhooks.test_deliverer import settled, verified

ROOT = Path(__file__).parents[3]


@contextmanager
def program(redis_url: str, **settings: str) -> "Iterator[subprocess.Popen[str]]":
    """The program, as a process of its own."""
    given = {"WEBHOOK_NETWORKS": "127.0.0.0/8", "WEBHOOK_SECRET": SECRET, "REDIS_URL": redis_url, **settings}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ROLLOVER_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "app.webhooks"],
        cwd=ROOT,
        env=environment | {f"ROLLOVER_{name}": value for name, value in given.items()},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_killed_between_taking_and_settling_it_delivers_the_same_message_again(
    redis: Redis, redis_url: str, end: Callable[..., Hand]
) -> None:
    with receiving() as receiver:
        receiver.answers = [receiver.hang, 204]
        hand = end(receiver.url)
        with program(redis_url, WEBHOOK_TIMEOUT_SECONDS="60") as first:
            receiver.called(1, within=90)
            first.kill()
            first.wait()
        # Another might still be sending, so it stays taken for the time of a try; that is over now.
        assert redis.zscore(OUTBOX_KEY, hand.id) > time.time() * 1000  # type: ignore[operator]
        redis.zadd(OUTBOX_KEY, {hand.id: time.time() * 1000})
        with program(redis_url, WEBHOOK_TIMEOUT_SECONDS="60"):
            calls = receiver.called(2, within=90)
            assert settled(hand).attempts == 1
    assert len({(call.headers["webhook-id"], call.body) for call in calls}) == 1
    assert verified(calls[1])["data"]["id"] == hand.id


def test_a_signal_ends_it_cleanly_and_its_log_names_no_path(redis_url: str, end: Callable[..., Hand]) -> None:
    with receiving(204) as receiver, program(redis_url) as process:
        settled(end(f"{receiver.url}?token=secret"), within=60)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    assert process.returncode == 0
    assert f'"receiver": "127.0.0.1:{receiver.port}"' in log
    assert "secret" not in log


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "ROLLOVER_REDIS_URL is not set"),
        ({"REDIS_URL": "redis://x", "WEBHOOK_NETWORKS": "10.0.0.1/8"}, "host bits"),
        ({"REDIS_URL": "redis://x", "WEBHOOK_SECRET": "short"}, "at least 32"),
    ],
)
def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings: dict[str, str],
    named: str,
) -> None:
    monkeypatch.delenv("ROLLOVER_REDIS_URL", raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(f"ROLLOVER_{name}", value)
    assert main() == 2
    assert named in capsys.readouterr().err
