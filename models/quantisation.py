"""Fewer bits for the transformer's weights, by diffusers' own means; its layers compute in the model's type.

With `fp8` each layer casts its weights as it computes. `int8` and `nf4` are packages of their own, imported
when first asked for.
"""

from importlib.util import find_spec
from typing import Any

import torch
from diffusers import BitsAndBytesConfig, ModelMixin, TorchAoConfig

from models.backend import ModelLoadError

QUANTISATIONS = ("none", "fp8", "int8", "nf4")
PACKAGES = {"int8": "torchao", "nf4": "bitsandbytes"}


def refuse_quantisation(name: str, dtype: torch.dtype, device: torch.device) -> None:
    """Refuse a quantisation that there is not, or that cannot be had here.

    Raises:
        ModelLoadError: with what to do.
    """
    if name not in QUANTISATIONS:
        raise ModelLoadError(f"there is no quantisation '{name}'; there are {', '.join(QUANTISATIONS)}")
    package = PACKAGES.get(name)
    if package and find_spec(package) is None:
        raise ModelLoadError(
            f"quantisation '{name}' needs {package}, which is not installed: pip install 'rollover[{name}]'"
        )
    if name == "int8" and dtype != torch.bfloat16:
        raise ModelLoadError("quantisation 'int8' needs dtype 'bfloat16', the type that torchao computes in")
    if name == "nf4" and device.type == "cpu":
        raise ModelLoadError("quantisation 'nf4' needs a GPU, and the device is the CPU: take 'int8' there")


def loading_options(name: str, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` is told, so that weights are quantised one by one as they are read."""
    if name == "int8":
        from torchao.quantization import Int8WeightOnlyConfig  # noqa: PLC0415 -- not installed everywhere

        return {"quantization_config": TorchAoConfig(Int8WeightOnlyConfig())}
    if name == "nf4":
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
        return {"quantization_config": config, "device_map": {"": device}}
    return {}


def cast_layers(transformer: ModelMixin, name: str, dtype: torch.dtype) -> None:
    """Keep weights in 8 bits where `fp8` was asked for."""
    if name == "fp8":
        transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)
