"""States to tensors and JSON and back, exactly: a search that goes on from them ends bit for bit the same."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor

from sampling.errors import CheckpointError
from sampling.events import Candidate
from sampling.state import State

VERSION = 1

# What a state may be made of. A checkpoint names these, and nothing else is ever imported from one.
TYPES: dict[str, str] = {
    "Candidate": "sampling.events",
    "Decision": "sampling.events",
    "Level": "sampling.events",
    "Ledger": "sampling.ledger",
    "Prediction": "sampling.prediction",
    "Address": "sampling.state",
    "RunsState": "sampling.strategies.runs",
    "Chain": "sampling.strategies.rollover",
    "RbfState": "sampling.strategies.rbf",
    "BlocksState": "sampling.strategies.blocks",
    "Particle": "sampling.strategies.smc",
    "SmcState": "sampling.strategies.smc",
    "Solve": "sampling.strategies.generations",
    "GenerationsState": "sampling.strategies.generations",
    "ZeroOrderState": "sampling.strategies.zero_order",
}


def save(state: State) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A state as named tensors (on the CPU, none sharing memory) and a dict that JSON holds exactly.

    Images are left out; those that must be kept are the state's ``pictured``.

    Raises:
        CheckpointError: for a state that holds something not in TYPES.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[int, str] = {}
    return tensors, {"version": VERSION, "state": _encode(state, tensors, names)}


def restore(
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    device: torch.device | str = "cpu",
    pictures: Mapping[int, Tensor] | None = None,
) -> State:
    """The state that ``save`` was given, its tensors on ``device``.

    Args:
        tensors: as ``save`` returned them.
        meta: likewise.
        device: where to put them.
        pictures: images by the ``nfe`` of their candidates; the others have none.

    Raises:
        CheckpointError: for another version, an unknown type, or a tensor that is not there.
    """
    if meta.get("version") != VERSION:
        raise CheckpointError(f"a checkpoint of version {meta.get('version')}; this program reads {VERSION}")
    placed = {name: tensor.to(device) for name, tensor in tensors.items()}
    try:
        state = _decode(meta["state"], placed, pictures or {})
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"the checkpoint is not complete: {error!r}") from error
    if not isinstance(state, State):
        raise CheckpointError(f"the checkpoint holds a {type(state).__name__} and no state")
    return state


def _encode(value: object, tensors: dict[str, Tensor], names: dict[int, str]) -> object:
    # Enums first: ours are strings too.
    if isinstance(value, Enum):
        return {"type": _known(value), "value": value.value}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return {"tensor": _keep(value, tensors, names)}
    if isinstance(value, tuple):
        return [_encode(item, tensors, names) for item in cast("tuple[object, ...]", value)]
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return {"dict": {key: _encode(item, tensors, names) for key, item in items}}
    if is_dataclass(value) and not isinstance(value, type):
        kept = {f.name: getattr(value, f.name) for f in fields(value) if f.metadata.get("checkpoint", True)}
        encoded = {name: _encode(item, tensors, names) for name, item in kept.items()}
        return {"type": _known(value), "fields": encoded}
    raise CheckpointError(f"a state may not hold a {type(value).__name__}")


def _decode(value: object, tensors: Mapping[str, Tensor], pictures: Mapping[int, Tensor]) -> object:
    if isinstance(value, list):
        return tuple(_decode(item, tensors, pictures) for item in cast("list[object]", value))
    if not isinstance(value, dict):
        return value
    node = cast("dict[str, Any]", value)
    if "tensor" in node:
        return tensors[node["tensor"]]
    if "dict" in node:
        return {key: _decode(item, tensors, pictures) for key, item in node["dict"].items()}
    if node["type"] not in TYPES:
        raise CheckpointError(f"no type {node['type']!r} belongs in a checkpoint")
    kind = getattr(import_module(TYPES[node["type"]]), node["type"])
    if "value" in node:
        return kind(node["value"])
    kept: dict[str, Any] = {name: _decode(item, tensors, pictures) for name, item in node["fields"].items()}
    if kind is Candidate:
        kept["image"] = pictures.get(kept["nfe"])
    return kind(**kept)


def _keep(tensor: Tensor, tensors: dict[str, Tensor], names: dict[int, str]) -> str:
    # A candidate may be in the state several times; its tensors are saved once.
    if id(tensor) not in names:
        names[id(tensor)] = f"t{len(names)}"
        tensors[names[id(tensor)]] = tensor.detach().to("cpu", copy=True).contiguous()
    return names[id(tensor)]


def _known(value: object) -> str:
    name = type(value).__name__
    if TYPES.get(name) != type(value).__module__:
        raise CheckpointError(f"a state may not hold a {type(value).__name__}")
    return name
