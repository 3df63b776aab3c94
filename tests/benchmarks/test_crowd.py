"""Rows of several prompts in one call come to what each prompt's own session and rewards say."""

from functools import partial

import pytest
import torch

from benchmarks.crowd import Crowd, multiplying_in
from benchmarks.setup import Method, Task, picture, run
from benchmarks.together import together

PROMPTS = ["two red circles and a blue square", "a green triangle to the left of a red square"]
REWARDS = ["scene_match", "object_count"]
METHODS = [
    Method("rbf", {"initial_noises": 4}, {}),
    Method("svdd", {}, {}),
    Method("base", {}, {}),
    Method("base", {}, {"reward_guidance": 30.0}),
]


@pytest.fixture(scope="module")
def crowd() -> Crowd:
    return Crowd(PROMPTS)


def test_searches_of_several_prompts_and_rewards_end_as_those_of_one_up_to_rounding(crowd: Crowd) -> None:
    asked = [
        (which, given, method)
        for which in range(2)
        for given in REWARDS
        for method in (METHODS if given == REWARDS[which] else METHODS[:1])
    ]
    searches = [
        lambda ask, key=number, one=one: (key, crowd.search(ask, *one, nfe=30, seed=key))
        for number, one in enumerate(asked)
    ]
    found = dict(together(searches, crowd.serve, rows=16, most=len(asked)))
    for number, (which, given, method) in enumerate(asked):
        lone = run(Task.of(PROMPTS[which], given), method, 30, number)
        assert found[number].ledger == lone.ledger
        best, same = found[number].best[0], lone.best[0]
        assert best.reward == pytest.approx(same.reward, abs=1e-4)
        # Rounding depends on the batch, and svdd carries it on.
        assert torch.allclose(picture(best), picture(same), atol=5e-3)
        assert crowd.held_out(picture(best), which) == Task.of(PROMPTS[which]).held_out(picture(same))


def test_a_search_keeps_its_own_pictures_and_not_the_batch(crowd: Crowd) -> None:
    one = partial(crowd.search, which=0, given=REWARDS[0], method=METHODS[2], nfe=10, seed=0)
    for state in together([one, one, one], crowd.serve, rows=99, most=3):
        assert picture(state.best[0]).untyped_storage().nbytes() == 3 * 64 * 64 * 4


@pytest.mark.filterwarnings("ignore:Mismatch dtype:UserWarning")  # torch's own word on autocast and a norm
def test_precisions_differ_a_little_and_an_unknown_one_is_refused() -> None:
    x, t = torch.randn(2, 64, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.9, 0.3])
    [full] = Crowd(PROMPTS).serve["velocity"]([(x, t, 0)])
    [half] = Crowd(PROMPTS, precision="bfloat16").serve["velocity"]([(x, t, 0)])
    assert 0 < (full - half).norm() < 0.02 * full.norm()
    with pytest.raises(ValueError, match="precision is one of float32, bfloat16 on cpu, and was 'tf32'"):
        multiplying_in("tf32", "cpu").__enter__()
    with pytest.raises(
        ValueError, match="precision is one of float32, tf32, bfloat16 on cuda, and was 'half'"
    ):
        multiplying_in("half", "cuda").__enter__()
