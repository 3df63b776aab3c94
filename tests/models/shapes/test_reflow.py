"""Reflow fits right pictures near the flow's own; here is what near and right mean."""

import numpy as np
import pytest
import torch

from models.shapes.judge import accepts
from models.shapes.train.flow import may_train
from models.shapes.train.reflow import captions, nearest_scene, pseudo_huber, times
from models.shapes.world import (
    COLOUR_NAMES,
    SHAPES,
    Group,
    Scene,
    Thing,
    describe,
    hard_prompts,
    parse,
    place,
    render,
)
from models.shapes.world import Split as Kind


def test_a_right_picture_is_its_own_nearest_scene() -> None:
    rng = np.random.default_rng(0)
    for kind in [*Kind] * 8:
        description = describe(kind, rng, hard=True)
        scene = place(description, rng)
        nearest = nearest_scene(render(scene), description)
        at = dict(zip(nearest.cells, nearest.things, strict=True))
        for cell, thing in zip(scene.cells, scene.things, strict=True):
            assert at[cell].kind == thing.kind
            assert at[cell].x == pytest.approx(thing.x, abs=0.5)
            assert at[cell].y == pytest.approx(thing.y, abs=0.5)
            assert at[cell].radius == pytest.approx(thing.radius, abs=0.3)


def test_whatever_the_picture_the_nearest_scene_is_what_the_caption_says() -> None:
    rng = np.random.default_rng(1)
    for kind in [*Kind] * 8:
        description, other = describe(kind, rng, hard=True), describe(Kind.THREE, rng, hard=True)
        assert accepts(render(nearest_scene(render(place(other, rng)), description)), description)
        noise = rng.uniform(size=(3, 64, 64)).astype(np.float32)
        assert accepts(render(nearest_scene(noise, description)), description)


def test_one_wrong_object_is_put_right_where_it_stands() -> None:
    description = parse("two red circles and a blue square")
    scene = place(description, np.random.default_rng(2))
    red_square = Group(1, "red", "square").kind
    wrong = Thing(red_square, scene.things[0].x, scene.things[0].y, scene.things[0].radius)
    spoilt = Scene((wrong, *scene.things[1:]), scene.cells, scene.background)
    nearest = nearest_scene(render(spoilt), description)
    assert dict(zip(nearest.cells, (thing.kind for thing in nearest.things), strict=True)) == dict(
        zip(scene.cells, description.kinds, strict=True)
    )


def test_no_caption_of_the_evaluation_set_with_several_groups_is_trained_on() -> None:
    held_out = {prompt for prompt in hard_prompts(600) if " and " in prompt}
    assert len(held_out) > 200
    drawn = captions(3000, np.random.default_rng(3))
    assert not held_out & {str(description) for description in drawn}
    assert not any(may_train(parse(prompt)) for prompt in held_out)
    assert {group.colour for description in drawn for group in description.groups} == set(COLOUR_NAMES)
    assert {group.shape for description in drawn for group in description.groups} == set(SHAPES)


def test_training_times_have_the_stated_shares() -> None:
    count = 20_000
    t = times(count, torch.Generator().manual_seed(0))
    error = (0.25 / count) ** 0.5
    assert (t == 1).float().mean().item() == pytest.approx(0.35, abs=4 * error)
    assert (t < 0.7).float().mean().item() == pytest.approx(0.25, abs=4 * error)
    assert t.min() >= 0


def test_the_loss_is_square_near_zero_and_linear_far_out() -> None:
    zero = torch.zeros(1, 64, 16)
    near, far = (pseudo_huber(zero + size, zero).item() for size in (0.01, 0.02))
    assert far / near == pytest.approx(4, rel=0.05)
    near, far = (pseudo_huber(zero + size, zero).item() for size in (10.0, 20.0))
    assert far / near == pytest.approx(2, rel=0.05)
