"""Where a pipeline's networks lie: all on the device, or in the CPU's memory until they compute.

The VAE always stays on the device: it is small, every candidate passes through it, and under reward guidance
gradients pass through it too, which weights that leave would break.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import chain
from typing import Any

import torch
from diffusers.hooks import apply_group_offloading
from diffusers.modular_pipelines.components_manager import ComponentsManager
from diffusers.modular_pipelines.modular_pipeline import ModularPipeline

from models.backend import ModelLoadError
from models.families import DENOISERS

OFFLOADS = ("none", "text_encoders", "model", "group")
CPU = torch.device("cpu")


def refuse_offload(name: str, quantisation: str) -> None:
    """Refuse an offload that there is not, or that does not go with the quantisation.

    Raises:
        ModelLoadError: with what to do.
    """
    if name not in OFFLOADS:
        raise ModelLoadError(f"there is no offload '{name}'; there are {', '.join(OFFLOADS)}")
    if name == "group" and quantisation == "nf4":
        raise ModelLoadError("4-bit weights cannot be moved in groups: take offload 'model', or 'int8'")


def place(pipeline: ModularPipeline, device: torch.device, offload: str) -> None:
    """Put the networks where they shall lie. On the CPU there is nothing to offload to.

    Args:
        pipeline: loaded.
        device: where it computes.
        offload: `text_encoders` leaves those in the CPU's memory, for `visiting`; `model` moves whole
            networks to the device when they compute, and those out that leave no room for them; `group`
            moves their layers, one after the other, while the one before computes.
    """
    if offload == "none" or device.type == "cpu":
        pipeline.to(device)
        return
    pipeline.vae.to(device)
    if offload == "text_encoders":
        denoiser(pipeline).to(device)
        return
    if offload == "model":
        offload_models(pipeline, device)
    else:
        offload_groups(pipeline, device, use_stream=True)


def offload_models(pipeline: ModularPipeline, device: torch.device) -> None:
    """Let networks come to the device whole, and leave it where another needs their room."""
    manager = ComponentsManager()
    for name, network in movable(pipeline).items():
        manager.add(name, network)
    manager.enable_auto_cpu_offload(device)
    for network in movable(pipeline).values():
        hook: Any = network._hf_hook  # noqa: SLF001 -- accelerate has no other name for it
        hook.pre_forward = outside_inference(hook.pre_forward)


def offload_groups(pipeline: ModularPipeline, device: torch.device, *, use_stream: bool) -> None:
    """Let layers come to the device one by one; with a stream, while the one before computes."""
    for network in movable(pipeline).values():
        apply_group_offloading(network, device, offload_type="leaf_level", use_stream=use_stream)
        for group in filter(None, map(group_of, network.modules())):
            group.onload_ = outside_inference(group.onload_)
            group.offload_ = outside_inference(group.offload_)


def group_of(layer: torch.nn.Module) -> Any:  # noqa: ANN401 -- a class that diffusers keeps to itself
    """The group that a layer is moved with; None: it has no weights."""
    hooks = getattr(layer, "_diffusers_hook", None)
    hook = hooks and hooks.get_hook("group_offloading")
    return hook and hook.group


def outside_inference(move: Callable[..., Any]) -> Any:  # noqa: ANN401 -- torch's types know no plain function here
    """The same move of weights, made outside of the inference mode that a search computes in.

    In that mode torchao's weights cannot be moved, and others become tensors of it.
    """

    @torch.compiler.disable
    @wraps(move)
    def moved(*args: object, **kwargs: object) -> object:
        with torch.inference_mode(mode=False):
            return move(*args, **kwargs)

    return moved


def read_to(name: str, device: torch.device, offload: str) -> torch.device:
    """Where a network's weights are read to: straight to where they will lie.

    Args:
        name: of the component.
        device: where the pipeline computes.
        offload: see `place`.
    """
    stays = name == "vae" or offload == "none" or (offload == "text_encoders" and not encodes_text(name))
    return device if stays else CPU


def encodes_text(name: str) -> bool:
    """Whether a component is a text encoder."""
    return name.startswith("text_encoder")


def denoiser(pipeline: ModularPipeline) -> Any:  # noqa: ANN401 -- diffusers' type of its `to` fits no call
    """The network that a search asks."""
    [name] = DENOISERS & set(pipeline.component_names)
    return getattr(pipeline, name)


def text_encoders(pipeline: ModularPipeline) -> dict[str, torch.nn.Module]:
    """The text encoders that a pipeline has, by name."""
    return {name: part for name, part in movable(pipeline).items() if encodes_text(name)}


@contextmanager
def visiting(networks: Iterable[torch.nn.Module], device: torch.device) -> Iterator[None]:
    """Have networks on the device for a while. Weights stay where they lie: copies go, and are dropped."""
    tensors = [tensor for each in networks for tensor in chain(each.parameters(), each.buffers())]
    homes = [tensor.data for tensor in tensors]
    try:
        with torch.inference_mode(mode=False):  # weights must not become tensors of that mode
            for tensor, home in zip(tensors, homes, strict=True):
                tensor.data = home.to(device)
        yield
    finally:
        for tensor, home in zip(tensors, homes, strict=True):
            tensor.data = home


def movable(pipeline: ModularPipeline) -> dict[str, torch.nn.Module]:
    """Every network but the VAE, by name."""
    return {
        name: part
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module) and name != "vae"
    }
