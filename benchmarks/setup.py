"""The bundled model behind `sampling`, without the service: what a benchmark searches with."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from benchmarks.ablations import ABLATIONS
from contracts.models import ENTRIES
from contracts.search import rbf_defaults
from models.backend import FlowBackend, Session
from models.registry import load_model, load_reward
from models.rewards.composite import Composite, Part
from models.rewards.protocol import Reward
from sampling.events import Candidate
from sampling.guidance import differentiable
from sampling.problem import Problem, Scores
from sampling.sampler import Sampler
from sampling.search import search
from sampling.state import State
from sampling.strategies import make_strategy
from sampling.strategy import Strategy
from workers.loading import source_of

SIZE = 64
HELD_OUT = "scene_exact"


@cache
def backend(device: str = "cpu") -> FlowBackend:
    """The model `shapes`, loaded once for each device."""
    return load_model(source_of("shapes", ENTRIES["shapes"]), device)


@cache
def reward(name: str, device: str = "cpu") -> Reward:
    """A reward, loaded once for each device."""
    return load_reward(name, device)


@dataclass(frozen=True)
class Task:
    """A prompt and the reward to search for it by; ``max_batch``: the most rows in a call."""

    session: Session
    steering: Composite
    prompt: str
    device: str = "cpu"
    max_batch: int | None = None

    @classmethod
    def of(cls, prompt: str, given: str = "scene_match", device: str = "cpu") -> "Task":
        """Encode the prompt."""
        session = backend(device).prepare(prompt, SIZE, SIZE, None)
        return cls(session, Composite({given: Part(reward(given, device))}), prompt, device)

    def score(self, x0: Tensor) -> Scores:
        """Decode predictions and judge the pictures."""
        return self._judged(x0)[0]

    def slope(self, x0: Tensor) -> tuple[Scores, Tensor]:
        """The same, with the gradient of each row's reward."""
        with differentiable(x0) as leaf:
            scores, rewards = self._judged(leaf)
            [gradient] = torch.autograd.grad(rewards.sum(), leaf)
        return scores, gradient

    def _judged(self, x0: Tensor) -> tuple[Scores, Tensor]:
        images = self.session.decode(x0)
        rewards = self.steering.evaluate(images, self.prompt).scores
        return Scores(rewards.tolist(), [{} for _ in range(len(images))], images.detach()), rewards

    def problem(self, nfe: int, seed: int, sampler: Sampler) -> Problem:
        """What `sampling.search` takes."""
        return Problem(
            velocity=self.session.velocity,
            score=self.score,
            slope=self.slope,
            shape=self.session.latent_shape,
            seed=seed,
            nfe=nfe,
            sampler=sampler,
            device=self.device,
            max_batch=self.max_batch,
            schedule=self.session.schedule,
        )

    def held_out(self, image: Tensor) -> float:
        """The held-out reward of one picture [3, h, w]."""
        return float(reward(HELD_OUT).score(image[None], self.prompt)[0])


@dataclass(frozen=True)
class Method:
    """A strategy or one of `ABLATIONS`, its parameters, and what the sampler is told beyond its defaults."""

    strategy: str
    params: dict[str, Any]
    sampler: dict[str, Any]

    def at(self, nfe: int) -> dict[str, Any]:
        """The parameters for a budget, with the service's own."""
        ours = self.walks_by_rbf and self.params.get("mode") != "upstream"
        return {**rbf_defaults(nfe, self.params), **self.params} if ours else self.params

    def made(self, nfe: int) -> Strategy[Any]:
        """The strategy itself for a budget."""
        if self.strategy in ABLATIONS:
            return ABLATIONS[self.strategy](**self.at(nfe))
        return make_strategy(self.strategy, self.at(nfe))

    @property
    def walks_by_rbf(self) -> bool:
        """Whether it is `rbf`, perhaps with something taken out."""
        return self.strategy == "rbf" or self.strategy in ABLATIONS

    @property
    def moves(self) -> Sampler:
        """The sampler itself."""
        return replace(Sampler(), **self.sampler)


def run(task: Task, method: Method, nfe: int, seed: int) -> State:
    """Search to the end and return the last state, with the picture of its best candidate."""
    return searched(task.problem(nfe, seed, method.moves), method)


def searched(problem: Problem, method: Method) -> State:
    """The same for a problem at hand."""
    with torch.inference_mode():
        *_, last = search(problem, method.made(problem.nfe))
    return last.state


def picture(candidate: Candidate) -> Tensor:
    """The candidate's picture [3, h, w]; within one run every candidate has it."""
    if candidate.image is None:
        raise ValueError(f"candidate {candidate.nfe} has no picture")
    return candidate.image
