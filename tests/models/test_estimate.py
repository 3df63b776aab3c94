"""Estimates of memory, against what torch allocates for networks of full size that hold no numbers."""

import weakref
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.estimate import Sizes, decode, loaded, needed, resident, width

SIDE = 1024
PARAMETERS = {"transformer": 12e9, "text_encoder": 5e9, "vae": 0.1e9}


class Peak(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self.alive: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.note(tensor.untyped_storage())
        return out

    def note(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.alive:  # noqa: SLF001 -- the storage's identity
            self.alive[storage._cdata] = storage.nbytes()  # noqa: SLF001
            weakref.finalize(storage, self.alive.pop, storage._cdata)  # noqa: SLF001
            self.peak = max(self.peak, sum(self.alive.values()))


def peak(make: Callable[[], Any], call: Callable[[Any], object]) -> tuple[Any, int]:
    """A network in bfloat16 that holds no numbers, and the bytes that a call takes beside its weights."""
    with FakeTensorMode(), torch.inference_mode():
        torch.set_default_dtype(torch.bfloat16)
        try:
            network = make().eval()
            with Peak() as counted:
                call(network)
        finally:
            torch.set_default_dtype(torch.float32)
    return network, counted.peak


def flux_vae() -> Any:  # noqa: ANN401
    config: dict[str, Any] = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "latent_channels": 16,
        "layers_per_block": 2,
    }
    return diffusers.AutoencoderKL(**config)


@pytest.mark.parametrize(
    ("make", "channels"),
    [
        (flux_vae, (16,)),
        (diffusers.AutoencoderKLFlux2, (32,)),
        (diffusers.AutoencoderKLQwenImage, (16, 1)),
    ],
)
def test_decoding_takes_what_was_estimated(make: Callable[[], Any], channels: tuple[int, ...]) -> None:
    vae, counted = peak(make, lambda vae: vae.decode(torch.empty(1, *channels, SIDE // 8, SIDE // 8)))
    estimated = Sizes(decode=decode(vae.config) or 0).picture(SIDE, SIDE, "bfloat16", tiled=False)
    assert estimated == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (
            diffusers.FluxTransformer2DModel,
            {
                "encoder_hidden_states": (1, 512, 4096),
                "pooled_projections": (1, 768),
                "img_ids": (4096, 3),
                "txt_ids": (512, 3),
            },
        ),
        (
            diffusers.Flux2Transformer2DModel,
            {
                "encoder_hidden_states": (1, 512, 15360),
                "guidance": (1,),
                "img_ids": (4096, 4),
                "txt_ids": (512, 4),
            },
        ),
    ],
)
def test_a_forward_pass_takes_no_more_than_was_estimated(
    make: Callable[[], Any], given: dict[str, tuple[int, ...]]
) -> None:
    def call(network: Any) -> object:  # noqa: ANN401
        tensors = {name: torch.empty(shape) for name, shape in given.items()}
        latents = torch.empty(1, 4096, network.config.in_channels)
        return network(hidden_states=latents, timestep=torch.empty(1), **tensors)

    transformer, counted = peak(make, call)
    estimated = Sizes(width=width(transformer.config) or 0, decode=0).picture(
        SIDE, SIDE, "bfloat16", tiled=False
    )
    assert counted < estimated < 1.6 * counted


def test_configurations_that_are_not_there_are_as_in_the_usual_model(tmp_path: Any) -> None:  # noqa: ANN401
    assert Sizes.of(tmp_path) == Sizes()
    assert (width({"dim": 3840}), width({"hidden_size": 64}), width({})) == (3840, 64, None)


def test_tiles_bound_what_decoding_takes() -> None:
    sizes = Sizes(tile=256)
    whole, tiled = (sizes.picture(2048, 2048, "float32", tiled=tiled) for tiled in (False, True))
    assert tiled < whole
    assert sizes.picture(256, 256, "float32", tiled=True) == sizes.picture(256, 256, "float32", tiled=False)


@pytest.mark.parametrize(
    ("dtype", "quantisation", "size"),
    [
        ("float32", "none", 48e9),
        ("bfloat16", "none", 24e9),
        ("bfloat16", "fp8", 12e9),
        ("bfloat16", "int8", 12e9),
        ("bfloat16", "nf4", 6.75e9),
    ],
)
def test_only_the_transformer_is_quantised(dtype: str, quantisation: str, size: float) -> None:
    networks = loaded(PARAMETERS, dtype, quantisation)
    assert networks["transformer"] == size
    assert networks["text_encoder"] == 5e9 * (4 if dtype == "float32" else 2)


def test_offload_leaves_what_computes_and_the_vae() -> None:
    networks = loaded(PARAMETERS, "bfloat16", "none")
    assert resident(networks, "none") == 34.2e9
    assert resident(networks, "text_encoders") == 24.2e9
    assert needed(networks, "text_encoders", rewards=10**9, picture=10**9) == 35.2e9
    assert needed(networks, "text_encoders", picture=20 * 10**9) == 44.2e9
    assert needed(networks, "model", picture=10**9) == 25.2e9
    assert resident(networks, "model") == 24.2e9
    assert resident(networks, "group") == 2.6e9
