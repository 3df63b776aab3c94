"""The bundled model and its rewards for many prompts at once: rows of one call may be of different prompts.

The service encodes one prompt for each search and batches within it; a table of thousands of short searches
would leave a GPU idle that way. Searches run on the CPU, and only the networks on the device.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from diffusers.modular_pipelines.modular_pipeline import BlockState, PipelineState
from torch import Tensor

from benchmarks.setup import HELD_OUT, SIZE, Method, backend, reward, searched
from benchmarks.together import Ask, Serve
from models.modular import ModularBackend, copy_state, first_step_inputs, run
from models.rewards.object_count import ObjectCount
from models.rewards.scene_match import SceneMatch
from models.shapes.detector import heat
from models.shapes.world import parse
from sampling.guidance import differentiable
from sampling.problem import Problem, Scores
from sampling.state import State

PRECISIONS = ("float32", "tf32", "bfloat16")
"""Of matrix products and convolutions; what goes between them stays float32."""
GRADES = {"scene_match": SceneMatch.grade, "object_count": ObjectCount.grade}
PIECE = 512
"""Rows of one call of the networks. On a GPU each has as many: cuDNN makes plans for every size anew."""

Grade = Callable[[Tensor], Tensor]


@contextmanager
def multiplying_in(precision: str, device: str) -> Iterator[None]:
    """Multiply in a precision of `PRECISIONS`; tf32 is a GPU's.

    Raises:
        ValueError: another one, or tf32 on a CPU.
    """
    possible = [each for each in PRECISIONS if each != "tf32" or device != "cpu"]
    if precision not in possible:
        raise ValueError(f"precision is one of {', '.join(possible)} on {device}, and was '{precision}'")
    matmul = torch.backends.cuda.matmul
    convolution: Any = torch.backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue] -- not declared
    before = matmul.fp32_precision, convolution.fp32_precision
    matmul.fp32_precision = convolution.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            yield
    finally:
        matmul.fp32_precision, convolution.fp32_precision = before


@dataclass(frozen=True)
class Conditions:
    """What the transformer is told beside latents and times: embeddings of p prompts, and places."""

    prompts: Tensor
    pooled: Tensor
    others: dict[str, Any]


class Crowd:
    """A model that draws for many prompts.

    Args:
        prompts: p of them; searches name theirs by its number.
        device: of the networks.
        precision: of `PRECISIONS`.

    Attributes:
        serve: what `together` answers calls with.
    """

    def __init__(self, prompts: Sequence[str], device: str = "cpu", precision: str = "float32") -> None:
        self.prompts, self.device, self.precision = prompts, device, precision
        self._pipeline = _model(device).pipeline
        [way] = _model(device).ways.values()
        self._stages = way.stages
        with torch.inference_mode():
            given = {"prompt": list(prompts), "width": SIZE, "height": SIZE}
            encoded = run(way.stages.encode, self._pipeline, PipelineState(values={**way.inputs, **given}))
            prepared = run(way.stages.prepare, self._pipeline, copy_state(encoded))
            others = first_step_inputs(way.stages.loop, self._pipeline, prepared)
        self._drawn = prepared
        self._conditions = Conditions(others.pop("prompt_embeds"), others.pop("pooled_prompt_embeds"), others)
        self._one = _model(device).prepare(prompts[0], SIZE, SIZE)
        self.serve: dict[str, Serve] = {
            "velocity": self._velocity,
            "look": self._look,
            "slope": self._slope,
        }

    def search(self, ask: Ask, which: int, given: str, method: Method, nfe: int, seed: int) -> State:
        """Search with one method for prompt number ``which`` by the reward ``given``."""
        grade = partial(GRADES[given], description=parse(self.prompts[which]))

        def score(x0: Tensor) -> Scores:
            seen, images = ask("look", x0)
            return _scores(grade(seen), images)

        def slope(x0: Tensor) -> tuple[Scores, Tensor]:
            rewards, images, gradient = ask("slope", x0, grade)
            return _scores(rewards, images), gradient

        problem = Problem(
            velocity=lambda x, t: ask("velocity", x, t, which),
            score=score,
            slope=slope,
            shape=self._one.latent_shape,
            seed=seed,
            nfe=nfe,
            sampler=method.moves,
            schedule=self._one.schedule,
        )
        return searched(problem, method)

    def held_out(self, image: Tensor, which: int) -> float:
        """The held-out reward of a picture [3, h, w]."""
        return float(reward(HELD_OUT).score(image[None].cpu(), self.prompts[which])[0])

    @torch.inference_mode()
    def _velocity(self, calls: Sequence[tuple[Tensor, Tensor, int]]) -> Sequence[Tensor]:
        latents, times, numbers = zip(*calls, strict=True)
        sizes = [len(x) for x in latents]
        which = torch.tensor(numbers).repeat_interleave(torch.tensor(sizes)).to(self.device)
        x, t = (torch.cat(parts).to(self.device) for parts in (latents, times))
        velocities = self._in_pieces(self._predict, x, t, which)
        return velocities.cpu().split(sizes)

    def _predict(self, x: Tensor, t: Tensor, which: Tensor) -> Tensor:
        conditions = {
            "prompt_embeds": self._conditions.prompts[which],
            "pooled_prompt_embeds": self._conditions.pooled[which],
        }
        state = BlockState(**self._conditions.others | conditions | {"latents": x})
        t = t * self._pipeline.scheduler.config.num_train_timesteps
        for block in self._stages.denoisers:
            _, state = block(self._pipeline, state, i=0, t=t)
        return cast("Tensor", state["noise_pred"]).float()

    @torch.inference_mode()
    def _look(self, calls: Sequence[tuple[Tensor]]) -> Sequence[tuple[Tensor, Tensor]]:
        seen, images = self._seen(torch.cat([x0 for (x0,) in calls]).to(self.device))
        sizes = [len(x0) for (x0,) in calls]
        # A search that keeps one picture is not to keep those of the whole batch.
        own = [part.clone() for part in images.split(sizes)]
        return [*zip(seen.cpu().split(sizes), own, strict=True)]

    def _slope(self, calls: Sequence[tuple[Tensor, Grade]]) -> Sequence[tuple[Tensor, Tensor, Tensor]]:
        sizes = [len(x0) for x0, _ in calls]
        joined = torch.cat([x0 for x0, _ in calls]).to(self.device)
        with multiplying_in(self.precision, self.device), differentiable(joined) as leaf:
            seen, images = self._seen(leaf)
            rewards = [grade(own) for own, (_, grade) in zip(seen.split(sizes), calls, strict=True)]
            [gradient] = torch.autograd.grad(torch.cat(rewards).sum(), leaf)
        images, gradient = images.detach().split(sizes), gradient.cpu().split(sizes)
        return [(r.detach().cpu(), i.clone(), g) for r, i, g in zip(rewards, images, gradient, strict=True)]

    def _seen(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """What the detector sees in the pictures of latents, [b, CLASSES, 8, 8], and the pictures."""
        images = self._in_pieces(self._decode, x0)
        return self._in_pieces(partial(heat, device=torch.device(self.device)), images), images

    def _decode(self, x0: Tensor) -> Tensor:
        state = copy_state(self._drawn)
        state.values |= {"latents": x0, "output_type": "pt"}
        return run(self._stages.decode, self._pipeline, state).values["images"].float()

    def _in_pieces(self, network: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Call a network with at most PIECE rows at a time; on a GPU with rows to spare, cut off after."""
        count = len(inputs[0])
        if self.device != "cpu":
            spare = torch.zeros(-count % PIECE, dtype=torch.long, device=self.device)
            inputs = tuple(torch.cat([whole, whole[spare]]) for whole in inputs)
        pieces = zip(*(whole.split(PIECE) for whole in inputs), strict=True)
        with multiplying_in(self.precision, self.device):
            return torch.cat([network(*piece) for piece in pieces])[:count]


def _model(device: str) -> ModularBackend:
    model = backend(device)
    assert isinstance(model, ModularBackend)  # noqa: S101 -- the bundled model's only kind
    return model


def _scores(rewards: Tensor, images: Tensor) -> Scores:
    return Scores(rewards.tolist(), [{} for _ in range(len(images))], images)
