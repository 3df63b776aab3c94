"""Rewards that the settings must give something to."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from contracts.jobs import Status
from contracts.settings import Settings
from tests.models.rewards.conftest import make_clip
from tests.workers.conftest import Desk
from workers.needs import reward_needs


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    paths = {"clip_score": tmp_path / "clip", "pickscore": tmp_path / "clip"}
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
