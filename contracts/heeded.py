"""Which settings of the sampler a search heeds. Any other is refused, and shown as what stands for it."""

from collections.abc import Mapping
from types import MappingProxyType

from contracts.errors import FieldProblem
from contracts.requests import GenerationRequest
from contracts.search import STRATEGY_PARAMS, Kernel, SamplerRequest, SearchParams, default_scale

WALK: Mapping[str, str] = MappingProxyType({"interpolant": "linear", "kernel": "ode", "grid": "linear"})
"""The model's own way, which some strategies go and no other."""

READERS: Mapping[str, Kernel] = MappingProxyType(
    {"diffusion": "euler_maruyama", "diffusion_scale": "euler_maruyama", "eta": "ddim"}
)
"""Settings that one kernel reads, and which; the others do not look at them."""

UNREAD: Mapping[str, str | float] = MappingProxyType(
    {
        "diffusion": SamplerRequest().diffusion,
        "diffusion_scale": default_scale(SamplerRequest().diffusion),
        "eta": SamplerRequest().eta,
    }
)
"""What stands for them where the kernel is another."""


def heeds(strategy: str) -> tuple[str, ...]:
    """Return the settings that a strategy heeds, with a kernel that reads them."""
    ignored = {*WALK, *READERS} if STRATEGY_PARAMS[strategy].own_way else set[str]()
    return tuple(name for name in SamplerRequest.model_fields if name not in ignored)


def unheeded(search: SearchParams, kernel: Kernel) -> Mapping[str, str | float]:
    """Return the settings that a search with this kernel does not heed, and what stands for each."""
    if search.own_way:
        return {**WALK, **UNREAD}
    return {name: value for name, value in UNREAD.items() if READERS[name] != kernel}


def heed_problems(request: GenerationRequest, kernel: Kernel) -> list[FieldProblem]:
    """Say of every setting that was named, and that the search would not heed, what to do.

    Args:
        request: as posted.
        kernel: that the search steps with, perhaps the model's default.
    """
    return [
        FieldProblem(
            pointer=f"/sampler/{name}",
            detail=f"Must be {only!r} {reason(request.search, name, kernel)}",
            allowed=[str(only)],
        )
        for name, only in unheeded(request.search, kernel).items()
        if name in request.sampler.model_fields_set and getattr(request.sampler, name) not in (None, only)
    ]


def reason(search: SearchParams, name: str, kernel: Kernel) -> str:
    """Say why a search does not heed a setting, and what to do."""
    if not search.own_way:
        return (
            f"with kernel '{kernel}', which does not read it. Leave it out, or name kernel '{READERS[name]}'."
        )
    heeded = " and ".join(f"`{each}`" for each in heeds(search.strategy))
    others = ", ".join(f"'{each}'" for each in STRATEGY_PARAMS if name in heeds(each))
    return (
        f"for strategy '{search.strategy}', which goes the model's own way and heeds only {heeded} of the "
        f"sampler. Leave it out, or search with one of {others}."
    )
