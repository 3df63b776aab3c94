"""What a job leaves behind that runs undisturbed."""

import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from contracts.events import CandidateEvent, Completed, LevelEvent
from contracts.jobs import Record, Result, Status, Usage
from contracts.keys import image_path, preview_path, trace_path
from models.rewards.brightness import Brightness
from models.rewards.sharpness import Sharpness
from tests.workers.conftest import Desk, Faulty
from workers.messages import Stage

LUMA = np.array([0.299, 0.587, 0.114]) / 255
HALF_A_SHADE = 0.5 / 255


def brightness(path: Path) -> float:
    with Image.open(path) as image:
        return float((np.asarray(image.convert("RGB")) @ LUMA).mean())


def ended(record: Record) -> tuple[Result, Usage]:
    assert record.status is Status.SUCCEEDED, record.error
    assert record.result
    assert record.usage
    return record.result, record.usage


def test_the_stream_tells_every_evaluation_once_and_in_order(desk: Desk) -> None:
    record = desk.run()
    events = desk.events(record.id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.type for event in events[:2]] == ["queued", "started"]
    candidates = [event for event in events if isinstance(event, CandidateEvent)]
    assert [candidate.nfe for candidate in candidates] == list(range(1, 61))
    assert isinstance(events[-1], Completed)
    assert events[-1].best_reward == max(candidate.reward for candidate in candidates)


def test_the_result_is_the_best_candidate_and_the_document_says_so(desk: Desk) -> None:
    record = desk.run()
    result, usage = ended(record)
    candidates = [event for event in desk.events(record.id) if isinstance(event, CandidateEvent)]
    best = max(candidates, key=lambda candidate: candidate.reward)
    image = result.images[0]
    assert (image.reward, image.nfe, image.chain) == (best.reward, best.nfe, best.chain)
    assert image.rewards == {"brightness": best.reward}
    assert result.first_reward == candidates[0].reward < image.reward
    assert result.stopped_by == "budget"
    assert (usage.nfe_spent, usage.decodes, usage.reward_calls, usage.nfe_redone) == (60, 60, 60, 0)
    assert (record.progress.nfe_spent, record.progress.best_reward) == (60, best.reward)
    assert record.completed_at
    assert record.started_at
    assert record.completed_at > record.started_at > record.created_at


def test_the_picture_is_the_one_that_was_scored(desk: Desk) -> None:
    record = desk.run()
    image = ended(record)[0].images[0]
    path = desk.file(image_path(record.id, 0, "png"))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == image.sha256
    with Image.open(path) as picture:
        assert picture.size == (image.width, image.height) == (64, 64)
    assert brightness(path) == pytest.approx(image.reward, abs=HALF_A_SHADE)


def test_each_picture_and_each_held_out_reward_is_a_step(desk: Desk) -> None:
    ticks: list[int] = []
    desk.runner.tick = lambda: ticks.append(1)
    counts: list[int] = []
    for more in ({}, {"num_images": 3}, {"held_out": ["sharpness", "colorfulness"]}):
        ended(desk.run(**more))
        counts.append(len(ticks))
        ticks.clear()
    assert counts == [counts[0], counts[0] + 2, counts[0] + 2]


def test_when_a_search_runs_and_when_its_result_is_made_is_told(desk: Desk) -> None:
    stages: list[Stage] = []
    desk.runner.enter = stages.append
    desk.run()
    assert stages == [Stage.SEARCHING, Stage.FINISHING]
    stages.clear()
    desk.run(baseline=True)
    assert stages == [Stage.SEARCHING, Stage.FINISHING] * 2
    stages.clear()
    desk.runner.engine.rewards["brightness"] = Faulty(ValueError("no"))
    desk.run()
    assert stages == [Stage.SEARCHING, Stage.FINISHING]


def test_the_trace_is_the_candidates_as_published(desk: Desk) -> None:
    record = desk.run()
    published = [text for text in desk.texts(record.id) if '"type":"candidate"' in text]
    assert desk.file(trace_path(record.id)).read_text().splitlines() == published


def test_each_level_shows_the_picture_the_chain_goes_on_from(desk: Desk) -> None:
    record = desk.run()
    levels = [event for event in desk.events(record.id) if isinstance(event, LevelEvent)]
    assert len(levels) == len(ended(record)[0].levels) > 2
    for level in levels:
        assert level.preview_url == f"/v1/generations/{record.id}/previews/{level.seq}"
        picture = brightness(desk.file(preview_path(record.id, level.seq)))
        assert picture == pytest.approx(level.reward, abs=HALF_A_SHADE)


def test_no_previews_where_none_are_wanted(desk: Desk) -> None:
    record = desk.run(previews="none")
    levels = [event for event in desk.events(record.id) if isinstance(event, LevelEvent)]
    assert levels
    assert all(level.preview_url is None for level in levels)
    assert not desk.file(f"{record.id}/previews").exists()


def test_the_same_request_gives_the_same_bytes(desk: Desk) -> None:
    first, second, other = desk.run(), desk.run(), desk.run(seed=2)
    digests = [ended(record)[0].images[0].sha256 for record in (first, second, other)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_other_formats(desk: Desk, kind: str) -> None:
    record = desk.run(output_format=kind)
    with Image.open(desk.file(image_path(record.id, 0, kind))) as image:
        assert (image.format or "").lower() == kind


def test_several_images_come_best_first(desk: Desk) -> None:
    record = desk.run(num_images=3)
    rewards = [image.reward for image in ended(record)[0].images]
    assert len(rewards) == 3
    assert rewards == sorted(rewards, reverse=True)
    for index, reward in enumerate(rewards):
        assert brightness(desk.file(image_path(record.id, index, "png"))) == pytest.approx(
            reward, abs=HALF_A_SHADE
        )


def test_weighted_rewards_add_up(desk: Desk) -> None:
    terms = [{"name": "brightness", "weight": 2.0}, {"name": "sharpness", "weight": -0.5}]
    image = ended(desk.run(reward=terms))[0].images[0]
    assert image.reward == pytest.approx(2 * image.rewards["brightness"] - 0.5 * image.rewards["sharpness"])


def test_a_held_out_reward_sees_the_final_pictures_and_nothing_else(desk: Desk) -> None:
    class Counting(Sharpness):
        seen: ClassVar[list[int]] = []

        def score(self, images: Tensor, prompt: str) -> Tensor:
            self.seen.append(len(images))
            return super().score(images, prompt)

    desk.runner.engine.rewards["sharpness"] = Counting()
    result, _ = ended(desk.run(held_out=["sharpness"], num_images=2))
    assert Counting.seen == [2]
    assert result.images[0].held_out.keys() == {"sharpness"}
    assert result.images[0].rewards.keys() == {"brightness"}


def test_a_held_out_reward_that_cannot_judge_costs_no_result(desk: Desk) -> None:
    desk.runner.engine.rewards["sharpness"] = Faulty(ValueError("no idea"))
    result, _ = ended(desk.run(held_out=["sharpness"]))
    assert result.images[0].held_out == {}


@pytest.mark.parametrize("strategy", ["base", "best_of_n"])
def test_other_strategies(desk: Desk, strategy: str) -> None:
    record = desk.run(search={"strategy": strategy}, sampler={"steps": 4}, budget={"nfe": 9})
    result, usage = ended(record)
    assert result.images
    assert usage.nfe_spent == (4 if strategy == "base" else 8)
    assert result.stopped_by == "finished"


def test_a_target_reached_ends_the_search(desk: Desk) -> None:
    whole = ended(desk.run())[0]
    target = (whole.first_reward + whole.images[0].reward) / 2
    result, usage = ended(desk.run(budget={"nfe": 60, "target_reward": target}))
    assert result.stopped_by == "target_reward"
    assert result.images[0].reward >= target
    assert usage.nfe_spent < 60


def test_patience_lost_ends_the_search(desk: Desk) -> None:
    record = desk.run(budget={"nfe": 60, "patience": 3})
    result, usage = ended(record)
    assert result.stopped_by == "patience"
    assert usage.nfe_spent - (result.images[0].nfe or 0) >= 3


def test_seconds_end_a_search_but_never_without_a_picture(desk: Desk) -> None:
    hasty = {"nfe": 60, "seconds": 1e-6}
    result, usage = ended(desk.run(budget=hasty))
    assert result.stopped_by == "seconds"
    assert usage.nfe_spent == 25
    result, usage = ended(desk.run(budget=hasty, search={"strategy": "best_of_n"}, sampler={"steps": 4}))
    assert result.stopped_by == "seconds"
    assert len(result.images) == 1


def test_the_result_says_where_it_came_from(desk: Desk) -> None:
    provenance = ended(desk.run(held_out=["sharpness"]))[0].provenance
    device = f"cpu ({torch.get_num_threads()} threads)"
    assert (provenance.model, provenance.device, provenance.seed) == ("shapes", device, 1)
    assert len(provenance.weights_sha256) == 64
    assert provenance.rewards.keys() == {"brightness", "sharpness"}
    assert {"torch", "diffusers"} <= provenance.libraries.keys()
    assert provenance.mode == "rollover"


def test_time_is_accounted_for(desk: Desk) -> None:
    seconds = ended(desk.run())[1].seconds
    parts = [seconds.load, seconds.model, seconds.decode, seconds.reward]
    assert min(parts) > 0
    assert sum(parts) <= seconds.total
    assert seconds.queued > 0


def test_rewards_stay_warm(desk: Desk) -> None:
    desk.run()
    loaded = desk.runner.engine.rewards["brightness"]
    desk.run()
    assert isinstance(loaded, Brightness)
    assert desk.runner.engine.rewards["brightness"] is loaded


def test_the_rewards_gradient_guides_and_is_accounted_for(desk: Desk) -> None:
    plain, plain_usage = ended(desk.run(search={"strategy": "base"}))
    result, usage = ended(desk.run(search={"strategy": "base"}, sampler={"reward_guidance": 300.0}))
    assert result.images[0].reward > plain.images[0].reward
    assert (usage.nfe_spent, usage.gradients, usage.reward_calls, usage.decodes) == (10, 10, 10, 10)
    assert (plain_usage.gradients, plain_usage.reward_calls) == (0, 1)
    assert usage.seconds.gradient > 0 == plain_usage.seconds.gradient
