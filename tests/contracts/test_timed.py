"""Budgets of time alone: what they are laid out for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import InvalidRequestError
from contracts.extension import extension_of, parse_extension
from contracts.jobs import Checkpoint, Record
from contracts.requests import Budget, Caps, ResolvedRequest
from contracts.resolution import accept
from contracts.search import STRATEGY_PARAMS

seconds = st.floats(1e-6, 1e300)
rates = st.none() | st.floats(1e-6, 1e300)


def submitted(budget: dict[str, Any], rate: float | None, **body: object) -> ResolvedRequest:
    return accept({"prompt": "x", "budget": budget, **body}, caps=Caps(max_nfe=5000), nfe_per_second=rate)


def nfe(budget: dict[str, Any], rate: float | None, **body: object) -> int:
    return submitted(budget, rate, **body).budget.nfe


def test_it_is_laid_out_for_nine_tenths_of_what_its_seconds_pay_for() -> None:
    resolved = submitted({"seconds": 60}, 20.0)
    assert resolved.budget == Budget(nfe=1080, seconds=60)
    assert nfe({"seconds": 10, "patience": 50, "target_reward": 0.9}, 20.0) == 180


@pytest.mark.parametrize(
    "budget",
    [{}, {"target_reward": 0.9}, {"patience": 50}, {"target_reward": 0.9, "patience": 50}],
    ids=str,
)
def test_without_seconds_no_pace_counts(budget: dict[str, Any]) -> None:
    assert nfe(budget, 20.0) == nfe(budget, None) == Budget().nfe == 200


def test_nfe_that_are_named_are_taken() -> None:
    assert nfe({"seconds": 60, "nfe": 200}, 20.0) == 200
    assert nfe({"seconds": 60, "nfe": 5000}, 20.0) == 5000


def test_where_no_pace_is_known_it_is_as_without_seconds() -> None:
    assert nfe({"seconds": 60}, None) == 200
    assert nfe({"seconds": 60}, None, search={"strategy": "sop", "steps": 40}) == 640


def test_the_servers_cap_holds_and_leaves_room_for_a_baseline() -> None:
    assert nfe({"seconds": 3600}, 20.0) == 5000
    assert nfe({"seconds": 3600}, 20.0, baseline=True) == 2500


@pytest.mark.parametrize("strategy", sorted(STRATEGY_PARAMS))
@given(seconds=seconds, rate=rates)
def test_every_search_can_be_given_any_time(strategy: str, seconds: float, rate: float | None) -> None:
    resolved = submitted({"seconds": seconds}, rate, search={"strategy": strategy})
    assert resolved.search.minimum_nfe(resolved.sampler) <= resolved.budget.nfe <= 5000
    # What is stored means the same whatever the pace is later.
    stored = resolved.model_dump(mode="json", exclude={"image"})
    assert accept(stored, nfe_per_second=1.0) == resolved


def test_too_little_time_is_laid_out_for_the_least_search() -> None:
    least = submitted({"seconds": 1e-3}, 1.0)
    assert least.budget.nfe == least.search.minimum_nfe(least.sampler) == 25
    # Where the least of few NFE is more than few, the defaults are those of many.
    many = submitted({"seconds": 1e-3}, 1.0, sampler={"steps": 140})
    assert many.budget.nfe == many.search.minimum_nfe(many.sampler)
    assert many.search.model_dump()["chains"] == 2


def test_a_plan_that_is_named_is_paid_for() -> None:
    assert nfe({"seconds": 1}, 20.0, search={"strategy": "rbf", "plan_nfe": 300}) == 300


def test_what_no_time_can_pay_for_is_refused_as_ever() -> None:
    with pytest.raises(InvalidRequestError, match="needs at least 6400 NFE; the budget is 5000"):
        submitted({"seconds": 60}, 20.0, search={"strategy": "sop", "steps": 100, "paths": 8})


@pytest.mark.parametrize(
    ("budget", "rate", "laid_out"),
    [
        ({"seconds": 10}, 20.0, 180),
        ({"seconds": 1e-3}, 20.0, 150),  # what its parent's plan has left
        ({"seconds": 1e9}, 20.0, 5000),
        ({"seconds": 10}, None, 200),
        ({"seconds": 10, "nfe": 160}, 20.0, 160),
        ({}, 20.0, 200),
    ],
    ids=str,
)
def test_an_extension_of_time_alone(budget: dict[str, Any], rate: float | None, laid_out: int) -> None:
    request = accept({"prompt": "x", "budget": {"nfe": 200}})
    parent = Record.new(request).model_copy(update={"checkpoint": Checkpoint(attempt=1, nfe=50)})
    asked = parse_extension({"budget": budget})
    extension = extension_of(parent, asked, Caps(max_nfe=5000), rate)
    assert extension.budget == asked.budget.model_copy(update={"nfe": laid_out})
