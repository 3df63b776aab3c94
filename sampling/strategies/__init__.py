"""The strategies by name: a closed, lazy table."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from sampling.sampler import look_up
from sampling.strategy import Strategy

# name -> module and class of the frozen dataclass that holds its parameters
STRATEGIES: dict[str, str] = {
    "base": "sampling.strategies.base:Base",
    "best_of_n": "sampling.strategies.best_of_n:BestOfN",
    "rbf": "sampling.strategies.rbf:Rbf",
    "zero_order": "sampling.strategies.zero_order:ZeroOrder",
    "sop": "sampling.strategies.sop:Sop",
    "smc": "sampling.strategies.smc:Smc",
    "code": "sampling.strategies.code:Code",
    "svdd": "sampling.strategies.svdd:Svdd",
    "evolution": "sampling.strategies.evolution:Evolution",
}


def make_strategy(name: str, parameters: Mapping[str, object] | None = None) -> Strategy[Any]:
    """The strategy called ``name`` with these parameters, its defaults for the rest.

    Raises:
        UnknownNameError: for a name that is not in the table; it tells the nearest that is.
        ValueError: for a parameter out of range.
        TypeError: for a parameter that the strategy does not have.
    """
    module, _, attribute = look_up("strategy", name, STRATEGIES).partition(":")
    strategy = getattr(import_module(module), attribute)
    return cast("Strategy[Any]", strategy(**(parameters or {})))
