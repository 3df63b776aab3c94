"""The facts and the arithmetic repeated in contracts are those of the packages that do the work."""

from collections import Counter
from itertools import count
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from contracts.errors import InvalidRequestError
from contracts.plans import plan_of
from contracts.requests import ResolvedRequest
from contracts.resolution import accept, needed_nfe
from contracts.rewards import BUNDLED
from contracts.search import (
    OWN_WAY,
    STRATEGY_PARAMS,
    Diffusion,
    Grid,
    Interpolant,
    Kernel,
    SamplerRequest,
    SearchParams,
)
from contracts.search import Sampler as Settled
from models import registry
from models.rewards.protocol import Facts
from sampling.problem import Problem, Scores
from sampling.sampler import Sampler
from sampling.strategies import STRATEGIES, make_strategy
from tests.sampling.oracle import MIXTURE
from tests.sampling.worlds import candidates, problem, rounds

SEARCHES = [
    {"strategy": "base"},
    {"strategy": "best_of_n"},
    {"strategy": "best_of_n", "steps": 3},
    {"strategy": "rbf"},
    {"strategy": "rbf", "mode": "upstream"},
    {"strategy": "rbf", "chains": 5, "initial_noises": 3, "width": 4, "accept": "best", "start": "best"},
    {"strategy": "rbf", "chains": 5, "initial_noises": 3, "mode": "upstream"},
    {"strategy": "rbf", "finish_steps": 0},
    {"strategy": "rbf", "first_level": 3, "approach_steps": 3, "initial_noises": 5},
    {"strategy": "rbf", "plan_nfe": 120},
    {"strategy": "rbf", "plan_nfe": 120, "mode": "upstream"},
    {"strategy": "rbf", "finish_steps": 7, "chains": 1, "initial_noises": 1},
    {"strategy": "zero_order"},
    {"strategy": "zero_order", "steps": 1, "finish_steps": 3},
    {"strategy": "sop"},
    {"strategy": "sop", "paths": 3, "forward": 0.5, "back": 0.6, "steps": 2},
    {"strategy": "sop", "forward": 0.8, "back": 0.9},
    {"strategy": "sop", "forward": 0.5, "back": 0.51},
    {"strategy": "smc"},
    {"strategy": "smc", "finish_steps": 0, "potential": "sum"},
    {"strategy": "code"},
    {"strategy": "code", "chains": 3, "block": 7, "finish_steps": 1},
    {"strategy": "svdd"},
    {"strategy": "svdd", "chains": 3, "finish_steps": 0, "temperature": 0.5},
    {"strategy": "evolution"},
    {"strategy": "evolution", "generations": 3, "elites": 9, "steps": 4, "finish_steps": 0},
]


def with_steps(steps: tuple[Any, ...], searches: list[dict[str, Any]]) -> list[Any]:
    """Every search with every (steps, ...) that has a level for it."""
    return [
        (*each, search)
        for search in searches
        for each in steps
        if each[0] >= search.get("first_level", 0) + 2
    ]


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("rbf", {"mode": "upstream", "width": 2}),
    ("rbf", {"start": "top", "chains": 3, "initial_noises": 2}),
    ("rbf", {"chains": 0}),
    ("rbf", {"initial_noises": 0}),
    ("rbf", {"width": 0}),
    ("rbf", {"plan_nfe": 0}),
    ("rbf", {"finish_steps": -1}),
    ("rbf", {"first_level": -1}),
    ("rbf", {"approach_steps": 0}),
    ("rbf", {"mode": "upstream", "first_level": 1}),
    ("rbf", {"mode": "other"}),
    ("rbf", {"accept": "other"}),
    ("rbf", {"start": "other"}),
    ("zero_order", {"steps": 0}),
    ("zero_order", {"neighbours": 0}),
    ("zero_order", {"correlation": 1.0}),
    ("zero_order", {"patience": 0}),
    ("zero_order", {"finish_steps": -1}),
    ("sop", {"paths": 0}),
    ("sop", {"steps": 0}),
    ("sop", {"forward": 0.0}),
    ("sop", {"back": 1.0}),
    ("sop", {"forward": 0.81}),
    ("sop", {"forward": 0.9}),
    ("sop", {"back": 0.785}),
    ("smc", {"potential": "other"}),
    ("smc", {"inverse_temperature": -1.0}),
    ("smc", {"ess_threshold": 1.1}),
    ("smc", {"finish_steps": -1}),
    ("code", {"chains": 0}),
    ("code", {"block": 0}),
    ("code", {"finish_steps": -1}),
    ("svdd", {"chains": 0}),
    ("svdd", {"temperature": -1.0}),
    ("svdd", {"finish_steps": -1}),
    ("evolution", {"generations": 0}),
    ("evolution", {"elites": 0}),
    ("evolution", {"correlation": -0.1}),
    ("evolution", {"steps": 0}),
    ("evolution", {"finish_steps": -1}),
]


@pytest.mark.parametrize(("name", "parameters"), REFUSED, ids=str)
def test_what_a_strategy_refuses_is_refused_at_submission(name: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\d|one of"):
        make_strategy(name, parameters)
    with pytest.raises(InvalidRequestError, match="/search/"):
        accept({"prompt": "x", "search": {"strategy": name, **parameters}})


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_the_defaults_are_those_of_the_strategy(name: str) -> None:
    parameters = STRATEGY_PARAMS[name]().model_dump(exclude={"strategy"})
    # Null stands for a default that depends on the sampler or the mode.
    stated = {key: value for key, value in parameters.items() if value is not None}
    assert make_strategy(name, stated) == make_strategy(name)


def test_the_default_search_is_that_of_rbf() -> None:
    parameters = accept({"prompt": "x"}).search.model_dump(exclude={"strategy"})
    assert make_strategy("rbf", parameters) == make_strategy("rbf")


@pytest.mark.parametrize(("steps", "search"), with_steps(((2,), (4,), (10,)), SEARCHES), ids=str)
def test_the_least_nfe_is_that_of_the_strategy(steps: int, search: dict[str, object]) -> None:
    resolved = accept({"prompt": "x", "budget": {"nfe": 5000}, "search": search, "sampler": {"steps": steps}})
    parameters = resolved.search.model_dump(exclude={"strategy"})
    strategy = make_strategy(resolved.search.strategy, parameters)
    sampler = Sampler(**resolved.sampler.model_dump())
    assert resolved.search.minimum_nfe(resolved.sampler) == strategy.minimum_nfe(sampler)


@pytest.mark.parametrize(
    ("steps", "nfe", "search"),
    with_steps(
        ((2, 300), (10, 500), (10, 333), (7, 401)),
        [search for search in SEARCHES if search["strategy"] == "rbf"],
    ),
    ids=str,
)
def test_a_quoted_plan_is_the_strategys(steps: int, nfe: int, search: dict[str, Any]) -> None:
    resolved = accept({"prompt": "x", "budget": {"nfe": nfe}, "search": search, "sampler": {"steps": steps}})
    rbf: Any = make_strategy("rbf", resolved.search.model_dump(exclude={"strategy"}))
    problem = SimpleNamespace(nfe=nfe, sampler=Sampler(**resolved.sampler.model_dump()))
    plan, quoted = rbf.plan(problem), plan_of(resolved)
    assert (quoted.initial_noises, quoted.quota, quoted.shares) == (plan.pool, plan.base_quota, plan.shares)
    assert quoted.levels == plan.last_level + 1 - rbf.first_level
    assert quoted.nfe == rbf.pool_nfe + sum(plan.shares) + rbf.reserve
    assert quoted.nfe + quoted.nfe_unspent == nfe


def made_of(resolved: ResolvedRequest) -> tuple[Problem, dict[str, object]]:
    """What a worker would search, on a model that costs next to nothing, and the strategy's parameters."""
    verdicts = count()
    made = Problem(
        velocity=lambda x, t: x * t[:, None],
        score=lambda x0: Scores([float(next(verdicts) * 7 % 11) for _ in x0], [{} for _ in x0], None),
        shape=(1,),
        seed=0,
        nfe=resolved.budget.nfe,
        sampler=Sampler(**resolved.sampler.model_dump()),
    )
    return made, resolved.search.parameters(resolved.sampler)


@pytest.mark.parametrize(("steps", "search"), with_steps(((2,), (4,), (7,)), SEARCHES), ids=str)
def test_a_quote_is_what_the_search_then_spends(steps: int, search: dict[str, Any]) -> None:
    body = {"prompt": "x", "search": search, "sampler": {"steps": steps}}
    least = max(needed_nfe(accept({**body, "budget": {"nfe": 5000}})), search.get("plan_nfe", 0))
    for nfe in (*range(least, least + 12), least + 47):
        resolved = accept({**body, "budget": {"nfe": nfe}})
        made, parameters = made_of(resolved)
        done, quoted = rounds(resolved.search.strategy, parameters, made), plan_of(resolved)
        ledger = done[-1].state.ledger
        assert (quoted.nfe, quoted.nfe_unspent) == (ledger.nfe_spent, ledger.nfe_left)
        scored = [len(one.candidates) for one in done if one.candidates]
        if quoted.runs is not None:
            assert (sum(scored), quoted.nfe) == (quoted.runs, quoted.runs * (quoted.steps or 0))
        elif quoted.draws is not None:
            assert scored == [*quoted.draws, *[1] * (quoted.finish_steps or 0)]
        if quoted.shares is not None and quoted.draws is not None:
            searched = candidates(done)[: sum(quoted.draws)]
            assert tuple(Counter(c.chain for c in searched).values()) == quoted.shares


def test_the_names_are_those_of_the_registries() -> None:
    assert set(STRATEGY_PARAMS) == set(STRATEGIES)
    assert set(BUNDLED) == set(registry.REWARDS)


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_the_facts_are_those_of_the_reward(name: str) -> None:
    facts: Facts = registry.imported(registry.REWARDS[name]).facts
    stated = BUNDLED[name]
    assert (stated.minimum, stated.maximum) == (facts.minimum, facts.maximum)
    assert stated.differentiable == facts.differentiable


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_strategies_that_go_the_models_own_way_where_no_other_is_named_go_it_by_themselves_too(
    strategy: str,
) -> None:
    made = make_strategy(strategy, {})
    own = {name: getattr(made, name, None) for name in OWN_WAY}
    assert (own == OWN_WAY) == STRATEGY_PARAMS[strategy].own_way
    shown = accept({"prompt": "x", "search": {"strategy": strategy}}).sampler.model_dump()
    assert (shown | dict(OWN_WAY) == shown) == STRATEGY_PARAMS[strategy].own_way


SETTINGS: dict[str, tuple[Any, ...]] = {
    "interpolant": get_args(Interpolant),
    "kernel": get_args(Kernel),
    "steps": (4, 5),
    "grid": get_args(Grid),
    "diffusion": get_args(Diffusion),
    "diffusion_scale": (0.7, 3.0),
    "eta": (0.0, 0.5, 1.0),
    "reward_guidance": (0.0, 0.3),
}
"""Values of every setting of the sampler."""


def uneven(steps: int) -> tuple[float, ...]:
    """Times of a model whose own pipeline goes by its number of steps, all the way."""
    return tuple((1 - i / steps) ** 2 for i in range(steps + 1))


def found(search: SearchParams, sampler: dict[str, Any]) -> list[object]:
    """What a search on the mixture comes to, in order."""
    parameters = search.parameters(Settled.model_validate(sampler))
    made = problem(70, sampler=sampler, velocity=MIXTURE.velocity, schedule=uneven)
    return [(c.reward, c.x.tolist()) for c in candidates(rounds(search.strategy, parameters, made))]


@pytest.mark.parametrize("kernel", get_args(Kernel))
@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_a_setting_of_the_sampler_is_heeded_or_refused(strategy: str, kernel: str) -> None:
    assert set(SETTINGS) == set(SamplerRequest.model_fields)
    search: dict[str, Any] = {"strategy": strategy}
    if strategy == "evolution":
        search["steps"] = 3  # of one step there is none that a kernel takes
    body = {"prompt": "x", "search": search, "budget": {"nfe": 70}}
    named = {"steps": 5, "kernel": kernel}
    resolved = accept(body | {"sampler": named})
    shown = resolved.sampler.model_dump()
    plain = found(resolved.search, shown)
    for name, value in ((name, value) for name, values in SETTINGS.items() for value in values):
        try:
            accepted = accept(body | {"sampler": named | {name: value}})
        except InvalidRequestError as error:
            [refusal] = error.problems
            assert (refusal.pointer, refusal.allowed) == (f"/sampler/{name}", [str(shown[name])])
            assert found(resolved.search, shown | {name: value}) == plain
        else:
            other = accepted.sampler.model_dump()
            assert other[name] == value
            assert (found(accepted.search, other) == plain) == (value == shown[name])
