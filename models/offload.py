"""Where a pipeline's networks lie: all on the device, or in the CPU's memory until they compute.

The VAE always stays on the device: it is small, every candidate passes through it, and under reward guidance
gradients pass through it too, which weights that leave would break.
"""

import torch
from diffusers.hooks import apply_group_offloading
from diffusers.modular_pipelines.components_manager import ComponentsManager
from diffusers.modular_pipelines.modular_pipeline import ModularPipeline

from models.backend import ModelLoadError

OFFLOADS = ("none", "model", "group")


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
        offload: `model` moves whole networks to the device when they compute, and those out that leave no
            room for them; `group` moves their layers, one after the other, while the one before computes.
    """
    if offload == "none" or device.type == "cpu":
        pipeline.to(device)
        return
    pipeline.vae.to(device)
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


def offload_groups(pipeline: ModularPipeline, device: torch.device, *, use_stream: bool) -> None:
    """Let layers come to the device one by one; with a stream, while the one before computes."""
    for network in movable(pipeline).values():
        apply_group_offloading(network, device, offload_type="leaf_level", use_stream=use_stream)


def movable(pipeline: ModularPipeline) -> dict[str, torch.nn.Module]:
    """Every network but the VAE, by name."""
    return {
        name: part
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module) and name != "vae"
    }
