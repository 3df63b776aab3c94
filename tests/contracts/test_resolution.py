"""Submissions resolved: complete, stable, and with the arithmetic of the strategies."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.calibration import undistilled
from contracts.catalogue import STRATEGIES, Defaults, SizeFacts
from contracts.errors import FieldProblem, InvalidRequestError
from contracts.models import MODELS
from contracts.parsing import parse
from contracts.requests import Budget, Caps, GenerationRequest, ResolvedRequest, RewardTerm
from contracts.resolution import accept, needed_nfe, resolve, size_problems
from contracts.rewards import REWARD_PARAMS, REWARDS
from contracts.search import STRATEGY_PARAMS, RbfParams, SamplerRequest


def test_a_resolved_request_resolves_to_itself() -> None:
    resolved = accept({"prompt": "x"})
    assert accept(resolved.model_dump(mode="json")) == resolved


NOISY = {"kernel": "ddim", "eta": 0.5, "diffusion": "flow_grpo", "grid": "linear"}
"""Defaults of a model for its sampler, of which no kernel reads all."""


@pytest.mark.parametrize("kernel", [{}, {"kernel": "ode"}, {"kernel": "euler_maruyama"}], ids=str)
@pytest.mark.parametrize("strategy", sorted(STRATEGY_PARAMS))
def test_whatever_the_models_defaults_a_resolved_request_resolves_to_itself(
    strategy: str, kernel: dict[str, str]
) -> None:
    models = {"shapes": MODELS["shapes"].model_copy(update={"defaults": Defaults(sampler=NOISY)})}
    body = {"prompt": "x", "search": {"strategy": strategy}, "baseline": True}
    resolved = accept(body | {"sampler": kernel}, models)
    assert accept(resolved.model_dump(mode="json"), models) == resolved
    shown = resolved.sampler
    assert shown.eta == (0.5 if shown.kernel == "ddim" else 1.0)
    noise = ("flow_grpo", 0.7) if shown.kernel == "euler_maruyama" else ("square", 3.0)
    assert (shown.diffusion, shown.diffusion_scale) == noise


def test_a_job_stored_before_its_sampler_was_refused_is_read_as_it_was() -> None:
    stored = accept({"prompt": "x", "search": {"strategy": "zero_order"}}).model_dump()
    stored["sampler"] |= {"interpolant": "vp", "kernel": "euler_maruyama", "grid": "quadratic", "eta": 0.5}
    assert ResolvedRequest.model_validate(stored).model_dump() == stored


def test_a_resolved_request_survives_json() -> None:
    resolved = accept(
        {"prompt": "x", "search": {"strategy": "best_of_n"}, "reward": ["brightness", "sharpness"]}
    )
    assert ResolvedRequest.model_validate_json(resolved.model_dump_json()) == resolved


def test_a_seed_is_drawn_once() -> None:
    seeds = {accept({"prompt": "x"}).seed for _ in range(20)}
    assert len(seeds) > 15


def test_a_reward_may_be_written_in_three_ways() -> None:
    ways = ["brightness", {"name": "brightness"}, [{"name": "brightness", "weight": 1}], ["brightness"]]
    first, *others = [accept({"prompt": "x", "seed": 0, "reward": way}) for way in ways]
    assert all(other == first for other in others)


def test_a_default_held_out_reward_gives_way_to_one_that_steers() -> None:
    assert accept({"prompt": "x", "reward": "scene_exact"}).held_out == ()
    assert accept({"prompt": "x", "reward": "brightness"}).held_out == ("scene_exact",)


def test_a_model_the_server_does_not_run_is_unknown_to_it() -> None:
    with pytest.raises(InvalidRequestError, match="/model: Unknown model 'shapes'"):
        resolve(parse({"prompt": "x", "model": "shapes"}), models={"other": MODELS["shapes"]})


def test_caps() -> None:
    with pytest.raises(InvalidRequestError, match="at most 100"):
        accept({"prompt": "x", "budget": {"nfe": 101}}, caps=Caps(max_nfe=100))
    with pytest.raises(InvalidRequestError, match="at most 3 characters"):
        accept({"prompt": "four"}, caps=Caps(max_prompt_chars=3))


def test_only_rewards_with_a_gradient_guide() -> None:
    steer = {"prompt": "x", "reward": ["brightness", {"name": "compressibility", "weight": 0.1}]}
    assert accept(steer).sampler.reward_guidance == 0
    [problem] = problems_of(steer | {"sampler": {"reward_guidance": 2.0}}) or []
    assert problem.pointer == "/reward/1/name"
    assert problem.detail.startswith("'compressibility' is not differentiable")
    assert problem.allowed == ["brightness", "colorfulness", "object_count", "scene_match", "sharpness"]
    guiding = {"prompt": "x", "reward": ["brightness", "scene_match"], "sampler": {"reward_guidance": 2.0}}
    assert accept(guiding).sampler.reward_guidance == 2.0


def test_a_job_stored_before_there_was_guidance_has_none() -> None:
    stored = accept({"prompt": "x"}).model_dump()
    del stored["sampler"]["reward_guidance"]
    assert ResolvedRequest.model_validate(stored).sampler.reward_guidance == 0


SEARCHES = st.one_of(
    st.just({"strategy": "base"}),
    st.fixed_dictionaries({"strategy": st.just("best_of_n"), "steps": st.integers(1, 20)}),
    st.fixed_dictionaries(
        {
            "strategy": st.just("rbf"),
            "mode": st.sampled_from(["upstream", "rollover"]),
            "chains": st.integers(1, 6),
            "initial_noises": st.integers(1, 40),
        }
    ),
    st.fixed_dictionaries({"strategy": st.just("zero_order"), "finish_steps": st.integers(0, 5)}),
    st.fixed_dictionaries(
        {"strategy": st.just("sop"), "forward": st.floats(0.1, 0.5), "back": st.floats(0.52, 0.9)}
    ),
    st.fixed_dictionaries({"strategy": st.sampled_from(["smc", "code", "svdd"])}),
    st.fixed_dictionaries({"strategy": st.just("evolution"), "generations": st.integers(1, 20)}),
)


@settings(deadline=None)
@given(search=SEARCHES, steps=st.integers(2, 20))
def test_exactly_the_nfe_needed_is_accepted_and_one_fewer_is_not(
    search: dict[str, object], steps: int
) -> None:
    body = {"prompt": "x", "search": search, "sampler": {"steps": steps}}
    needed = needed_nfe(accept(body | {"budget": {"nfe": 5000}}))
    assert accept(body | {"budget": {"nfe": needed}}).budget.nfe == needed
    if needed > 1:
        with pytest.raises(InvalidRequestError, match=f"needs at least {needed} NFE"):
            accept(body | {"budget": {"nfe": needed - 1}})


@pytest.mark.parametrize(
    ("search", "needed"),
    [
        ({"strategy": "best_of_n"}, 30),
        ({"strategy": "zero_order", "finish_steps": 4}, 30),
        ({"strategy": "code", "block": 9, "chains": 1, "finish_steps": 0}, 27),
        ({"strategy": "evolution", "generations": 1, "steps": 7, "finish_steps": 0}, 21),
        ({"strategy": "smc"}, 14),
    ],
    ids=str,
)
def test_each_image_needs_a_candidate(search: dict[str, object], needed: int) -> None:
    assert needed_nfe(accept({"prompt": "x", "search": search, "num_images": 3})) == needed


def test_the_tables_agree() -> None:
    assert set(STRATEGIES) == set(STRATEGY_PARAMS)
    assert set(REWARDS) == set(REWARD_PARAMS)
    for name, model in MODELS.items():
        assert model.id == name
        assert model.reward in REWARDS
        assert set(model.held_out) <= set(REWARDS)
        for size in (model.width, model.height):
            assert size.minimum <= size.default <= size.maximum
            assert size.default % size.multiple == 0


FIELDS = st.sampled_from(
    sorted(
        {
            *GenerationRequest.model_fields,
            *Budget.model_fields,
            *RewardTerm.model_fields,
            *SamplerRequest.model_fields,
            *(name for params in STRATEGY_PARAMS.values() for name in params.model_fields),
        }
    )
)
MARKS = st.sampled_from(["[key]", "0", "²", "a/b", "~", "params"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(FIELDS | MARKS | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=500, deadline=None)
@given(body=st.dictionaries(FIELDS | MARKS, JSON, max_size=5), prompt=st.text(min_size=1) | JSON)
def test_whatever_is_posted_is_accepted_or_refused_with_reasons(
    body: dict[str, object], prompt: object
) -> None:
    payload = {"prompt": "x"} | body | {"prompt": prompt}
    problems = problems_of(payload)
    if problems is None:
        resolved = accept(payload)
        assert accept(resolved.model_dump(mode="json")) == resolved
    else:
        pointers = [problem.pointer or "" for problem in problems]
        tops = {pointer.split("/")[1].replace("~1", "/").replace("~0", "~") for pointer in pointers}
        assert tops
        assert tops <= set(payload) | set(GenerationRequest.model_fields)


def problems_of(payload: object) -> list[FieldProblem] | None:
    """What is wrong with a submission; None where nothing is."""
    try:
        accept(payload)
    except InvalidRequestError as error:
        return error.problems
    return None


@pytest.mark.parametrize(
    ("size", "refused"), [(256, False), (272, False), (280, True), (240, True), (1040, True)]
)
def test_a_size_is_a_multiple_in_the_models_range(size: int, refused: bool) -> None:  # noqa: FBT001
    facts = SizeFacts(minimum=256, maximum=1024, multiple=16, default=1024)
    found = size_problems("/width", size, facts)
    assert bool(found) == refused
    assert all("a multiple of 16 from 256 to 1024" in problem.detail for problem in found)


BASE = {"prompt": "a red circle", "model": "shapes-base"}
UNDISTILLED = undistilled(10)


def test_a_model_of_many_steps_begins_lower_down() -> None:
    request = accept(BASE)
    assert isinstance(request.search, RbfParams)
    assert (request.sampler.grid, request.search.first_level) == ("linear", UNDISTILLED.rbf["first_level"])
    assert accept({"prompt": "a red circle"}).sampler.grid == "quadratic"


@pytest.mark.parametrize("named", [{"grid": "linear"}, {"interpolant": "vp"}, {"steps": 10}, {"steps": None}])
def test_naming_what_is_the_models_own_changes_nothing(named: dict[str, Any]) -> None:
    plain, request = accept(BASE), accept({**BASE, "sampler": named})
    assert (request.search, request.sampler) == (plain.search, plain.sampler)


@pytest.mark.parametrize("steps", [2, 3, 4, 20, 50])
def test_with_other_steps_the_first_level_lies_where_it_did(steps: int) -> None:
    request = accept({**BASE, "sampler": {"steps": steps}})
    assert isinstance(request.search, RbfParams)
    assert request.search.first_level == undistilled(steps).rbf["first_level"]
    assert request.search.initial_noises == UNDISTILLED.rbf["initial_noises"]


def test_a_scaled_level_leaves_one_before_the_end() -> None:
    late = MODELS["shapes"].model_copy(update={"defaults": Defaults(rbf={"first_level": 8})})
    for steps in range(2, 11):
        request = accept({"prompt": "a red circle", "sampler": {"steps": steps}}, {"shapes": late})
        assert isinstance(request.search, RbfParams)
        assert request.search.first_level == min(8 * steps // 10, steps - 2)


@pytest.mark.parametrize("sampler", [{"grid": "quadratic"}, {"interpolant": "linear"}])
def test_a_grid_of_ones_own_begins_at_its_top(sampler: dict[str, Any]) -> None:
    request = accept({**BASE, "sampler": sampler})
    assert isinstance(request.search, RbfParams)
    assert request.search.first_level == 0
    assert request.sampler.kernel == UNDISTILLED.sampler["kernel"]


@pytest.mark.parametrize(
    ("search", "nfe", "chains", "noises"),
    [
        ({}, 25, 1, 12),
        ({}, 149, 1, 12),
        ({}, 150, 2, 25),
        ({"chains": 3}, 149, 3, 12),
        ({"initial_noises": 5}, 149, 1, 5),
        ({"mode": "upstream"}, 100, 2, 25),
        ({"mode": "upstream", "chains": 1}, 100, 1, 25),
        ({}, 499, 2, 25),
        ({}, 500, 2, 50),
        ({"finish_steps": 2}, 600, 2, 50),
        ({"mode": "upstream"}, 600, 2, 25),
    ],
)
def test_chains_and_noises_go_by_the_budget_where_none_are_named(
    search: dict[str, Any], nfe: int, chains: int, noises: int
) -> None:
    resolved = accept({"prompt": "a red circle", "budget": {"nfe": nfe}, "search": search}).search
    assert isinstance(resolved, RbfParams)
    assert (resolved.chains, resolved.initial_noises) == (chains, noises)
    wide = ("top", 8, "best") if noises == 50 else ("best", 1, "first")
    assert (resolved.start, resolved.width, resolved.accept) == wide


@pytest.mark.parametrize(
    "named", [{"chains": 64}, {"initial_noises": 1}, {"width": 1}, {"accept": "best"}, {"first_level": 3}]
)
def test_who_names_one_of_what_goes_together_has_none_of_the_rest(named: dict[str, Any]) -> None:
    search = accept({"prompt": "a red circle", "budget": {"nfe": 2000}, "search": named}).search
    assert isinstance(search, RbfParams)
    authors = {"chains": 2, "initial_noises": 25, "width": 1, "accept": "first", "start": "best"}
    assert search.model_dump(include=set(authors)) == {
        **authors,
        **{n: v for n, v in named.items() if n in authors},
    }


def test_what_a_submission_names_wins_over_the_models_defaults() -> None:
    request = accept({**BASE, "search": {"chains": 1}, "sampler": {"kernel": "euler_maruyama"}})
    assert isinstance(request.search, RbfParams)
    assert (request.search.chains, request.sampler.kernel) == (1, "euler_maruyama")
    assert request.search.first_level == UNDISTILLED.rbf["first_level"]
    upstream = accept({**BASE, "search": {"mode": "upstream"}, "budget": {"nfe": 500}})
    assert isinstance(upstream.search, RbfParams)
    assert upstream.search.first_level == 0
