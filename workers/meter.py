"""The model and the rewards of one search, with the time each takes and their errors by their names."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from models.backend import Session
from models.rewards.composite import Composite
from models.rewards.protocol import RewardValueError
from sampling.guidance import differentiable
from sampling.problem import Scores
from workers.failures import JobFailedError, ModelFailedError, RewardFailedError


@dataclass
class Clock:
    """Seconds by name. `synchronize` waits for the device, whose work would count where it is awaited."""

    synchronize: Callable[[], None]
    seconds: dict[str, float] = field(default_factory=dict[str, float])

    @contextmanager
    def time(self, name: str, failure: type[JobFailedError]) -> Iterator[None]:
        """Add the time of the block to `name`; whatever it raises becomes `failure`, unless it has a name."""
        start = time.perf_counter()
        try:
            yield
            self.synchronize()
        except JobFailedError:
            raise
        except Exception as error:
            raise failure(name) from error
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def device_wait(device: torch.device) -> Callable[[], None]:
    """What waits until a device has done its work; nothing to wait for on the CPU."""
    return partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None


Asking = Callable[[str | None], None]


def nobody(_name: str | None) -> None:
    """Tell no one which reward is asked."""


@dataclass
class Metered:
    """A session and a reward as `sampling` wants them.

    Attributes:
        asking: told which reward is asked, and None once all have answered, or one has failed.
        stepped: told after each call of the model, and each verdict.
        going_on: called before a call of the model that is not the first of its round; may raise to leave it.
        rows: of the latest call: where memory ran out, it did so for so many.
        made: evaluations since the latest round, or since that was begun anew.
    """

    session: Session
    reward: Composite
    prompt: str
    clock: Clock
    asking: Asking = nobody
    stepped: Callable[[], None] = lambda: None
    going_on: Callable[[], None] = lambda: None
    rows: int = 0
    made: int = 0

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """See `sampling.prediction.Velocity`."""
        if self.made:
            self.going_on()
        self.rows = len(x)
        with self.clock.time("model", ModelFailedError):
            velocity = self.session.velocity(x, t)
        self.made += len(x)
        self.stepped()
        return velocity

    def score(self, x0: Tensor) -> Scores:
        """Decode predictions [b, *latent] and judge the pictures."""
        return self._judged(x0)[0]

    def slope(self, x0: Tensor) -> tuple[Scores, Tensor]:
        """See `sampling.problem.Slope`."""
        with differentiable(x0) as leaf:
            scores, total = self._judged(leaf)
            with self.clock.time("gradient", RewardFailedError):
                [gradient] = torch.autograd.grad(total.sum(), leaf)
                self._refuse_unless_finite(gradient)
        return scores, gradient

    def _refuse_unless_finite(self, gradient: Tensor) -> None:
        if not torch.isfinite(gradient).all():
            names = ", ".join(f"'{name}'" for name in self.reward.parts)
            raise RewardValueError(
                f"the gradient of reward {names} is not finite at a picture of this search: set "
                "sampler.reward_guidance to 0, or ask for another reward"
            )

    def _judged(self, x0: Tensor) -> tuple[Scores, Tensor]:
        """The verdict, and its rewards [b] as they were computed."""
        self.rows = len(x0)
        with self.clock.time("decode", ModelFailedError):
            images = self.session.decode(x0)
        try:
            with self.clock.time("reward", RewardFailedError):
                total = self.reward.evaluate(images, self.prompt, self.asking)
                parts = {name: scores.tolist() for name, scores in total.parts.items()}
                rewards: list[float] = total.scores.tolist()
        finally:
            self.asking(None)
        self.stepped()
        rows = [{name: values[row] for name, values in parts.items()} for row in range(len(rewards))]
        return Scores(rewards=rewards, parts=rows, images=images.detach()), total.scores
