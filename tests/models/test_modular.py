"""The modular backend against the family's own pipelines."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from models import quantisation
from models.backend import ModelLoadError
from models.modular import ModularBackend, ModularSession, lay_out_for_speed
from models.offload import refuse_offload
from models.quantisation import refuse_quantisation
from models.registry import ModelSource, load_model

PROMPT = "two red circle"
STEPS = 4
SHAPES = Path("models/shapes/weights")
UNSEEN = 0.01 / 255  # a hundredth of an 8-bit step
SIZES = {"tiny": (48, 32), "shapes": (64, 64)}

# The bundled model is tested too wherever it is there; its own tests demand it.
repositories = pytest.mark.parametrize(
    "repository",
    ["tiny", "shapes"] if (SHAPES / "model_index.json").is_file() else ["tiny"],
    indirect=True,
)


@pytest.fixture(scope="module")
def repository(request: pytest.FixtureRequest) -> str:
    return getattr(request, "param", "tiny")


@pytest.fixture(scope="module")
def folder(repository: str, tiny_flux: Path) -> Path:
    return tiny_flux if repository == "tiny" else SHAPES


@pytest.fixture(scope="module")
def backend(folder: Path) -> ModularBackend:
    loaded = load_model(ModelSource(folder=folder, inputs={"max_sequence_length": 16}))
    assert isinstance(loaded, ModularBackend)
    return loaded


@pytest.fixture(scope="module")
def session(backend: ModularBackend, repository: str) -> ModularSession:
    return backend.prepare(PROMPT, *SIZES[repository])


@pytest.fixture(scope="module")
def flux(folder: Path) -> FluxPipeline:
    pipeline = FluxPipeline.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def noise(batch: int, session: ModularSession) -> Tensor:
    return torch.randn(batch, *session.latent_shape, generator=torch.Generator().manual_seed(batch))


def euler(session: ModularSession, x: Tensor, sigmas: Tensor) -> Tensor:
    for sigma, sigma_next in pairwise(sigmas):
        x = x + (sigma_next - sigma) * session.velocity(x, sigma.expand(len(x)))
    return x


def arguments(repository: str, latents: Tensor, output_type: str) -> dict[str, Any]:
    width, height = SIZES[repository]
    return {
        "prompt": PROMPT,
        "width": width,
        "height": height,
        "num_inference_steps": STEPS,
        "num_images_per_prompt": len(latents),
        "max_sequence_length": 16,
        "latents": latents,
        "output_type": output_type,
    }


def reference(flux: FluxPipeline, given: dict[str, Any]) -> Tensor:
    run = cast("Callable[..., Any]", flux)  # its own annotations are too narrow
    return run(**given).images


@repositories
@pytest.mark.parametrize("batch", [1, 3])
def test_an_euler_loop_is_the_flux_pipeline(
    session: ModularSession, flux: FluxPipeline, repository: str, batch: int
) -> None:
    x = noise(batch, session)
    theirs = reference(flux, arguments(repository, x, "latent"))
    pictures = reference(flux, arguments(repository, x, "pt"))
    ours = euler(session, x, flux.scheduler.sigmas)
    assert torch.equal(ours, theirs)
    # Our decoder's weights lie channels-last in memory, which sums in another order.
    torch.testing.assert_close(session.decode(ours), pictures, rtol=0, atol=1e-5)


@repositories
@pytest.mark.parametrize("batch", [1, 3])
def test_an_euler_loop_is_the_modular_pipeline(
    backend: ModularBackend, session: ModularSession, repository: str, batch: int
) -> None:
    x = noise(batch, session)
    theirs = backend.pipeline(**arguments(repository, x, "pt"), output="images")
    ours = session.decode(euler(session, x, backend.pipeline.scheduler.sigmas))
    # The modular loop embeds one time for the whole batch, we one for each row: rounding.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0 if batch == 1 else UNSEEN)


def test_a_time_rounded_to_bfloat16_is_lost_in_the_rounding_of_the_rest() -> None:
    """What docs/maths.md says of the times that transformers in bfloat16 see."""
    whole, half = (
        ModularBackend.load(SHAPES, device="cpu", dtype=dtype, inputs={"max_sequence_length": 16}).prepare(
            PROMPT, *SIZES["shapes"]
        )
        for dtype in (torch.float32, torch.bfloat16)
    )
    x = noise(8, whole)
    data = euler(whole, x, torch.linspace(1, 0, 11))
    for t in (0.9935, 0.9898, 0.9, 0.7, 0.3):
        seen = torch.tensor(t).bfloat16().item()
        latents = (1 - t) * data + t * x
        asked, at_seen = torch.full((8,), t), torch.full((8,), seen)
        exact = latents - t * whole.velocity(latents, asked)
        time_alone = (latents - t * whole.velocity(latents, at_seen) - exact).norm() / exact.norm()
        v = half.velocity(latents, asked)
        errors = [((latents - time * v - exact).norm() / exact.norm()).item() for time in (t, seen)]
        assert 0 < time_alone < 0.005
        assert time_alone < errors[0] / 2 < 0.02
        assert errors[0] < 1.05 * errors[1], "nothing is gained by the time that it sees"


@repositories
def test_times_that_are_not_shifted_are_even_to_the_last_bit(session: ModularSession) -> None:
    for steps in range(1, 51):
        assert session.schedule(steps) == tuple(1 - i / steps for i in range(steps + 1))


@repositories
def test_rows_at_different_times_do_not_see_each_other(session: ModularSession) -> None:
    x, t = noise(4, session), torch.tensor([1.0, 0.7, 0.31, 0.0])
    together = session.velocity(x, t)
    alone = torch.cat([session.velocity(x[i : i + 1], t[i : i + 1]) for i in range(4)])
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(session.velocity(x, t.flip(0)), together, atol=1e-3)


@repositories
def test_decoding_in_chunks_is_decoding_the_whole(session: ModularSession, repository: str) -> None:
    x0 = noise(5, session)
    whole = session.decode(x0)
    chunks = torch.cat([session.decode(x0[:2]), session.decode(x0[2:])])
    width, height = SIZES[repository]
    assert whole.shape == (5, 3, height, width)
    assert whole.dtype == torch.float32
    assert whole.is_contiguous()
    assert 0 <= whole.min() < whole.max() <= 1
    torch.testing.assert_close(whole, chunks, rtol=0, atol=1e-5)


@repositories
def test_gradients_flow_from_the_pictures_to_the_latents(session: ModularSession) -> None:
    x0 = noise(3, session)
    direction = noise(3, session).flip(0)
    with torch.inference_mode():  # whoever decodes first must not leave anything that gradients cannot pass
        pictures = session.decode(x0)
    weights = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    leaf = x0.clone().requires_grad_()
    decoded = session.decode(leaf)
    torch.testing.assert_close(decoded, pictures, rtol=0, atol=1e-5)
    [gradient] = torch.autograd.grad((decoded * weights).sum(), leaf)
    step = 1e-2
    rise = ((session.decode(x0 + step * direction) - session.decode(x0 - step * direction)) * weights).sum()
    assert (gradient * direction).sum().item() == pytest.approx(rise.item() / (2 * step), rel=0.05)
    assert not session.decode(x0).requires_grad


def test_calls_leave_no_trace_in_the_next_one(backend: ModularBackend, session: ModularSession) -> None:
    x, t = noise(3, session), torch.tensor([0.9, 0.5, 0.1])
    first, picture = session.velocity(x, t), session.decode(x)
    other = backend.prepare("blue square", 64, 32)
    other.velocity(noise(3, other), t.flip(0))
    session.velocity(noise(2, session), t[:2])
    session.velocity(-x, t.flip(0))
    assert torch.equal(session.velocity(x, t), first)
    assert torch.equal(session.decode(x), picture)


def test_a_prompt_is_encoded_once_and_matters(backend: ModularBackend, session: ModularSession) -> None:
    calls: list[int] = []
    hook = backend.pipeline.text_encoder_2.register_forward_hook(lambda *_: calls.append(1))
    other = backend.prepare("a blue square", *SIZES["tiny"])
    x, t = noise(3, session), torch.full((3,), 0.8)
    velocity = other.velocity(x, t)
    other.velocity(x[:1], t[:1])
    other.decode(x)
    hook.remove()
    assert len(calls) == 1
    assert not torch.allclose(velocity, session.velocity(x, t), atol=1e-4)


def test_nothing_is_drawn_from_the_global_generator(backend: ModularBackend) -> None:
    before = torch.get_rng_state()
    session = backend.prepare(PROMPT, 32, 32)
    session.velocity(noise(2, session), torch.ones(2))
    session.decode(noise(2, session))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_empty_prompt_draws(backend: ModularBackend) -> None:
    session = backend.prepare("", 32, 32)
    assert torch.isfinite(session.velocity(noise(1, session), torch.ones(1))).all()


@pytest.mark.parametrize("scale", [1.0, 5.0, None])
def test_guidance_by_embedding_is_the_flux_pipelines(
    tmp_path: Path, flux_maker: Callable[..., Path], scale: float | None
) -> None:
    folder = flux_maker(tmp_path / "dev", guidance_embeds=True)
    backend = load(folder, max_sequence_length=16)
    session = backend.prepare(PROMPT, *SIZES["tiny"], guidance_scale=scale)
    assert session.forwards_per_nfe == 1
    flux = FluxPipeline.from_pretrained(folder, local_files_only=True)
    flux.set_progress_bar_config(disable=True)
    x = noise(2, session)
    given = {} if scale is None else {"guidance_scale": scale}
    theirs = reference(flux, arguments("tiny", x, "latent") | given)
    assert torch.equal(euler(session, x, flux.scheduler.sigmas), theirs)
    other = backend.prepare(PROMPT, *SIZES["tiny"], guidance_scale=2.5).velocity(x, torch.ones(2))
    assert not torch.equal(session.velocity(x, torch.ones(2)), other)


def test_weights_stored_in_half_run_in_single(tmp_path: Path, flux_maker: Callable[..., Path]) -> None:
    folder = flux_maker(tmp_path / "half", dtype=torch.float16)
    backend = load(folder)
    parts = ("transformer", "vae", "text_encoder", "text_encoder_2")
    assert {getattr(backend.pipeline, part).dtype for part in parts} == {torch.float32}


@pytest.mark.parametrize(("width", "height"), [(0, 32), (-32, 32), (32, 36), (33, 32)])
def test_a_size_the_model_cannot_draw_is_refused(backend: ModularBackend, width: int, height: int) -> None:
    with pytest.raises(ValueError, match=r"(width|height) is -?\d+ pixels: .* multiple of 8"):
        backend.prepare(PROMPT, width, height)


def test_latents_and_times_of_the_wrong_shape_are_refused(session: ModularSession) -> None:
    x = noise(2, session)
    with pytest.raises(ValueError, match="latents have shape"):
        session.velocity(x[:, 1:], torch.ones(2))
    with pytest.raises(ValueError, match="latents have shape"):
        session.decode(x[:0])
    with pytest.raises(ValueError, match="one for each of 2 latents"):
        session.velocity(x, torch.tensor(0.5))


def test_the_decoder_lies_channels_last_where_that_is_faster(tiny_flux: Path) -> None:
    for device, faster in (("cpu", True), ("cuda", False)):
        pipeline = ModularBackend.load(tiny_flux, device="cpu", dtype=torch.float32).pipeline
        pipeline.vae.to(memory_format=torch.contiguous_format)
        lay_out_for_speed(pipeline, torch.device(device))
        weight = pipeline.vae.decoder.conv_in.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == faster


def test_large_pictures_can_be_decoded_in_tiles(tiny_flux: Path) -> None:
    tiled, whole = (
        ModularBackend.load(tiny_flux, device="cpu", dtype=torch.float32, vae_tiling=tiling).prepare(
            PROMPT, 64, 64
        )
        for tiling in (True, False)
    )
    x0 = noise(2, tiled).requires_grad_()
    pictures = tiled.decode(x0)
    first, second = (
        (pictures - whole.decode(x0)).abs().mean(),
        (pictures - whole.decode(x0).flip(0)).abs().mean(),
    )
    assert 0 < first < second / 2  # tiles of 32 pixels, each normalised by itself
    [gradient] = torch.autograd.grad(pictures.sum(), x0)
    assert gradient.abs().min() > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quantisation": "int4"}, "there is no quantisation 'int4'; there are none, fp8, int8, nf4"),
        ({"quantisation": "int8"}, "'int8' needs dtype 'bfloat16', the type that torchao computes in"),
        ({"offload": "disk"}, "there is no offload 'disk'; there are none, text_encoders, model, group"),
    ],
)
def test_an_option_that_there_is_not_is_refused_before_anything_is_read(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelLoadError, match=said):
        ModularBackend.load(tmp_path, device="cpu", dtype=torch.float32, **options)


@pytest.mark.parametrize(("name", "package"), [("int8", "torchao"), ("nf4", "bitsandbytes")])
def test_a_package_that_is_missing_is_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setattr(quantisation, "find_spec", lambda _: None)
    with pytest.raises(ModelLoadError, match=rf"needs {package}, .*: pip install 'rollover\[{name}\]'"):
        refuse_quantisation(name, torch.bfloat16, torch.device("cpu"))


def test_4_bits_need_a_gpu_and_whole_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantisation, "find_spec", lambda _: True)
    with pytest.raises(ModelLoadError, match="'nf4' needs a GPU, and the device is the CPU: take 'int8'"):
        refuse_quantisation("nf4", torch.bfloat16, torch.device("cpu"))
    refuse_quantisation("nf4", torch.bfloat16, torch.device("cuda"))
    with pytest.raises(ModelLoadError, match="4-bit weights cannot be moved in groups: take offload 'model'"):
        refuse_offload("group", "nf4")


def test_on_the_cpu_there_is_nothing_to_offload_to(tiny_flux: Path) -> None:
    backend = ModularBackend.load(tiny_flux, device="cpu", dtype=torch.float32, offload="model")
    assert not hasattr(backend.pipeline.transformer, "_hf_hook")


def test_an_input_that_the_family_does_not_take_is_refused(tiny_flux: Path) -> None:
    with pytest.raises(
        ModelLoadError, match=r"FluxModularPipeline takes no input max_len; it takes .*max_sequence_length"
    ):
        load(tiny_flux, max_len=3)


def load(folder: Path, **inputs: object) -> ModularBackend:
    return ModularBackend.load(folder, device="cpu", dtype=torch.float32, inputs=inputs)


def edit_index(folder: Path, **changes: object) -> None:
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | changes))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="nowhere: there is no such folder"):
        load(tmp_path / "nowhere")


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"model_index\.json"):
        load(tmp_path)


def test_a_pipeline_that_is_not_modular_is_refused(tmp_path: Path, flux_maker: Callable[..., Path]) -> None:
    folder = flux_maker(tmp_path / "other")
    edit_index(folder, _class_name="LattePipeline")
    with pytest.raises(ModelLoadError, match="no repository that diffusers can open"):
        load(folder)


def test_a_component_of_the_wrong_class_is_named(tmp_path: Path, flux_maker: Callable[..., Path]) -> None:
    folder = flux_maker(tmp_path / "wrong")
    edit_index(folder, transformer=["diffusers", "SD3Transformer2DModel"])
    with pytest.raises(ModelLoadError, match="transformer should be a FluxTransformer2DModel"):
        load(folder)


def test_a_missing_component_is_named(tmp_path: Path, flux_maker: Callable[..., Path]) -> None:
    folder = flux_maker(tmp_path / "gap")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="vae could not be loaded"):
        load(folder)


@pytest.mark.parametrize("part", ["transformer", "text_encoder_2"])
def test_a_corrupt_file_is_named(tmp_path: Path, flux_maker: Callable[..., Path], part: str) -> None:
    folder = flux_maker(tmp_path / "corrupt")
    [weights] = (folder / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(
        ModelLoadError,
        match=f"{part} could not be loaded: .*safetensors is cut off, or no .*; fetch it again",
    ):
        load(folder)


@pytest.mark.parametrize("part", ["transformer", "text_encoder"])
def test_pickled_weights_are_refused(tmp_path: Path, flux_maker: Callable[..., Path], part: str) -> None:
    folder = flux_maker(tmp_path / "pickle")
    [weights] = (folder / part).glob("*.safetensors")
    name = "pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"
    torch.save(load_file(weights), weights.with_name(name))
    weights.unlink()
    with pytest.raises(
        ModelLoadError, match=f"{part} could not be loaded: .* has only pickles .{name}., which can run code"
    ):
        load(folder)


@pytest.mark.parametrize("part", ["transformer", "text_encoder_2"])
def test_weights_that_lack_a_tensor_are_refused(
    tmp_path: Path, flux_maker: Callable[..., Path], part: str
) -> None:
    folder = flux_maker(tmp_path / "lacking")
    [weights] = (folder / part).glob("*.safetensors")
    tensors = load_file(weights)
    lost = max(tensors)
    save_file({name: t for name, t in tensors.items() if name != lost}, weights, metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=f"{part} .*lacks .*{lost}"):
        load(folder)
