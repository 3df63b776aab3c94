import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError
from redis.connection import parse_url

from contracts.resolution import accept
from contracts.settings import Settings, in_words


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"ROLLOVER_{name.upper()}", raising=False)


def test_defaults() -> None:
    settings = Settings()
    assert settings.artifacts == str(Path("var") / "artifacts")
    assert settings.models == ("shapes",)
    assert (settings.host, settings.redis_url) == ("127.0.0.1", None)


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLOVER_MODELS", "shapes")
    monkeypatch.setenv("ROLLOVER_MAX_NFE", "100")
    monkeypatch.setenv("ROLLOVER_ARTIFACTS_URL", "s3://bucket/prefix")
    settings = Settings()
    assert settings.caps.max_nfe == 100
    assert settings.artifacts == "s3://bucket/prefix"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("MODELS", "shape"), ("MODELS", ""), ("PORT", "70000"), ("REDIS_URL", "http://x"), ("MAX_NFE", "0")],
)
def test_a_value_that_cannot_be(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"ROLLOVER_{name}", value)
    with pytest.raises(ValidationError, match=name.lower() if name != "MODELS" else "model"):
        Settings()


def test_rewards_with_a_folder_are_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLOVER_REWARD_PATHS", "pickscore=/data/pick, hps=/data/hps")
    settings = Settings()
    assert settings.reward_paths == {"pickscore": Path("/data/pick"), "hps": Path("/data/hps")}
    resolved = accept({"prompt": "x", "reward": "pickscore"}, caps=settings.caps)
    assert resolved.reward[0].name == "pickscore"


@pytest.mark.parametrize(
    ("value", "said"),
    [("pikscore=/x", "Did you mean 'pickscore'"), ("brightness=/x", "There are clip_score, pickscore, hps")],
)
def test_a_folder_for_no_reward_is_refused(monkeypatch: pytest.MonkeyPatch, value: str, said: str) -> None:
    monkeypatch.setenv("ROLLOVER_REWARD_PATHS", value)
    with pytest.raises(ValidationError, match=said):
        Settings()


@pytest.mark.parametrize("value", ["pickscore", "pickscore=", "=/data/pick", "pickscore=/data/pick,hps"])
def test_a_folder_without_its_reward_and_the_other_way_round_are_refused(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("ROLLOVER_REWARD_PATHS", value)
    with pytest.raises(ValidationError) as refused:
        Settings()
    said = in_words(refused.value)
    assert said == "ROLLOVER_REWARD_PATHS: must be name=value, comma separated"


def test_what_is_wrong_is_told_by_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLOVER_PORT", "many")
    monkeypatch.setenv("ROLLOVER_REDIS_URL", "http://x")
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert in_words(refused.value) == (
        "ROLLOVER_REDIS_URL: a Redis URL starts with redis://, rediss://, unix://; "
        "ROLLOVER_PORT: Input should be a valid integer, unable to parse string as an integer"
    )


@pytest.mark.parametrize(
    "before_host",
    [
        *(f":{start}{mark}t4il" for start in ("s3cret", "777") for mark in "/?#"),
        "user:s3cret/t4il",
        ":s3cret[t4il",
    ],
)
def test_a_redis_url_that_its_client_misreads_is_refused_without_showing_it(before_host: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(redis_url=f"rediss://{before_host}@localhost:6379/0?socket_timeout=5")
    said = in_words(refused.value)
    assert said.startswith("ROLLOVER_REDIS_URL: ")
    assert "`/`, `?`, `#`, `[` and `]` in a password are percent-encoded" in said
    shown = said + "".join(traceback.format_exception(refused.value))
    assert not any(part in shown for part in ("s3cret", "t4il", "777"))


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis:///3",
        "redis://localhost/0?username=user&password=s3cret@tail",
        "redis://user:s3cret%2Ftail%23%3F@[::1]:6379/0?socket_timeout=5",
        "rediss://:s3cret@redis.internal:6379/0?ssl_ca_certs=/etc/ssl/redis-ca.pem",
        "unix:///run/valkey@1/valkey.sock?db=3",
        "unix://user:s3cret@/run/valkey.sock",
    ],
)
def test_a_redis_url_that_its_client_opens_is_taken(url: str) -> None:
    assert Settings(redis_url=url).redis_url == url
    assert parse_url(url)


@pytest.mark.parametrize(
    ("name", "value"), [("ROLLOVER_REWARD_TOKEN", "s3cret"), ("ROLLOVER_REWARD_URL", "ftp://scores.example")]
)
def test_what_is_wrong_of_two_settings_together_is_told_by_the_variable_too(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as refused:
        Settings()
    said = in_words(refused.value)
    assert said.startswith(f"{name}: ")
    assert value not in said
