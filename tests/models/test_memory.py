"""Where weights are read to, what comes to the device to encode, and what is said where there is no room."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.modular_pipelines.modular_pipeline import ModularPipeline

from models.backend import ModelLoadError
from models.modular import KEPT_PROMPTS, ModularBackend, options_of
from models.offload import group_of, offload_groups, offload_models, visiting

GPU = torch.device("cuda:1")
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 18.00 MiB.\nSee documentation")


@pytest.mark.parametrize(
    ("name", "quantisation", "offload", "told"),
    [
        ("transformer", "none", "none", {"device_map": {"": GPU}}),
        ("text_encoder_2", "fp8", "none", {"device_map": {"": GPU}}),
        ("vae", "none", "group", {"device_map": {"": GPU}}),
        ("transformer", "none", "text_encoders", {"device_map": {"": GPU}}),
        ("text_encoder", "none", "text_encoders", {"device_map": {"": torch.device("cpu")}}),
        ("transformer", "none", "model", {"device_map": {"": torch.device("cpu")}}),
        ("transformer", "fp8", "none", {}),
    ],
)
def test_weights_are_read_straight_to_where_they_will_lie(
    name: str, quantisation: str, offload: str, told: dict[str, Any]
) -> None:
    given = options_of(name, dtype=torch.bfloat16, device=GPU, quantisation=quantisation, offload=offload)
    assert given == {"dtype": torch.bfloat16, **told}


def load(folder: Path, offload: str = "none") -> ModularBackend:
    return ModularBackend.load(folder, device="cpu", dtype=torch.float32, offload=offload)


def test_text_encoders_come_to_encode_a_prompt_and_only_then(
    tiny_flux: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, there = load(tiny_flux, offload="text_encoders"), list[int]()

    def counted(networks: Sequence[torch.nn.Module], device: torch.device) -> AbstractContextManager[None]:
        there.append(len(networks))
        return visiting(networks, device)

    monkeypatch.setattr("models.modular.visiting", counted)
    plain = load(tiny_flux).prepare("a red circle", 32, 32)
    session = backend.prepare("a red circle", 32, 32)
    x, t = torch.randn(2, *session.latent_shape), torch.tensor([0.9, 0.3])
    assert torch.equal(session.velocity(x, t), plain.velocity(x, t))
    assert torch.equal(session.decode(x), plain.decode(x))
    assert there == [0, 2]
    backend.prepare("a red circle", 32, 32)
    assert there == [0, 2], "what is known needs no encoder"


@pytest.mark.parametrize("fails", [False, True])
def test_who_visits_a_device_leaves_its_weights_at_home(*, fails: bool) -> None:
    network = torch.nn.BatchNorm1d(3)
    tensors = [*network.parameters(), *network.buffers()]
    homes = [tensor.data_ptr() for tensor in tensors]
    elsewhere: Any = torch.float64  # there is one device here; a type moves weights to another place, too

    def visit() -> Iterator[None]:
        with torch.inference_mode(), visiting([network], elsewhere):
            yield
            if fails:
                raise FULL

    visits = visit()
    next(visits)
    assert all(tensor.dtype == torch.float64 for tensor in tensors)
    assert not any(tensor.is_inference() for tensor in tensors)
    with pytest.raises(torch.OutOfMemoryError if fails else StopIteration):
        next(visits)
    assert [tensor.data_ptr() for tensor in tensors] == homes


@pytest.mark.parametrize("whole", [True, False])
def test_weights_in_8_bits_come_to_the_device_within_a_search(
    tiny_flux: Path, monkeypatch: pytest.MonkeyPatch, *, whole: bool
) -> None:
    # The one device here that is not the CPU. Nothing comes back from it, so nothing is asked to compute.
    away = torch.device("meta")
    backing = SimpleNamespace(mem_get_info=lambda _: (2**40, 2**40))
    monkeypatch.setattr(torch, "meta", backing, raising=False)
    backend = ModularBackend.load(tiny_flux, device="cpu", dtype=torch.bfloat16, quantisation="int8")
    transformer = backend.pipeline.transformer
    layer = transformer.proj_out
    layer.bias = None  # it could only go to another device, which this one is not
    if whole:
        offload_models(backend.pipeline, away)
    else:
        offload_groups(backend.pipeline, away, use_stream=False)
    assert layer.weight.device.type == "cpu"
    with torch.inference_mode():
        if whole:
            transformer._hf_hook.pre_forward(transformer)  # noqa: SLF001 -- accelerate's own
        else:
            group_of(layer).onload_()
    assert (type(layer.weight).__name__, layer.weight.device) == ("Int8Tensor", away)


def test_sessions_hold_no_text_encoders(tiny_flux: Path) -> None:
    backend = load(tiny_flux)
    session = backend.prepare("a red circle", 32, 32)
    assert session._pipeline.text_encoder is session._pipeline.text_encoder_2 is None  # noqa: SLF001 -- what is held
    assert backend.pipeline.text_encoder is not None


def test_a_prompt_is_encoded_once_while_it_is_among_the_latest(tiny_flux: Path) -> None:
    backend, calls = load(tiny_flux), list[str]()
    hook = backend.pipeline.text_encoder_2.register_forward_hook(lambda *_: calls.append("encoded"))
    first = backend.prepare("a red circle", 32, 32)
    again = backend.prepare("a red circle", 32, 32)
    assert calls == ["encoded"]
    x, t = torch.randn(3, *first.latent_shape), torch.tensor([0.9, 0.3, 0.5])
    assert torch.equal(first.velocity(x, t), again.velocity(x, t))
    assert torch.equal(first.velocity(x[:1], t[:1]), again.velocity(x[:1], t[:1]))
    for number in range(KEPT_PROMPTS):
        backend.prepare(f"circle {number}", 32, 32)
    assert len(calls) == 1 + KEPT_PROMPTS
    backend.prepare(f"circle {KEPT_PROMPTS - 1}", 32, 32)
    assert len(calls) == 1 + KEPT_PROMPTS
    other = backend.prepare("a red circle", 32, 32)
    assert len(calls) == 2 + KEPT_PROMPTS
    assert torch.equal(first.velocity(x, t), other.velocity(x, t))
    backend.prepare("a red circle", 48, 32)
    assert len(calls) == 3 + KEPT_PROMPTS
    hook.remove()


def test_weights_without_room_are_named_with_what_to_do(
    tiny_flux: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise FULL

    with monkeypatch.context() as patched:
        patched.setattr(FluxTransformer2DModel, "from_pretrained", full)
        with pytest.raises(
            ModelLoadError, match="transformer could not be loaded: the device has no room"
        ) as told:
            load(tiny_flux)
    assert "(CUDA out of memory. Tried to allocate 18.00 MiB.): set dtype = 'bfloat16'" in str(told.value)
    monkeypatch.setattr(ModularPipeline, "to", full)
    with pytest.raises(ModelLoadError, match="cannot be moved to cpu: the device has no room for it"):
        load(tiny_flux)
