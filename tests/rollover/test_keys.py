"""`rollover keys`, and the clients that send what it makes."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rollover import AsyncClient, AuthError, Client, NotFoundError, UnavailableError
from rollover.serve import Stack, StackSettings

ROOT = Path(__file__).parents[2]
Keys = Callable[..., str]


def run(*arguments: str, code: int = 0, **environment: str) -> str:
    """Run `rollover keys`; what it wrote to both streams."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ROLLOVER_")}
    outcome = subprocess.run(
        [sys.executable, "-m", "rollover", "keys", *arguments],
        cwd=ROOT,
        env=clean | environment | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    output = outcome.stdout + outcome.stderr
    assert outcome.returncode == code, output
    assert "Traceback" not in output
    return output


def made(output: str) -> tuple[str, str]:
    """Id and secret of the key that `create` shows."""
    found = re.search(r"id +(key_\w+)\nkey +(rk_\S+)", output)
    assert found
    return found[1], found[2]


def table(output: str) -> list[list[str]]:
    """The rows that `list` shows, without the day of creation."""
    [_, *rows] = [line.split("\t") for line in output.splitlines()]
    return [row[:2] + row[3:] for row in rows]


@pytest.fixture
def keys(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Run the command on the server's own store."""
    monkeypatch.delenv("ROLLOVER_API_KEY", raising=False)
    return lambda *arguments, code=0: run(*arguments, code=code, ROLLOVER_REDIS_URL=redis_url)


def test_a_key_is_made_listed_and_revoked(keys: Keys) -> None:
    key_id, secret = made(keys("create", "someone", "--nfe-per-day", "500", "--concurrent", "2"))
    listed = keys("list")
    assert table(listed) == [[key_id, "someone", "-", "-", "500", "2", "normal", "-"]]
    assert secret not in listed
    assert "is revoked" in keys("revoke", key_id)
    assert table(keys("list"))[0][2] != "-"


def test_a_key_may_have_high_priority(keys: Keys, server: str) -> None:
    _, secret = made(keys("create", "x", "--priority", "high"))
    assert table(keys("list"))[0][-2] == "high"
    with Client(server, api_key=secret) as client:
        assert client.submit("a red circle", priority="high").request["priority"] == "high"


@pytest.mark.usefixtures("same_day")
def test_what_a_key_spent_today_is_listed(keys: Keys, server: str) -> None:
    _, secret = made(keys("create", "x", "--nfe-per-day", "500"))
    with Client(server, api_key=secret) as client:
        client.submit("a red circle", nfe=120)
    assert table(keys("list"))[0][-1] == "120"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["revoke", "key_none"], 1, "There is no key 'key_none'."),
        (["create", "two\nlines"], 1, "one line"),
        (["create", "x", "--concurrent", "0"], 2, "--concurrent"),
        (["create", "x", "--priority", "urgent"], 2, "--priority"),
        (["create"], 2, "Missing argument"),
    ],
)
def test_what_cannot_be_done_is_said(keys: Keys, arguments: list[str], code: int, words: str) -> None:
    assert words in keys(*arguments, code=code)


def test_a_name_may_look_like_an_option(keys: Keys) -> None:
    made(keys("create", "--", "--name"))
    assert table(keys("list"))[0][1] == "--name"


def test_without_a_server_the_keys_of_the_data_directory_are_kept(short_dir: Path) -> None:
    key_id, _ = made(run("create", "first", "--data-dir", str(short_dir)))
    assert table(run("list", "--data-dir", str(short_dir)))[0][0] == key_id


def test_beside_a_running_server_its_store_is_used(short_dir: Path) -> None:
    with Stack(StackSettings(data_dir=short_dir), lambda _: None).store():
        key_id, _ = made(run("create", "first", ROLLOVER_DATA_DIR=str(short_dir)))
        assert table(run("list", ROLLOVER_DATA_DIR=str(short_dir)))[0][0] == key_id
        (short_dir / "redis.url").unlink()  # as while it starts
        assert "still starting" in run("list", ROLLOVER_DATA_DIR=str(short_dir), code=1)


def test_a_redis_that_is_away_is_one_message(short_dir: Path) -> None:
    url = f"unix://{short_dir}/none"
    assert "rollover: " in run("list", code=1, ROLLOVER_REDIS_URL=url)


def test_the_stores_address_is_gone_with_it(short_dir: Path) -> None:
    with Stack(StackSettings(data_dir=short_dir), lambda _: None).store() as url:
        assert (short_dir / "redis.url").read_text() == url
    assert not (short_dir / "redis.url").exists()


def test_the_clients_read_the_key_from_the_environment(
    keys: Keys, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, secret = made(keys("create", "x"))
    with Client(server) as client, pytest.raises(AuthError, match="unauthorized, HTTP 401"):
        client.models()
    monkeypatch.setenv("ROLLOVER_API_KEY", secret)

    async def submitted() -> str:
        async with AsyncClient(server) as client:
            return (await client.submit("a red circle", nfe=100)).id

    job = asyncio.run(submitted())
    with Client(server) as client:
        assert client.get(job).id == job
    _, other = made(keys("create", "y"))
    with Client(server, api_key=other) as client, pytest.raises(NotFoundError):
        client.get(job)


@pytest.mark.usefixtures("same_day")
def test_a_limit_is_an_error_that_says_when_to_try_again(keys: Keys, server: str) -> None:
    _, secret = made(keys("create", "x", "--nfe-per-day", "150"))
    with Client(server, api_key=secret) as client:
        client.submit("a red circle", nfe=100)
        with pytest.raises(UnavailableError) as refusal:
            client.submit("a red circle", nfe=100)
    assert refusal.value.code == "nfe_exhausted"
    assert refusal.value.retry_after
    assert str(refusal.value).endswith(f"\nTry again after {refusal.value.retry_after:g} s.")


@pytest.mark.parametrize("command", [["list"], ["revoke", "key_1"]])
def test_looking_for_keys_in_the_wrong_folder_makes_no_store_there(
    tmp_path: Path, command: list[str]
) -> None:
    output = run(*command, code=1, ROLLOVER_DATA_DIR=str(tmp_path))
    assert str(tmp_path) in output
    assert "--data-dir" in output
    assert list(tmp_path.iterdir()) == []
