"""Every family that is driven, against its own pipeline: `python -m tests.models` prints the table."""

import json
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from diffusers.configuration_utils import FrozenDict
from diffusers.guiders import AdaptiveProjectedGuidance, BaseGuidance, ClassifierFreeGuidance
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit import calculate_dimensions
from PIL import Image, ImageOps
from torch import Tensor

from models.backend import ModelLoadError
from models.families import SUPPORTED, UNMAPPED, UNSUPPORTED
from models.modular import (
    ModularBackend,
    ModularSession,
    TakesImage,
    refuse_changing_guidance,
    refuse_other_predictions,
)
from models.offload import denoiser, group_of, movable, offload_groups, offload_models
from sampling import kernels
from sampling.grids import linear
from sampling.prediction import predict
from sampling.problem import Problem, Scores
from sampling.sampler import Sampler
from sampling.search import search
from sampling.state import draw_noise
from sampling.strategies.base import Base
from sampling.strategies.best_of_n import BestOfN
from sampling.strategies.rbf import Rbf
from tests.models.tiny import FAMILIES, Family, make

PROMPT = "two red circle"
WIDTH, HEIGHT = 48, 32
PICTURE = Image.effect_mandelbrot((80, 64), (-1.5, -1.0, 0.5, 1.0), 20).convert("RGB")
QWEN = "diffusers.pipelines.qwenimage"
STEPS = 4
ODE = Sampler(interpolant="linear", kernel="ode")
UNSEEN = 0.01 / 255  # a hundredth of an 8-bit step
DIFFUSIONS = [name for name, family in FAMILIES.items() if family.pipeline == "StableDiffusionXLPipeline"]


def scales_of(names: Iterable[str]) -> pytest.MarkDecorator:
    """Each guidance scale of these families."""
    cases = [
        pytest.param(name, scale, id=f"{name}-{'guided' if scale in FAMILIES[name].guided else 'unguided'}")
        for name in names
        for scale in FAMILIES[name].scales
    ]
    return pytest.mark.parametrize(("name", "scale"), cases)


every_scale = scales_of(FAMILIES)
every_diffusion = scales_of(DIFFUSIONS)
every_flow = scales_of([name for name in FAMILIES if name not in DIFFUSIONS])
every_family = pytest.mark.parametrize(
    ("name", "scale"), [(name, next(iter(family.scales))) for name, family in FAMILIES.items()]
)
every_guided = pytest.mark.parametrize(
    ("name", "scale"),
    [(name, next(iter(family.scales))) for name, family in FAMILIES.items() if len(family.scales) > 1],
)
every_model = pytest.mark.parametrize(
    ("name", "scale"),
    [(name, next(iter(family.scales))) for name, family in FAMILIES.items() if not family.again],
)
with_an_image = pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.image])


@dataclass(frozen=True)
class Made:
    """A tiny model of a family: its own pipeline, and our backend on what that saved."""

    family: Family
    folder: Path
    pipeline: Any
    backend: ModularBackend


@pytest.fixture(autouse=True)
def small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen's pipelines, and its blocks alike, make a million pixels of an image: here a 64th of them."""

    def smaller(area: int, ratio: float) -> tuple[int, int, None]:
        return calculate_dimensions(area // 64, ratio)

    monkeypatch.setattr(f"{QWEN}.pipeline_qwenimage_edit.calculate_dimensions", smaller)
    monkeypatch.setattr(
        f"{QWEN}.pipeline_qwenimage_edit_plus.calculate_dimensions", lambda *given: smaller(*given)[:2]
    )
    monkeypatch.setattr("diffusers.modular_pipelines.qwenimage.encoders.calculate_dimensions", smaller)


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Each family's model, made when first asked for: tests come in any order."""

    loaded: dict[tuple[object, ...], Made] = {}

    def made(name: str) -> Made:
        family = FAMILIES[name]
        # Whether it is given an image makes no other model.
        key = (family.pipeline, family.parts)
        if key not in loaded:
            folder = tmp_path_factory.mktemp("family")
            pipeline = make(family, folder)
            loaded[key] = Made(family, folder, pipeline, load(family, folder))
        return replace(loaded[key], family=family)

    return made


def load(
    family: Family, folder: Path, dtype: torch.dtype = torch.float32, quantisation: str = "none"
) -> ModularBackend:
    return ModularBackend.load(
        folder,
        device="cpu",
        dtype=dtype,
        quantisation=quantisation,
        inputs=family.inputs,
        image=family.takes,
    )


@pytest.fixture
def made(maker: Callable[[str], Made], name: str) -> Made:
    return maker(name)


@pytest.fixture
def session(made: Made, scale: float | None) -> ModularSession:
    return prepared(made, scale)


def prepared(made: Made, scale: float | None, backend: ModularBackend | None = None) -> ModularSession:
    image = PICTURE if made.family.image else None
    return (backend or made.backend).prepare(PROMPT, WIDTH, HEIGHT, scale, image)


def noise(batch: int, session: ModularSession) -> Tensor:
    return torch.randn(batch, *session.latent_shape, generator=torch.Generator().manual_seed(batch))


def runs(session: ModularSession, count: int) -> tuple[Tensor, Tensor]:
    """Noises, and what runs of `base` from them come to where a request says no more than how many steps."""
    problem = Problem(
        velocity=session.velocity,
        score=lambda x0: Scores(rewards=[0.0] * len(x0), parts=[{}] * len(x0), images=None),
        shape=session.latent_shape,
        seed=0,
        nfe=count * STEPS,
        sampler=Sampler(steps=STEPS),
        keep=count,
        schedule=session.schedule,
    )
    *_, last = search(problem, BestOfN(batch=count) if count > 1 else Base())
    ends = sorted(last.state.best, key=lambda candidate: candidate.chain)
    noises = draw_noise(problem, [(chain, 0, 0) for chain in range(count)])
    return noises, torch.stack([candidate.prediction.x0 for candidate in ends])


def ode(session: ModularSession, x: Tensor, times: Tensor) -> Tensor:
    """Our own ODE kernel over our own prediction, at these times."""
    for r, r_next in pairwise(times.tolist()):
        here, there = [r] * len(x), [r_next] * len(x)
        prediction = predict(session.velocity, ODE.path, x, here)
        x = kernels.step(ODE, x, prediction, here, there, None)
    return x


def beginning(made: Made, x: Tensor) -> tuple[Tensor, Tensor]:
    """Where a diffusion's own pipeline begins with these latents, and its times, on the straight path."""
    # Its sigmas are ratios of noise to signal, and its latents have the variance 1.
    sigmas = made.pipeline.scheduler.sigmas.double()
    times = sigmas / (1 + sigmas)
    return x * (times[0] ** 2 + (1 - times[0]) ** 2).sqrt().float(), times


def theirs(made: Made, scale: float | None, x: Tensor) -> Tensor:
    """The pictures of the family's own pipeline from these latents."""
    latents = x
    if made.family.unpacked:
        grid = (HEIGHT // made.backend.size_multiple, WIDTH // made.backend.size_multiple)
        latents = x.mT.unflatten(2, grid)
    given: dict[str, Any] = dict(made.family.inputs)
    if made.family.image:
        given["image"] = PICTURE
    if made.family.pipeline == "FluxKontextPipeline":
        given["max_area"] = WIDTH * HEIGHT
    return made.pipeline(
        prompt=PROMPT,
        width=WIDTH,
        height=HEIGHT,
        **given,
        num_inference_steps=STEPS,
        num_images_per_prompt=len(x),
        latents=latents,
        output_type="pt",
        **made.family.scales[scale],
    ).images


@every_flow
@pytest.mark.parametrize("batch", [1, 3])
def test_a_base_run_is_the_familys_own_pipeline(
    made: Made, session: ModularSession, scale: float | None, batch: int
) -> None:
    x, x0 = runs(session, batch)
    pictures = theirs(made, scale, x)
    assert pictures.std() > 0.01
    torch.testing.assert_close(session.decode(x0), pictures, rtol=0, atol=UNSEEN)


@every_diffusion
@pytest.mark.parametrize("batch", [1, 3])
def test_an_ode_run_is_a_diffusions_own_pipeline(
    made: Made, session: ModularSession, scale: float | None, batch: int
) -> None:
    x = noise(batch, session)
    pictures = theirs(made, scale, x)
    assert pictures.std() > 0.01
    ours = session.decode(ode(session, *beginning(made, x)))
    torch.testing.assert_close(ours, pictures, rtol=0, atol=UNSEEN)


@every_model
def test_the_schedule_is_the_familys_own(
    made: Made, session: ModularSession, name: str, scale: float | None
) -> None:
    theirs(made, scale, noise(1, session))
    own, even = made.pipeline.scheduler.sigmas.tolist(), linear(STEPS)
    shifts = name not in {"FLUX.1 schnell", *DIFFUSIONS}
    assert session.schedule(STEPS) == (tuple(own) if shifts else even)
    assert not shifts or own != pytest.approx(even, abs=1e-2)
    assert session.schedule(1) == (1.0, 0.0)


@every_scale
def test_each_forward_pass_is_counted(made: Made, session: ModularSession, scale: float | None) -> None:
    passes: list[int] = []
    network = denoiser(made.backend.pipeline)
    hook = network.register_forward_pre_hook(lambda *_: passes.append(1))
    session.velocity(noise(2, session), torch.tensor([0.9, 0.4]))
    hook.remove()
    assert len(passes) == session.forwards_per_nfe
    assert session.forwards_per_nfe == (1 if made.family.off in {None, scale} else 2)


@every_guided
def test_guidance_matters_and_does_not_linger(made: Made, session: ModularSession) -> None:
    x, t = noise(2, session), torch.tensor([0.9, 0.4])
    before = session.velocity(x, t)
    others = [prepared(made, scale) for scale in list(made.family.scales)[1:]]
    assert others
    assert all(not torch.allclose(other.velocity(x, t), before, atol=1e-4) for other in others)
    assert torch.equal(session.velocity(x, t), before)


@every_family
def test_rows_at_different_times_do_not_see_each_other(session: ModularSession) -> None:
    x, t = noise(3, session), torch.tensor([1.0, 0.6, 0.05])
    together = session.velocity(x, t)
    alone = torch.cat([session.velocity(x[i : i + 1], t[i : i + 1]) for i in range(3)])
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5 * together.abs().max().item())
    assert not torch.allclose(session.velocity(x, t.flip(0)), together, atol=1e-3)


@every_family
def test_a_call_leaves_no_trace_in_the_next(session: ModularSession) -> None:
    x, t = noise(3, session), torch.tensor([0.9, 0.5, 0.1])
    first, picture = session.velocity(x, t), session.decode(x)
    session.velocity(-x, t.flip(0))
    session.velocity(x[:2], t[:2])
    assert torch.equal(session.velocity(x, t), first)
    assert torch.equal(session.decode(x), picture)


@every_model
def test_gradients_flow_from_the_pictures_to_the_latents(session: ModularSession) -> None:
    x0 = noise(2, session)
    weights = torch.randn(session.decode(x0).shape, generator=torch.Generator().manual_seed(0))
    leaf = x0.clone().requires_grad_()
    [gradient] = torch.autograd.grad((session.decode(leaf) * weights).sum(), leaf)
    step = 1e-3 * gradient / gradient.norm()
    up, down = ((session.decode(x0 + move) * weights).sum() for move in (step, -step))
    assert gradient.norm().item() == pytest.approx((up - down).item() / 2e-3, rel=0.05)


@every_family
def test_a_short_rbf_run_spends_its_budget_exactly(session: ModularSession) -> None:
    predictions: list[int] = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        predictions.append(len(x))
        return session.velocity(x, t)

    def score(x0: Tensor) -> Scores:
        rewards = session.decode(x0).mean(dim=(1, 2, 3)).tolist()
        return Scores(rewards=rewards, parts=[{"brightness": reward} for reward in rewards], images=None)

    problem = Problem(
        velocity=velocity,
        score=score,
        shape=session.latent_shape,
        seed=0,
        nfe=23,
        sampler=Sampler(steps=3),
        forwards_per_nfe=session.forwards_per_nfe,
    )
    *_, last = search(problem, Rbf(chains=2, initial_noises=5, finish_steps=2))
    assert last.state.ledger.nfe_spent == sum(predictions) == 23
    assert last.state.ledger.model_forwards == 23 * session.forwards_per_nfe


@every_model
def test_weights_in_8_bits_give_nearly_the_same_velocity(
    made: Made, session: ModularSession, scale: float | None
) -> None:
    backend = load(made.family, made.folder, quantisation="fp8")
    weights = dict(denoiser(backend.pipeline).named_parameters())
    kept = sum(weight.numel() for weight in weights.values() if weight.dtype == torch.float8_e4m3fn)
    assert kept > 0.1 * sum(weight.numel() for weight in weights.values())
    x, t = noise(2, session), torch.tensor([0.9, 0.3])
    exact, rounded = session.velocity(x, t), prepared(made, scale, backend).velocity(x, t)
    assert 0 < (rounded - exact).norm() < 0.2 * exact.norm()


@every_model
@pytest.mark.parametrize("quantisation", ["fp8", "int8"])
def test_half_precision_runs(
    made: Made, session: ModularSession, scale: float | None, quantisation: str
) -> None:
    backend = load(made.family, made.folder, torch.bfloat16, quantisation)
    weights = {type(weight).__name__ for weight in denoiser(backend.pipeline).parameters()}
    assert ("Int8Tensor" in weights) == (quantisation == "int8")
    halved = prepared(made, scale, backend)
    x, t = noise(2, session), torch.tensor([0.9, 0.3])
    exact, rounded = session.velocity(x, t), halved.velocity(x, t)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).norm() < 0.2 * exact.norm()
    torch.testing.assert_close(halved.decode(x), session.decode(x), rtol=0, atol=0.1)


@every_model
@pytest.mark.parametrize("moved", ["models", "groups"])
def test_networks_that_come_and_go_give_the_same_bits(
    made: Made, session: ModularSession, scale: float | None, moved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = load(made.family, made.folder)
    if moved == "models":
        # The CPU does not say how much memory it has, which is all that keeps it from being the device.
        monkeypatch.setattr(torch.cpu, "mem_get_info", lambda _: (2**40, 2**40), raising=False)
        offload_models(backend.pipeline, torch.device("cpu"))
    else:
        offload_groups(backend.pipeline, torch.device("cpu"), use_stream=False)
    came = arrivals(backend, whole=moved == "models", monkeypatch=monkeypatch)
    offloaded = prepared(made, scale, backend)
    x, t = noise(2, session), torch.tensor([0.9, 0.3])
    assert torch.equal(offloaded.velocity(x, t), session.velocity(x, t))
    assert torch.equal(offloaded.decode(x), session.decode(x))
    assert came >= movable(backend.pipeline).keys()
    [gradient] = torch.autograd.grad(offloaded.decode(x.requires_grad_()).sum(), x)
    assert gradient.abs().max() > 0


def arrivals(backend: ModularBackend, *, whole: bool, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The networks of which anything was asked to come to the device, filled in as it is."""
    came: set[str] = set()
    method = "pre_forward" if whole else "onload_"
    for name, network in movable(backend.pipeline).items():
        hooks = [network._hf_hook] if whole else [*filter(None, map(group_of, network.modules()))]  # noqa: SLF001 -- accelerate's own
        for hook in hooks:
            monkeypatch.setattr(hook, method, partial(noted, came, name, getattr(hook, method)))
    return came


def noted(came: set[str], name: str, bring: Callable[..., Any], *given: object, **options: object) -> object:
    came.add(name)
    return bring(*given, **options)


@with_an_image
def test_another_image_is_another_velocity(made: Made) -> None:
    sessions = [
        made.backend.prepare(PROMPT, WIDTH, HEIGHT, image=image)
        for image in (PICTURE, ImageOps.invert(PICTURE))
    ]
    x, t = noise(2, sessions[0]), torch.tensor([0.9, 0.4])
    first, second = (session.velocity(x, t) for session in sessions)
    assert not torch.allclose(first, second, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "image", "complaint"),
    [("FLUX.1 schnell", PICTURE, "takes no image"), ("Qwen-Image-Edit, image", None, "needs an image")],
)
def test_an_image_too_many_or_too_few_is_refused(
    made: Made, image: Image.Image | None, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        made.backend.prepare(PROMPT, WIDTH, HEIGHT, image=image)


@pytest.mark.parametrize(
    ("name", "image", "complaint"),
    [
        ("FLUX.1 schnell", "optional", "FluxModularPipeline takes no image: leave `image` out"),
        ("FLUX.1 schnell", "required", "FluxModularPipeline takes no image: leave `image` out"),
        ("Qwen-Image-Edit, image", "none", 'needs an image: write image = "required" where it is catalogued'),
        ("Qwen-Image-Edit, image", "optional", 'needs an image: write image = "required"'),
    ],
)
def test_a_model_is_not_loaded_for_what_it_cannot_do(made: Made, image: TakesImage, complaint: str) -> None:
    with pytest.raises(ModelLoadError, match=complaint):
        ModularBackend.load(made.folder, device="cpu", dtype=torch.float32, image=image)


def test_every_supported_family_stands_in_the_table(maker: Callable[[str], Made]) -> None:
    assert {type(maker(name).backend.pipeline).__name__ for name in FAMILIES} == SUPPORTED.keys()


@pytest.mark.parametrize("name", ["Qwen-Image", "Krea 2"])
def test_a_scale_that_leads_away_from_the_prompt_is_refused(made: Made) -> None:
    off = made.family.off
    assert off is not None
    with pytest.raises(
        ValueError, match=f"guidance_scale is {off - 0.5}: this model takes {off} .no guidance. and"
    ):
        prepared(made, off - 0.5)


@pytest.mark.parametrize("name", ["FLUX.2 klein"])
def test_a_scale_for_a_family_that_takes_none_is_refused(made: Made) -> None:
    with pytest.raises(ValueError, match="takes no guidance_scale"):
        prepared(made, 2.0)


@pytest.mark.parametrize(
    ("pipeline", "family"),
    [
        ("Ideogram4Pipeline", "Ideogram4ModularPipeline"),
        ("QwenImage21Pipeline", "QwenImage21ModularPipeline"),
        ("WanPipeline", "WanModularPipeline"),
    ],
)
def test_an_unsupported_family_is_refused_with_the_reason(tmp_path: Path, pipeline: str, family: str) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    with pytest.raises(ModelLoadError, match=f"{family} is not supported: {UNSUPPORTED[family]}"):
        ModularBackend.load(tmp_path, device="cpu", dtype=torch.float32)


@pytest.mark.parametrize(
    ("guider", "complaint"),
    [
        (AdaptiveProjectedGuidance(), "its guider is a AdaptiveProjectedGuidance; supported is Classifier"),
        (ClassifierFreeGuidance(start=0.1), r"its guider works from 0.1 to 1.0 of the steps; supported is"),
    ],
)
@pytest.mark.parametrize("name", ["Qwen-Image"])
def test_guidance_that_depends_on_the_step_is_refused(
    made: Made, guider: BaseGuidance, complaint: str
) -> None:
    pipeline = copy(made.backend.pipeline)
    vars(pipeline)["guider"] = guider
    with pytest.raises(ModelLoadError, match=complaint):
        refuse_changing_guidance(pipeline, "somewhere")


def test_every_modular_pipeline_of_diffusers_is_driven_or_has_its_reason() -> None:
    there = {name for name in dir(diffusers) if name.endswith("ModularPipeline")} - {"ModularPipeline"}
    assert SUPPORTED.keys() | UNSUPPORTED.keys() == there
    assert not SUPPORTED.keys() & UNSUPPORTED.keys()
    assert set(UNMAPPED.values()) <= there


@pytest.mark.parametrize(
    ("part", "config", "complaint"),
    [
        ("unet", {"time_cond_proj_dim": 8}, "it is a latent-consistency model"),
        ("scheduler", {"prediction_type": "flow"}, "it predicts 'flow'; supported are epsilon, v_prediction"),
    ],
)
@pytest.mark.parametrize("name", ["Stable Diffusion XL"])
def test_a_diffusion_that_cannot_be_read_is_refused(
    made: Made, part: str, config: dict[str, Any], complaint: str
) -> None:
    pipeline = copy(made.backend.pipeline)
    vars(pipeline)[part] = SimpleNamespace(config=FrozenDict(getattr(pipeline, part).config | config))
    with pytest.raises(ModelLoadError, match=complaint):
        refuse_other_predictions(pipeline, "somewhere")
