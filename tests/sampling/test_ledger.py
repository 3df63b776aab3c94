import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampling.errors import BudgetExceededError
from sampling.ledger import Ledger


@given(st.integers(1, 100), st.lists(st.integers(1, 20)), st.integers(1, 3))
def test_the_budget_is_never_passed(budget: int, charges: list[int], forwards: int) -> None:
    ledger = Ledger(budget)
    for charge in charges:
        before = ledger
        if charge > before.nfe_left:
            with pytest.raises(BudgetExceededError) as refusal:
                ledger.charge(charge, forwards)
            assert (refusal.value.needed, refusal.value.left) == (charge, before.nfe_left)
        else:
            ledger = ledger.charge(charge, forwards)
            assert ledger.nfe_spent == before.nfe_spent + charge
    assert 0 <= ledger.nfe_spent <= budget
    assert ledger.nfe_left == budget - ledger.nfe_spent
    assert ledger.model_forwards == forwards * ledger.nfe_spent


def test_what_is_noted_costs_nothing() -> None:
    ledger = Ledger(10).charge(4).scored(3, decodes=2).unused(1).redone(5)
    assert (ledger.nfe_spent, ledger.nfe_unused, ledger.nfe_redone) == (4, 1, 5)
    assert (ledger.reward_calls, ledger.decodes) == (3, 2)
