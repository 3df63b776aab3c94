"""The facts and the arithmetic repeated in contracts are those of the packages that do the work."""

from typing import Any

import pytest

from contracts.catalogue import MODELS, REWARDS
from contracts.errors import InvalidRequestError
from contracts.resolution import accept
from contracts.search import STRATEGY_PARAMS
from models import registry
from models.rewards.protocol import Facts
from sampling.sampler import Sampler
from sampling.strategies import STRATEGIES, make_strategy

SEARCHES = [
    {"strategy": "base"},
    {"strategy": "best_of_n"},
    {"strategy": "best_of_n", "steps": 3},
    {"strategy": "rbf"},
    {"strategy": "rbf", "mode": "upstream"},
    {"strategy": "rbf", "chains": 5, "initial_noises": 3, "width": 4, "accept": "best", "start": "best"},
    {"strategy": "rbf", "chains": 5, "initial_noises": 3, "mode": "upstream"},
    {"strategy": "rbf", "finish_steps": 0},
    {"strategy": "rbf", "finish_steps": 7, "chains": 1, "initial_noises": 1},
]


REFUSED = [
    {"mode": "upstream", "width": 2},
    {"start": "top", "chains": 3, "initial_noises": 2},
    {"chains": 0},
    {"initial_noises": 0},
    {"width": 0},
    {"finish_steps": -1},
    {"mode": "other"},
    {"accept": "other"},
    {"start": "other"},
]


@pytest.mark.parametrize("parameters", REFUSED, ids=str)
def test_what_rbf_refuses_is_refused_at_submission(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\d|one of"):
        make_strategy("rbf", parameters)
    with pytest.raises(InvalidRequestError, match="/search/"):
        accept({"prompt": "x", "search": {"strategy": "rbf", **parameters}})


def test_the_defaults_are_those_of_the_strategy() -> None:
    parameters = accept({"prompt": "x"}).search.model_dump(exclude={"strategy"})
    assert make_strategy("rbf", parameters) == make_strategy("rbf")


@pytest.mark.parametrize("search", SEARCHES, ids=str)
@pytest.mark.parametrize("steps", [2, 4, 10])
def test_the_least_nfe_is_that_of_the_strategy(search: dict[str, object], steps: int) -> None:
    resolved = accept({"prompt": "x", "budget": {"nfe": 5000}, "search": search, "sampler": {"steps": steps}})
    parameters = resolved.search.model_dump(exclude={"strategy"})
    strategy = make_strategy(resolved.search.strategy, parameters)
    sampler = Sampler(**resolved.sampler.model_dump())
    assert resolved.search.minimum_nfe(resolved.sampler) == strategy.minimum_nfe(sampler)


def test_the_names_are_those_of_the_registries() -> None:
    assert set(STRATEGY_PARAMS) == set(STRATEGIES)
    assert set(MODELS) == set(registry.MODELS)
    assert set(REWARDS) == set(registry.REWARDS)


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_the_facts_are_those_of_the_reward(name: str) -> None:
    facts: Facts = registry.imported(registry.REWARDS[name]).facts
    stated = REWARDS[name]
    assert (stated.minimum, stated.maximum) == (facts.minimum, facts.maximum)
    assert stated.differentiable == facts.differentiable
