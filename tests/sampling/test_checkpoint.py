"""A search that goes on from a checkpoint ends bit for bit as one that was never stopped."""

import json
from importlib import import_module
from typing import Any

import pytest
import torch

from sampling.checkpoint import TYPES, restore, save
from sampling.errors import CheckpointError
from sampling.ledger import Ledger
from sampling.search import search
from sampling.state import State
from sampling.strategies import make_strategy
from tests.sampling.worlds import facts, problem, rounds

CASES: list[tuple[str, dict[str, Any]]] = [
    ("base", {}),
    ("base", {"kernel": "euler_maruyama", "interpolant": "vp"}),
    ("best_of_n", {"batch": 3}),
    ("rbf", {"chains": 2, "initial_noises": 9}),
    ("rbf", {"chains": 2, "initial_noises": 9, "mode": "upstream"}),
    ("rbf", {"initial_noises": 9, "width": 3, "accept": "best", "start": "top", "chains": 3}),
]


def through_json(state: State) -> State:
    tensors, meta = save(state)
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    return restore(copies, json.loads(json.dumps(meta, allow_nan=False)))


@pytest.mark.parametrize(("name", "parameters"), CASES, ids=str)
def test_a_search_goes_on_bit_for_bit_after_any_round(name: str, parameters: dict[str, Any]) -> None:
    made = problem(60, seed=5, max_batch=4, keep=2)
    whole = rounds(name, parameters, made)
    expected = [[facts(c) for c in one.candidates] for one in whole]
    for after in range(len(whole)):
        state = through_json(whole[after].state)
        rest = list(search(made, make_strategy(name, parameters), state))
        assert [[facts(c) for c in one.candidates] for one in rest] == expected[after + 1 :]
        end = rest[-1].state if rest else state
        last = whole[-1].state
        assert [facts(c) for c in end.best] == [facts(c) for c in last.best]
        assert (end.ledger, end.levels) == (last.ledger, last.levels)
        assert (end.first_reward, end.best_reward) == (last.first_reward, last.best_reward)


@pytest.mark.parametrize(("name", "parameters"), CASES, ids=str)
def test_with_the_pictures_that_it_needs_its_result_has_pictures(
    name: str, parameters: dict[str, Any]
) -> None:
    made = problem(60, seed=5, keep=2)
    whole = rounds(name, parameters, made)
    expected = [c.image for c in whole[-1].state.best if c.image is not None]
    assert len(expected) == len(whole[-1].state.best)
    for one in whole:
        tensors, meta = save(one.state)
        pictures = {c.nfe: c.image for c in one.state.pictured if c.image is not None}
        state = restore(tensors, meta, pictures=pictures)
        rest = list(search(made, make_strategy(name, parameters), state))
        end = rest[-1].state if rest else state
        assert [c.image.tolist() for c in end.best if c.image is not None] == [i.tolist() for i in expected]


def test_tensors_share_no_memory_and_pictures_stay_behind() -> None:
    state = rounds("rbf", {}, problem(60))[-1].state
    tensors, _ = save(state)
    assert len({tensor.data_ptr() for tensor in tensors.values()}) == len(tensors)
    assert all(t.is_contiguous() and t.untyped_storage().nbytes() == t.nbytes for t in tensors.values())
    assert all(tensor.shape == (2,) for tensor in tensors.values())
    restored = through_json(state)
    assert state.best[0].image is not None
    assert restored.best[0].image is None


def test_what_a_crash_costs_is_noted_apart() -> None:
    state = rounds("rbf", {}, problem(60))[5].state
    restored = through_json(state)
    assert restored.ledger.redone(3) == state.ledger.redone(3)
    assert restored.ledger.redone(3).nfe_spent == state.ledger.nfe_spent


@pytest.mark.parametrize(
    ("meta", "complaint"),
    [
        ({}, "version None"),
        ({"version": 99, "state": {}}, "version 99"),
        ({"version": 1}, "not complete"),
        ({"version": 1, "state": {"type": "Popen", "fields": {"args": "true"}}}, "no type 'Popen'"),
        ({"version": 1, "state": {"type": "State", "fields": {}}}, "no type 'State'"),
        ({"version": 1, "state": {"type": "RbfState", "fields": {"x": {"tensor": "t9"}}}}, "not complete"),
        ({"version": 1, "state": {"type": "Ledger", "fields": {"nfe_budget": 3}}}, "holds a Ledger"),
    ],
    ids=str,
)
def test_what_is_no_checkpoint_is_refused(meta: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        restore({}, meta)


def test_a_state_of_an_unknown_kind_is_not_saved() -> None:
    with pytest.raises(CheckpointError, match="may not hold a State"):
        save(State(ledger=Ledger(1)))


def test_a_restored_state_lives_where_it_is_told() -> None:
    tensors, meta = save(rounds("rbf", {}, problem(60))[-1].state)
    assert restore(tensors, meta, device="meta").best[0].x.device == torch.device("meta")


def test_every_type_that_is_named_exists() -> None:
    assert all(hasattr(import_module(module), name) for name, module in TYPES.items())
