"""One backend for the families that diffusers has as a Modular Pipeline, with an image to go by or without.

A modular pipeline is a list of blocks: text encoder, preparation, denoising loop, decoder; the loop again is
`[before_denoiser], denoiser, after_denoiser`, where the last one is the scheduler's step. Here the family's
own blocks run up to the loop, then the loop's blocks without the scheduler's step are the velocity field at
any (x, t), and the blocks after the loop are the decoder. The scheduler never steps: the search does. Where a
family guides by a guider, its own denoiser makes the further forward passes and puts them together.
"""

import json
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self, cast

import diffusers
import torch
from diffusers import DDIMScheduler
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.modular_pipelines.modular_pipeline import (
    BlockState,
    LoopSequentialPipelineBlocks,
    ModularPipeline,
    ModularPipelineBlocks,
    PipelineState,
)
from diffusers.modular_pipelines.modular_pipeline_utils import ComponentSpec
from PIL.Image import Image
from torch import Tensor

from models.backend import ModelLoadError
from models.compilation import compile_blocks, refuse_compilation
from models.components import refuse_component
from models.diffusion import PREDICTIONS, Diffusion
from models.families import DENOISERS, SUPPORTED, UNMAPPED, reason_against
from models.flaws import flaw
from models.offload import denoiser, place, read_to, refuse_offload, text_encoders, visiting
from models.processors import load_part
from models.quantisation import cast_layers, loading_options, refuse_quantisation
from sampling.grids import linear

TakesImage = Literal["none", "optional", "required"]
"""Whether prompts come with an image that they are about."""
SCHEDULER_STEP = "after_denoiser"
ROUNDING = 1e-6
KEPT_PROMPTS = 8
"""Requests whose encoded prompts are kept: of a search and its baseline, or of one prompt with many seeds."""
GIVEN = frozenset(
    {"prompt", "negative_prompt", "width", "height", "latents", "generator", "num_images_per_prompt"}
    | {"guidance_scale", "output_type", "image", "max_area"}
)
"""Inputs of blocks that each request, or this backend, sets."""

Block = Callable[..., tuple[ModularPipeline, Any]]
"""A block takes the pipeline and a state, and returns both; the state it was given is changed."""


@dataclass(frozen=True)
class Stages:
    """The blocks of a pipeline, in running order, cut where the search takes over."""

    encode: tuple[Block, ...]
    prepare: tuple[Block, ...]
    loop: LoopSequentialPipelineBlocks
    denoisers: tuple[Block, ...]
    decode: tuple[Block, ...]


@dataclass(frozen=True)
class Way:
    """One of a family's ways to a picture: its stages, and their inputs that no request sets."""

    stages: Stages
    inputs: Mapping[str, Any]

    @classmethod
    def of(cls, blocks: ModularPipelineBlocks, inputs: Mapping[str, Any]) -> Self:
        """The way of these blocks, with values for some of their inputs."""
        return cls(split(blocks), declared_defaults(blocks) | dict(inputs))


class ModularBackend:
    """A diffusers repository on disk, loaded and ready to open sessions.

    Use `ModularBackend.load`. One backend serves one thread.

    Args:
        pipeline: with every component of all the blocks.
        blocks: of the ways it goes, by whether there is an image to go by.
        inputs: values for the family's own block inputs.

    Attributes:
        visitors: networks that lie in the CPU's memory and come to the device to encode a prompt.
    """

    def __init__(
        self,
        pipeline: ModularPipeline,
        blocks: Mapping[bool, ModularPipelineBlocks],
        inputs: Mapping[str, Any],
    ) -> None:
        self.pipeline = pipeline
        self.ways = {with_image: Way.of(each, inputs) for with_image, each in blocks.items()}
        self.diffusion = diffusion_of(pipeline)
        self.visitors: tuple[torch.nn.Module, ...] = ()
        self._encoded: OrderedDict[Hashable, PipelineState] = OrderedDict()

    @classmethod
    def check(
        cls,
        source: str | Path,
        *,
        device: torch.device | str,
        dtype: torch.dtype,
        quantisation: str = "none",
        offload: str = "none",
        compiled: bool = False,
        inputs: Mapping[str, Any] | None = None,
        image: TakesImage = "none",
        **_no_matter: object,
    ) -> dict[bool, ModularPipeline]:
        """Refuse what `load` would before it reads weights; its pipelines, by whether there is an image.

        Raises:
            ModelLoadError: nothing there, not a pipeline we can drive, a component of the wrong class, or an
                option that it does not have.
        """
        refuse_quantisation(quantisation, dtype, torch.device(device))
        refuse_offload(offload, quantisation)
        if compiled:
            refuse_compilation()
        pipelines = {with_image: open_pipeline(source, with_image) for with_image in WAYS[image]}
        for pipeline in pipelines.values():
            refuse_wrong_components(pipeline, source)
        refuse_inputs(pipelines[max(pipelines)], source, inputs or {})
        return pipelines

    @classmethod
    def load(  # noqa: PLR0913 -- the ways to load that a catalogue has
        cls,
        source: str | Path,
        *,
        device: torch.device | str,
        dtype: torch.dtype,
        quantisation: str = "none",
        offload: str = "none",
        vae_tiling: bool = False,
        compiled: bool = False,
        inputs: Mapping[str, Any] | None = None,
        image: TakesImage = "none",
    ) -> Self:
        """Load a repository in the diffusers layout. Only safetensors, only what is on this machine.

        Args:
            source: folder with a `model_index.json` (or `modular_model_index.json`).
            device: where the model runs.
            dtype: type the weights are converted to, whatever they are stored as.
            quantisation: of the transformer's weights; a name of `models.quantisation.QUANTISATIONS`.
            offload: where networks lie that do not compute; a name of `models.offload.OFFLOADS`.
            vae_tiling: whether the VAE decodes large pictures in tiles.
            compiled: whether the transformer's blocks are compiled, see `models.compilation`.
            inputs: values for the family's own block inputs, such as `max_sequence_length`.
            image: whether prompts come with an image; "none" and "optional" need a family that draws from a
                prompt alone, "optional" and "required" one that takes an image.

        Raises:
            ModelLoadError: nothing there, not a pipeline we can drive, a component missing, of the wrong
                class, corrupt, or stored as pickle; or an option that it does not have.
        """
        device = torch.device(device)
        pipelines = cls.check(
            source,
            device=device,
            dtype=dtype,
            quantisation=quantisation,
            offload=offload,
            compiled=compiled,
            inputs=inputs,
            image=image,
        )
        # The image's way has all that the prompt's has, and an encoder for the image.
        pipeline = pipelines[max(pipelines)]
        options = partial(options_of, dtype=dtype, device=device, quantisation=quantisation, offload=offload)
        load_components(pipeline, source, options)
        refuse_changing_guidance(pipeline, source)
        refuse_other_predictions(pipeline, source)
        with told_of_memory(source, device):
            cast_layers(denoiser(pipeline), quantisation, dtype)
            place(pipeline, device, offload)
        lay_out_for_speed(pipeline, torch.device(device))
        if vae_tiling:
            pipeline.vae.enable_tiling()
        if compiled:
            compile_blocks(denoiser(pipeline))
        blocks = {with_image: opened.blocks for with_image, opened in pipelines.items()}
        backend = cls(pipeline, blocks, inputs or {})
        if offload == "text_encoders":
            backend.visitors = tuple(text_encoders(pipeline).values())
        return backend

    @property
    def size_multiple(self) -> int:
        """Width and height must be multiples of this many pixels: the VAE's scale, times the patch of 2."""
        return 2 * self.pipeline.vae_scale_factor

    def prepare(
        self,
        prompt: str,
        width: int,
        height: int,
        guidance_scale: float | None = None,
        image: Image | None = None,
    ) -> "ModularSession":
        """See `models.backend.FlowBackend.prepare`."""
        if (image is not None) not in self.ways:
            raise ValueError(f"this model {'needs an image' if image is None else 'takes no image'}")
        way = self.ways[image is not None]
        multiple = self.size_multiple
        for name, pixels in (("width", width), ("height", height)):
            if pixels <= 0 or pixels % multiple:
                raise ValueError(
                    f"{name} is {pixels} pixels: this model needs a positive multiple of {multiple}"
                )
        # Sessions share the networks, but each has a guider of its own: the blocks write into it.
        pipeline = copy(self.pipeline)
        if self.diffusion:
            # One that does not scale latents: that is done by ratios, at any time.
            vars(pipeline)["scheduler"] = DDIMScheduler.from_config(pipeline.scheduler.config)
        given: dict[str, Any] = {"prompt": prompt, "width": width, "height": height, "image": image}
        # FLUX Kontext draws pictures of this area, whatever their width and height.
        given["max_area"] = width * height
        if guides_by_passes(pipeline):
            guider = guider_at(pipeline.guider, guidance_scale)
            vars(pipeline)["guider"] = guider
            # Some families guide towards the prompt only where they are given something to guide away from;
            # Stable Diffusion XL guides away from zeros where it is given nothing.
            away_from = None if self.diffusion else ""
            given["negative_prompt"] = away_from if guider.num_conditions > 1 else None
        elif guidance_scale is not None and "guidance_scale" not in way.inputs:
            raise ValueError("this model takes no guidance_scale")
        elif guidance_scale is not None:
            given["guidance_scale"] = guidance_scale
        seen = None if image is None else (image.size, sha256(image.tobytes()).digest())
        encoded = self._encode((prompt, width, height, guidance_scale, seen), pipeline, way, given)
        return ModularSession(pipeline, way.stages, encoded, (height, width), self.diffusion)

    def _encode(
        self, key: Hashable, pipeline: ModularPipeline, way: Way, given: Mapping[str, Any]
    ) -> PipelineState:
        """The state after a way's encoders; of the latest requests it is kept, by what they ask.

        The text encoders leave the pipeline: nothing after them asks for them, and the blocks run where the
        first network of a pipeline lies.
        """
        if key not in self._encoded:
            with torch.inference_mode(), visiting(self.visitors, torch.device(pipeline.vae.device)):
                state = PipelineState(values={**way.inputs, **given})
                self._encoded[key] = run(way.stages.encode, pipeline, state)
        self._encoded.move_to_end(key)
        while len(self._encoded) > KEPT_PROMPTS:
            self._encoded.popitem(last=False)
        vars(pipeline).update(dict.fromkeys(text_encoders(pipeline)))
        return self._encoded[key]


class ModularSession:
    """One prompt, and its image where it has one, at one size (see `models.backend.Session`).

    The state that the blocks prepare is batch-shaped, so it is made once for each batch size and kept.
    """

    @torch.inference_mode()
    def __init__(
        self,
        pipeline: ModularPipeline,
        stages: Stages,
        encoded: PipelineState,
        size: tuple[int, int],
        diffusion: Diffusion | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._diffusion = diffusion
        self._stages = stages
        self._size = size
        self._encoded = encoded
        self._prepared: dict[int, PipelineState] = {}
        self._loop_inputs: dict[int, dict[str, Any]] = {}
        # One step goes from 1 to 0; some families would divide by nothing there.
        self._schedules: dict[int, tuple[float, ...]] = {1: (1.0, 0.0)}
        latents = self._prepare(1).values["latents"]
        self.latent_shape: tuple[int, ...] = tuple(latents.shape[1:])
        self._dtype, self._device = latents.dtype, latents.device
        self._time_unit = pipeline.scheduler.config.num_train_timesteps
        self.forwards_per_nfe: int = pipeline.guider.num_conditions if guides_by_passes(pipeline) else 1

    @torch.inference_mode()
    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """See `models.backend.Session.velocity`."""
        self._check(x)
        if t.shape != x.shape[:1]:
            raise ValueError(f"times have shape {tuple(t.shape)}, one for each of {len(x)} latents is needed")
        times = t.to(self._device, torch.float32)
        if self._diffusion:
            return self._diffusion.velocity(self._predict, x.to(self._device, torch.float32), times)
        return self._predict(x, times * self._time_unit)

    def _predict(self, x: Tensor, times: Tensor) -> Tensor:
        """What the network predicts for latents [b, ...] at its own times [b], guidance included; float32."""
        self._prepare(len(x))
        # A fresh record for each call, because the blocks write into the one they are given and into its
        # dictionaries. A cache there of what does not change would save a little, but the first call rounds
        # otherwise than those after it: a search that goes on after a loss would not end in the same bytes.
        inputs = {
            name: dict(v) if isinstance(v, dict) else v for name, v in self._loop_inputs[len(x)].items()
        }
        state = BlockState(**inputs | {"latents": x.to(self._device, self._dtype)})
        for block in self._stages.denoisers:
            _, state = block(self._pipeline, state, i=0, t=times)
        return cast("Tensor", state["noise_pred"]).float()

    @torch.inference_mode()
    def schedule(self, steps: int) -> tuple[float, ...]:
        """See `models.backend.Session.schedule`: the family's own blocks set it, by size where they shift.

        A diffusion's are even: its own pipeline does not begin in noise alone, at t = 1.
        """
        if self._diffusion:
            return linear(steps)
        if steps not in self._schedules:
            self._run_prepare(1, num_inference_steps=steps)
            self._schedules[steps] = own_times(self._pipeline.scheduler.sigmas.tolist())
        return self._schedules[steps]

    def decode(self, x0: Tensor) -> Tensor:
        """See `models.backend.Session.decode`."""
        self._check(x0)
        with torch.inference_mode():
            state = copy_state(self._prepare(len(x0)))
        state.values |= {"latents": x0.to(self._device, self._dtype), "output_type": "pt"}
        images = run(self._stages.decode, self._pipeline, state).values["images"]
        if images.shape != (len(x0), 3, *self._size):
            raise RuntimeError(
                f"the decoder drew {tuple(images.shape)}, asked were {len(x0)} of {self._size}"
            )
        return images.float().contiguous()

    def _check(self, latents: Tensor) -> None:
        if latents.shape[1:] != self.latent_shape or not len(latents):
            raise ValueError(f"latents have shape {tuple(latents.shape)}, needed is [b, {self.latent_shape}]")

    def _prepare(self, batch: int) -> PipelineState:
        """State of the pipeline before its loop, for `batch` latents of this prompt."""
        if batch not in self._prepared:
            state = self._run_prepare(batch)
            self._loop_inputs[batch] = first_step_inputs(self._stages.loop, self._pipeline, state)
            self._prepared[batch] = state
        return self._prepared[batch]

    def _run_prepare(self, batch: int, **given: object) -> PipelineState:
        """The blocks between encoders and loop; they set the scheduler's times too."""
        state = copy_state(self._encoded)
        # The blocks draw initial latents, which the search replaces: a generator of their own keeps them
        # from moving the global one.
        generator = torch.Generator().manual_seed(0)
        state.values |= {"num_images_per_prompt": batch, "generator": generator, **given}
        return run(self._stages.prepare, self._pipeline, state)


WAYS: Mapping[TakesImage, tuple[bool, ...]] = MappingProxyType(
    {"none": (False,), "optional": (False, True), "required": (True,)}
)
"""Whether there is an image, in each way that a model goes."""


def open_pipeline(source: str | Path, with_image: bool = False) -> ModularPipeline:  # noqa: FBT001, FBT002 -- a fact
    """Read a repository's index and choose its modular pipeline; loads no weights.

    Args:
        source: the repository's folder.
        with_image: whether it is asked to go by an image, beside the prompt.

    Raises:
        ModelLoadError: nothing there that diffusers can open, or no pipeline we can drive this way.
    """
    if not Path(source).is_dir():
        raise ModelLoadError(f"no model at {source}: there is no such folder")
    # Which ways there are depends on the family, which only opening tells.
    family = type(opened(source, None)).__name__
    if reason := reason_against(family):
        raise ModelLoadError(f"{source}: {family} is not supported: {reason}")
    ways = SUPPORTED[family]
    workflow = ways.image if with_image else ways.text
    if workflow is None:
        takes = (
            "takes no image: leave `image` out" if with_image else 'needs an image: write image = "required"'
        )
        raise ModelLoadError(f"{source}: {family} {takes} where it is catalogued")
    return opened(source, workflow or None)


def opened(source: str | Path, workflow: str | None) -> ModularPipeline:
    """Open a repository for one workflow; None: with all the blocks of its family."""
    try:
        with warnings.catch_warnings():
            # Looking the family up makes diffusers import all its pipelines, one of which uses torch.jit.
            warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
            pipeline = opener(source)(str(source), workflow=workflow, local_files_only=True)
    except Exception as error:  # diffusers raises whatever its parts raise
        raise ModelLoadError(f"{source} is no repository that diffusers can open: {error}") from error
    return cast("ModularPipeline", pipeline)


def opener(source: str | Path) -> Callable[..., object]:
    """What makes the modular pipeline of a repository's family."""
    index = Path(source, "model_index.json")
    named = json.loads(index.read_text()).get("_class_name") if index.is_file() else None
    if named is None or named not in UNMAPPED:
        return ModularPipeline.from_pretrained
    family = getattr(diffusers, UNMAPPED[named])
    return lambda folder, **options: family(pretrained_model_name_or_path=folder, **options)


def refuse_inputs(pipeline: ModularPipeline, source: str | Path, inputs: Mapping[str, Any]) -> None:
    """Refuse inputs that the family's blocks do not take."""
    known = declared_defaults(pipeline.blocks).keys() - GIVEN
    unknown = inputs.keys() - known
    if unknown:
        raise ModelLoadError(
            f"{source}: {type(pipeline).__name__} takes no input {', '.join(sorted(unknown))}; "
            f"it takes {', '.join(sorted(known))}"
        )


def refuse_changing_guidance(pipeline: ModularPipeline, source: str | Path) -> None:
    """Refuse guidance by more than latent and time: a velocity field has no steps and no memory."""
    if not guides_by_passes(pipeline):
        return
    guider = pipeline.guider
    if type(guider) is not ClassifierFreeGuidance:
        raise ModelLoadError(
            f"{source}: its guider is a {type(guider).__name__}; supported is ClassifierFreeGuidance"
        )
    start, stop = guider.config["start"], guider.config["stop"]
    if (start, stop) != (0.0, 1.0):
        raise ModelLoadError(
            f"{source}: its guider works from {start} to {stop} of the steps; supported is 0.0 to 1.0"
        )


def refuse_other_predictions(pipeline: ModularPipeline, source: str | Path) -> None:
    """Refuse diffusions that predict what we cannot read, and latent-consistency models.

    These are given their guidance as an embedding, and their own steps add noise: no ODE to hold them to.
    """
    if getattr(denoiser(pipeline).config, "time_cond_proj_dim", None) is not None:
        raise ModelLoadError(f"{source}: it is a latent-consistency model, which is not supported")
    predicts = pipeline.scheduler.config.get("prediction_type", PREDICTIONS[0])
    if predicts not in PREDICTIONS:
        raise ModelLoadError(f"{source}: it predicts '{predicts}'; supported are {', '.join(PREDICTIONS)}")


def diffusion_of(pipeline: ModularPipeline) -> Diffusion | None:
    """The diffusion that a pipeline's network predicts along; None: it predicts a flow's velocity."""
    if not hasattr(pipeline.scheduler, "alphas_cumprod"):
        return None
    return Diffusion.of(pipeline.scheduler)


def guides_by_passes(pipeline: ModularPipeline) -> bool:
    """Whether the family guides by a guider, that is by further forward passes of its network."""
    return "guider" in pipeline.component_names


def guider_at(guider: ClassifierFreeGuidance, scale: float | None) -> ClassifierFreeGuidance:
    """A guider like this one, at another scale; None leaves the scale, and whether it guides at all.

    Raises:
        ValueError: a scale that would lead away from the prompt.
    """
    guider = copy(guider)
    off = 0.0 if guider.use_original_formulation else 1.0
    if scale is not None and scale < off:
        raise ValueError(f"guidance_scale is {scale}: this model takes {off} (no guidance) and above")
    if scale is not None:
        guider.guidance_scale = scale
        guider.enable()
    return guider


def options_of(
    name: str, *, dtype: torch.dtype, device: torch.device, quantisation: str, offload: str
) -> dict[str, Any]:
    """What `from_pretrained` is told of a network: its type, and where its weights are read to.

    The transformer under a quantisation is read as that wants it: its layers shrink before they move.
    """
    if name in DENOISERS and quantisation != "none":
        return {"dtype": dtype, **loading_options(quantisation, dtype, device)}
    return {"dtype": dtype, "device_map": {"": read_to(name, device, offload)}}


def load_components(
    pipeline: ModularPipeline, source: str | Path, options: Callable[[str], dict[str, Any]]
) -> None:
    """Load every component of a pipeline, or say which one could not be and why.

    `ModularPipeline.load_components` only logs a component that fails; a worker must not start without it.
    """
    networks = expected_networks(pipeline)
    loaded: dict[str, Any] = {}
    for name in pipeline.pretrained_component_names:
        spec = pipeline.get_component_spec(name)
        try:
            loaded[name] = load_network(spec, options(name)) if name in networks else load_part(spec)
        except Exception as error:  # diffusers and transformers raise whatever their parts raise
            raise ModelLoadError(f"{source}: {name} could not be loaded: {reason_of(error, spec)}") from error
    pipeline.update_components(**loaded)


def reason_of(error: Exception, spec: ComponentSpec) -> str:
    """Why a component could not be loaded, and what to do."""
    if isinstance(error, torch.OutOfMemoryError):
        return no_memory(error)
    folder = Path(str(spec.pretrained_model_name_or_path), spec.subfolder or "")
    return flaw(folder) or f"{error}"


def expected_networks(pipeline: ModularPipeline) -> Mapping[str, type[torch.nn.Module]]:
    """The components that have weights, by name, with the class that the family's blocks expect."""
    expected = {spec.name: spec.type_hint for spec in pipeline.blocks.expected_components}
    return {
        name: wanted
        for name in pipeline.pretrained_component_names
        if (wanted := expected[name]) and issubclass(wanted, torch.nn.Module)
    }


def refuse_wrong_components(pipeline: ModularPipeline, source: str | Path) -> None:
    """Refuse components that the index should not name, before any is read (see `refuse_component`)."""
    expected = {spec.name: spec.type_hint for spec in pipeline.blocks.expected_components}
    for name in pipeline.pretrained_component_names:
        refuse_component(pipeline.get_component_spec(name), expected[name] or object, source)


def no_memory(error: torch.OutOfMemoryError) -> str:
    """Say that the device has no room for the weights, and what to do."""
    [first, *_] = str(error).splitlines() or ["out of memory"]
    return (
        f"the device has no room for it ({first}): set dtype = 'bfloat16', quantisation or offload in the "
        "catalogue, or choose another device"
    )


@contextmanager
def told_of_memory(source: str | Path, device: torch.device) -> Iterator[None]:
    """Say what to do where networks that were read find no room on the device."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelLoadError(f"{source} cannot be moved to {device}: {no_memory(error)}") from error


def load_network(spec: ComponentSpec, options: Mapping[str, Any]) -> torch.nn.Module:
    """Load a component that has weights: safetensors only, never pickle, and all of them.

    The libraries fill weights that a file lacks with random numbers and a log line.

    Raises:
        ValueError: weights are missing.
        OSError: there is no safetensors file.
    """
    try:
        network, info = read_network(spec, options)
    except NotImplementedError:
        # Weights that a file lacks have no data that could go to the device: have them named.
        network, info = read_network(spec, {"dtype": options["dtype"]})
    if info["missing_keys"]:
        raise ValueError(f"its file lacks {', '.join(sorted(info['missing_keys']))}")
    return network.requires_grad_(requires_grad=False)


def read_network(spec: ComponentSpec, options: Mapping[str, Any]) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A component as the library reads it, and what the library says of its weights."""
    return cast("type[Any]", spec.type_hint).from_pretrained(
        spec.pretrained_model_name_or_path,
        subfolder=spec.subfolder,
        variant=spec.variant,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
        **options,
    )


def lay_out_for_speed(pipeline: ModularPipeline, device: torch.device) -> None:
    """Store the decoder's weights channels-last where it runs on a CPU, for the same pictures to 1e-5.

    It takes a fifth to a third less time there, on a GPU a fifth to a half more (docs/log.md, 2026-11-26).
    """
    if device.type != "cpu":
        return
    for module in pipeline.vae.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


def split(blocks: ModularPipelineBlocks) -> Stages:
    """Cut a family's blocks at its denoising loop.

    Raises:
        ValueError: there is not exactly one loop, or it does not end in the scheduler's step.
    """
    # Those of a workflow lie flat already.
    flat = blocks.get_execution_blocks().sub_blocks
    names, leaves = list(flat), list(flat.values())
    loops = [(i, leaf) for i, leaf in enumerate(leaves) if isinstance(leaf, LoopSequentialPipelineBlocks)]
    if len(loops) != 1:
        raise ValueError(f"its blocks {names} hold {len(loops)} denoising loops, not one")
    at, loop = loops[0]
    *denoisers, last = loop.sub_blocks
    if last != SCHEDULER_STEP:
        raise ValueError(f"its loop {list(loop.sub_blocks)} does not end in '{SCHEDULER_STEP}'")
    # Everything that does not depend on the batch size comes before the group named "denoise".
    group = names[at].split(".")[0]
    first = next(i for i, name in enumerate(names) if name.split(".")[0] == group)
    return Stages(
        encode=tuple(leaves[:first]),
        prepare=tuple(leaves[first:at]),
        loop=loop,
        denoisers=tuple(loop.sub_blocks[name] for name in denoisers),
        decode=tuple(differentiable(leaf) for leaf in leaves[at + 1 :]),
    )


def own_times(sigmas: list[float]) -> tuple[float, ...]:
    """The times of a scheduler, which rounds to float32; even ones, not rounded, where it shifts nothing."""
    even = linear(len(sigmas) - 1)
    unshifted = all(abs(own - time) < ROUNDING for own, time in zip(sigmas, even, strict=True))
    return even if unshifted else tuple(sigmas)


class AtFirstStepError(Exception):
    """Carries out of a family's loop what it hands to its first step."""

    def __init__(self, state: BlockState) -> None:
        super().__init__()
        self.inputs = vars(state)


def first_step_inputs(
    loop: LoopSequentialPipelineBlocks, pipeline: ModularPipeline, state: PipelineState
) -> dict[str, Any]:
    """What the family's own loop hands to its first step: its inputs, and what it adds before it begins."""

    def leave(_: ModularPipeline, entered: BlockState, **_step: object) -> None:
        raise AtFirstStepError(entered)

    probe = copy(loop)
    probe.set_progress_bar_config(disable=True)
    vars(probe)["loop_step"] = leave
    try:
        probe(pipeline, state)
    except AtFirstStepError as reached:
        return reached.inputs
    raise RuntimeError(f"{type(loop).__name__} ended without a step")


def differentiable(block: ModularPipelineBlocks) -> Block:
    """The block without the `torch.no_grad` that diffusers puts around each: the caller has the say."""
    call = type(block).__call__
    return partial(getattr(call, "__wrapped__", call), block)


def declared_defaults(blocks: ModularPipelineBlocks) -> dict[str, Any]:
    """Every input that the blocks declare, at its default, as `ModularPipeline.__call__` fills them in."""
    return {param.name: param.default for param in blocks.inputs if param.name}


def run(blocks: tuple[Block, ...], pipeline: ModularPipeline, state: PipelineState) -> PipelineState:
    """Run blocks one after the other; the state passed in is changed and returned."""
    for block in blocks:
        _, state = block(pipeline, state)
    return state


def copy_state(state: PipelineState) -> PipelineState:
    """Copy the record but not the tensors in it: blocks replace values, they do not write into them."""
    groups = {kind: list(names) for kind, names in state.kwargs_mapping.items()}
    return PipelineState(values=dict(state.values), kwargs_mapping=groups)
