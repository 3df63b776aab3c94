"""Jobs whose prompts are about an image, on a tiny FLUX.1 Kontext in the place of the bundled model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageOps
from redis import Redis

from app.enqueue import Enqueuer
from app.inputs import Inputs
from contracts.jobs import Record, Status
from contracts.keys import input_path
from contracts.resolution import accept
from contracts.settings import Settings
from tests.app.test_inputs import base64_of, file_of, halves
from tests.models.tiny import FAMILIES, make
from tests.workers.conftest import Deadly, Desk
from tests.workers.test_checkpoints import killed, outcome, story
from workers.engine import Engine
from workers.inputs import LOST
from workers.settings import WorkerSettings

ENTRY = """
[shapes]
folder = "kontext"
width = { minimum = 16, maximum = 64, multiple = 16, default = 48 }
height = { minimum = 16, maximum = 64, multiple = 16, default = 32 }
guidance = { minimum = 1.0, maximum = 10.0, default = 2.5 }
reward = "brightness"
few_step = true
image = "optional"
inputs = { _auto_resize = false }
"""
PNG, OTHER = file_of(halves()), file_of(ImageOps.invert(halves()))
BODY = {
    "prompt": "make it green",
    "seed": 1,
    "budget": {"nfe": 40},
    "sampler": {"steps": 4},
    "baseline": True,
}
Submit = Callable[..., str]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kontext")
    make(FAMILIES["FLUX.1 Kontext"], folder / "kontext")
    (folder / "models.toml").write_text(ENTRY)
    return folder / "models.toml"


@pytest.fixture(scope="module")
def editor(catalogue: Path) -> Engine:
    return Engine.load("shapes", WorkerSettings(device="cpu"), entries=Settings(catalogue=catalogue).entries)


@pytest.fixture
def engine(editor: Engine) -> Engine:
    return replace(editor, rewards={})


@pytest.fixture
def settings(redis_url: str, tmp_path: Path, catalogue: Path) -> Settings:
    return Settings(redis_url=redis_url, data_dir=tmp_path, catalogue=catalogue)


@pytest.fixture
def submit(desk: Desk) -> Submit:
    """Submit a job about an image as the API does."""

    def submit(image: bytes | None) -> str:
        settings = desk.settings
        inputs = Inputs(settings.max_image_bytes, settings.max_image_pixels)
        text = None if image is None else base64_of(image)
        record = Record.new(accept(BODY | {"image": text}, settings.served, settings.caps))
        if text is not None:
            read = inputs.decoded(text)
            record = record.model_copy(
                update={"request": record.request.model_copy(update={"image": read.facts})}
            )
            desk.runner.store.put(input_path(record.id), read.png)
        inputs.close()
        with Redis.from_url(settings.redis_url or "") as raw:
            return Enqueuer(raw, settings).submit(record, "").id

    return submit


def pictures(record: Record) -> tuple[str, str]:
    """Digests of what the search found, and of what its baseline did."""
    assert record.status is Status.SUCCEEDED, record.error
    assert record.result
    assert record.result.baseline
    return record.result.images[0].sha256, record.result.baseline.image.sha256


def test_search_and_baseline_go_by_the_image(desk: Desk, submit: Submit) -> None:
    found: list[tuple[str, str]] = []
    for image in (PNG, PNG, OTHER, None):
        job = submit(image)
        desk.runner.run(job)
        found.append(pictures(desk.record(job)))
    assert found[0] == found[1]
    searched, baselines = zip(*found, strict=True)
    assert len(set(searched)) == len(set(baselines)) == 3


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_job_that_is_taken_over_goes_on_with_its_image(desk: Desk, submit: Submit, part: float) -> None:
    counting = desk.runner.engine.rewards["brightness"] = Deadly(1000)
    whole = submit(PNG)
    desk.runner.run(whole)
    job = submit(PNG)
    killed(desk, job, int(part * (1000 - counting.calls_left)))
    desk.runner.run(job)
    assert outcome(desk.record(job)) == outcome(desk.record(whole))
    assert pictures(desk.record(job)) == pictures(desk.record(whole))
    assert story(desk, job) == story(desk, whole)
    assert desk.file(input_path(job)).exists()


@pytest.mark.parametrize("content", [None, b"", PNG[:-40], file_of(halves(), "JPEG")])
def test_an_image_that_is_lost_fails_the_job_and_says_so(
    desk: Desk, submit: Submit, content: bytes | None
) -> None:
    job = submit(PNG)
    if content is None:
        desk.file(input_path(job)).unlink()
    else:
        desk.file(input_path(job)).write_bytes(content)
    desk.runner.run(job)
    error = desk.record(job).error
    assert error
    assert (error.code, error.detail) == ("storage_failed", LOST)


def test_a_store_that_is_away_is_waited_for(
    desk: Desk, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.store.PAUSES", (0.0, 0.0))
    job = submit(PNG)
    get, away = desk.runner.store.get, [OSError(5, "away"), OSError(5, "away")]

    def recovering(path: str) -> bytes:
        if away:
            raise away.pop()
        return get(path)

    monkeypatch.setattr(desk.runner.store, "get", recovering)
    desk.runner.run(job)
    assert desk.record(job).status is Status.SUCCEEDED
    assert away == []


def test_a_model_that_needs_an_image_is_warmed_up(
    editor: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = replace(editor, rewards={}, entry=editor.entry.model_copy(update={"image": "required"}))
    given: list[object] = []
    prepare = engine.backend.prepare

    def spied(*arguments: object, image: object = None) -> object:
        given.append(image)
        return prepare(*arguments, image=image)  # pyright: ignore[reportArgumentType] -- what it was given

    monkeypatch.setattr(engine.backend, "prepare", spied)
    engine.warm_up()
    [image] = given
    assert isinstance(image, Image.Image)
    assert "not warmed up" not in caplog.text
