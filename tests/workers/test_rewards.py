"""Rewards that the settings must give something to."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from contracts.jobs import Status
from contracts.rewards import REWARDS
from contracts.settings import Settings
from tests.models.rewards.conftest import MAKERS, make_clip, make_detectors
from tests.workers.conftest import Desk
from workers.needs import reward_needs


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    names = {"clip_score": "clip", "pickscore": "clip", "grounded_count": "detectors"}
    paths = {name: tmp_path / folder for name, folder in names.items()}
    return Settings(redis_url=redis_url, data_dir=tmp_path, reward_paths=paths)


@pytest.fixture
def desk(desk: Desk) -> Desk:
    engine = replace(desk.runner.engine, needs=reward_needs(desk.settings))
    return replace(desk, runner=replace(desk.runner, engine=engine))


def test_a_search_climbs_rewards_from_folders(desk: Desk, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        make_clip(tmp_path / "clip")
    record = desk.run(reward=["pickscore"], held_out=["clip_score"], sampler={"reward_guidance": 0.1})
    assert record.status is Status.SUCCEEDED
    assert record.result
    assert record.result.images[0].held_out.keys() == {"clip_score"}
    assert record.result.provenance.rewards.keys() == {"pickscore", "clip_score"}


def test_a_folder_that_is_not_there_fails_the_job_and_says_what_to_do(desk: Desk) -> None:
    record = desk.run(reward="pickscore")
    assert record.error
    assert record.error.code == "reward_failed"
    assert "hf download yuvalkirstain/PickScore_v1" in record.error.detail


def test_a_search_counts_what_its_params_say(desk: Desk, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        make_detectors(tmp_path / "detectors")
    counts = {"cat": 1, "dog": 0}
    term = {"name": "grounded_count", "params": {"counts": counts}}
    record = desk.run(prompt="no number of anything", reward=term)
    assert record.status is Status.SUCCEEDED
    assert record.request.reward[0].params == {"counts": counts}
    assert record.result
    assert record.result.images[0].reward in (-1, 0)


def test_a_prompt_with_nothing_to_count_fails_the_job_and_says_what_to_give(
    desk: Desk, tmp_path: Path
) -> None:
    with torch.random.fork_rng():
        make_detectors(tmp_path / "detectors")
    record = desk.run(prompt="good morning", reward="grounded_count")
    assert record.request.reward[0].params == {"counts": None}
    assert record.error
    assert record.error.code == "reward_failed"
    assert '"counts": {"dog": 2' in record.error.detail


def test_several_rewards_guide_one_search(desk: Desk, tmp_path: Path) -> None:
    """Their sum is of scores normalised by the stated constants, and its gradient flows through all."""
    names = ["clip_score", "aesthetic", "siglip", "image_reward", "instructblip"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name in names:
            (tmp_path / name).mkdir()
            MAKERS[name](tmp_path / name)
    settings = desk.settings.model_copy(update={"reward_paths": {name: tmp_path / name for name in names}})
    engine = replace(desk.runner.engine, needs=reward_needs(settings))
    desk = replace(desk, settings=settings, runner=replace(desk.runner, engine=engine))
    record = desk.run(reward=names, sampler={"reward_guidance": 0.1})
    assert record.result, record.error
    [image] = record.result.images
    total = sum((image.rewards[name] - REWARDS[name].mean) / REWARDS[name].scale for name in names)
    assert image.reward == pytest.approx(total, rel=1e-4)
    assert record.usage
    assert record.usage.gradients > 0


def test_an_engine_tells_which_reward_it_loads_and_asks(desk: Desk) -> None:
    told: list[str | None] = []
    engine = replace(desk.runner.engine, asking=told.append)
    desk = replace(desk, runner=replace(desk.runner, engine=engine))
    assert desk.run(reward=["brightness", "sharpness"], held_out=["colorfulness"]).status is Status.SUCCEEDED
    assert told[:6] == ["brightness", None, "sharpness", None, "colorfulness", None]
    asked = told[6:-2]
    assert asked == ["brightness", "sharpness", None] * (len(asked) // 3)
    assert asked
    assert told[-2:] == ["colorfulness", None]
