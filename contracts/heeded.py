"""Which settings of the sampler a kernel heeds. Any other is refused, and shown as what stands for it."""

from collections.abc import Mapping
from types import MappingProxyType

from contracts.errors import FieldProblem
from contracts.requests import GenerationRequest
from contracts.search import Kernel, SamplerRequest, default_scale

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


def unheeded(kernel: Kernel) -> Mapping[str, str | float]:
    """Return the settings that a search with this kernel does not heed, and what stands for each."""
    return {name: value for name, value in UNREAD.items() if READERS[name] != kernel}


def heed_problems(request: GenerationRequest, kernel: Kernel) -> list[FieldProblem]:
    """Say of every setting that was named, and that the search would not heed, what to do.

    Args:
        request: as posted.
        kernel: that the search steps with, perhaps a default.
    """
    return [
        FieldProblem(
            pointer=f"/sampler/{name}",
            detail=f"Must be {only!r} with kernel '{kernel}', which does not read it. "
            f"Leave it out, or name kernel '{READERS[name]}'.",
            allowed=[str(only)],
        )
        for name, only in unheeded(kernel).items()
        if name in request.sampler.model_fields_set and getattr(request.sampler, name) not in (None, only)
    ]
