"""The health check of a worker's container."""

import socket
from pathlib import Path

import pytest
from redis import Redis

from contracts.keys import WORKERS_KEY
from workers import calibrate, pull
from workers.beat import Beat
from workers.health import main


def test_a_worker_of_this_host_is_healthy_while_it_beats(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROLLOVER_REDIS_URL", redis_url)
    assert main() == 1
    assert f"no worker of {socket.gethostname()} shows signs of life" in capsys.readouterr().err
    with Beat(redis, "shapes-1", "shapes"):
        assert main() == 0
        assert capsys.readouterr().out == "shapes-1 is loading\n"
        # Of a worker that was killed the name is left.
        redis.sadd(WORKERS_KEY, "shapes-0")
        assert main() == 0
    assert main() == 1


def test_a_worker_elsewhere_does_not_count(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLOVER_REDIS_URL", redis_url)
    with Beat(redis, "shapes-1", "shapes"), monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "elsewhere")
        assert main() == 1


def test_nobody_is_called_dead_while_redis_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROLLOVER_REDIS_URL", f"unix://{tmp_path / 'nowhere.sock'}")
    assert main() == 0
    assert "Redis is away" in capsys.readouterr().out


def test_a_worker_without_redis_is_not_healthy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ROLLOVER_REDIS_URL", raising=False)
    assert main() == 1
    assert "ROLLOVER_REDIS_URL is not set" in capsys.readouterr().err


@pytest.mark.parametrize("program", ["health", "pull", "calibrate"])
def test_a_wrong_setting_is_told_by_its_variable(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROLLOVER_PORT", "many")
    run = {
        "health": main,
        "pull": lambda: pull.main(["shapes"]),
        "calibrate": lambda: calibrate.main(["shapes"]),
    }
    assert run[program]() == 1
    assert "ROLLOVER_PORT: Input should be a valid integer" in capsys.readouterr().err
