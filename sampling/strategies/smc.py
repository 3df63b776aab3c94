"""``smc``: Feynman-Kac steering (arXiv 2501.06848), sequential Monte Carlo over the levels of the grid.

Particles walk down side by side. At each level a potential of the one-step reward weighs them, and where the
weights have become uneven they are resampled: good particles are copied, bad ones dropped. The product of a
particle's potentials is exp(lambda reward) at the end, so the weighted particles sample the model's
distribution tilted by that.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from sampling.events import Candidate, Round
from sampling.ledger import Ledger
from sampling.problem import Problem
from sampling.sampler import Sampler
from sampling.state import Address, decide, draw_noise, evaluate, left_with, record
from sampling.strategies import finish, moves
from sampling.strategies.finish import FinishState
from sampling.strategies.resampling import effective_size, log_mean, normalized, systematic
from sampling.strategy import check_budget, check_least, even_shares

# (what the path remembers, this level's reward) -> (log potential / lambda, what it remembers now)
_POTENTIALS: dict[str, Callable[[float, float], tuple[float, float]]] = {
    "difference": lambda last, reward: (reward - last, reward),
    "max": lambda peak, reward: (max(peak, reward), max(peak, reward)),
    "sum": lambda total, reward: (total + reward, total + reward),
    "reward": lambda _, reward: (reward, reward),
}


@dataclass(frozen=True, slots=True, eq=False)
class Particle:
    """One path through the levels.

    Args:
        candidate: where it stands.
        memory: what its potential remembers of the path: the last reward, their maximum or their sum.
        log_product: of all potentials along the path.
        log_weight: potentials since the last resampling times the mean weight then, so that the mean weight
            of all particles estimates the mean of the product of the potentials without bias.
    """

    candidate: Candidate
    memory: float
    log_product: float
    log_weight: float


@dataclass(frozen=True, kw_only=True, eq=False)
class SmcState(FinishState):
    """Progress of a search.

    Args:
        level: the next to be drawn at; the sampler's ``steps`` when all are done with.
        particles: those that go on from the level before, copies among them.
    """

    level: int = 0
    particles: tuple[Particle, ...] = ()


@dataclass(frozen=True)
class Smc:
    """As many particles as the budget carries down the grid, the best prediction met, and a finish.

    Every level holds floor((budget - finish) / steps) particles; the remainder gives the first levels one
    more each, so the budget is spent exactly. Going from one number to the other resamples.

    Args:
        potential: of the rewards on a particle's path: "difference" of the last two, their "max", their
            "sum", or the "reward" of this level alone. At the first level each is the reward itself.
        inverse_temperature: lambda, finite and at least 0; 0 is plain sampling.
        ess_threshold: resample where the effective sample size falls below this share of the particles; in
            [0, 1]: 0 never resamples, 1 does wherever weights differ.
        finish_steps: evaluations of the finish, at least 0, reserved when the budget is laid out.
    """

    name: ClassVar[str] = "smc"

    potential: Literal["difference", "max", "sum", "reward"] = "max"
    inverse_temperature: float = 10.0
    ess_threshold: float = 0.5
    finish_steps: int = 4

    def __post_init__(self) -> None:
        if self.potential not in _POTENTIALS:
            raise ValueError(f"potential is one of {', '.join(_POTENTIALS)}, and was {self.potential!r}")
        if not 0 <= self.inverse_temperature < math.inf:
            raise ValueError(
                f"inverse_temperature is finite and at least 0, and was {self.inverse_temperature}"
            )
        if not 0 <= self.ess_threshold <= 1:
            raise ValueError(f"ess_threshold lies in [0, 1], and was {self.ess_threshold}")
        check_least(self, {"finish_steps": 0})

    def minimum_nfe(self, sampler: Sampler) -> int:
        """One particle at each level, and the finish."""
        return sampler.steps + self.finish_steps

    def sizes(self, problem: Problem) -> tuple[int, ...]:
        """How many particles each level holds."""
        return even_shares(problem.nfe - self.finish_steps, problem.sampler.steps)

    def init(self, problem: Problem) -> Round[SmcState]:
        """The initial noises."""
        check_budget(self, problem)
        return self.step(problem, SmcState(ledger=Ledger(problem.nfe)))

    def step(self, problem: Problem, state: SmcState) -> Round[SmcState]:
        """All particles of the next level, or a step of the finish."""
        if state.level == problem.sampler.steps:
            return finish.advance(problem, state, self.finish_steps)
        sizes, level, best_before = self.sizes(problem), state.level, state.best_reward
        last = level == problem.sampler.steps - 1
        state, scored = _draw(problem, state, sizes[level])
        particles = self._weigh(state, scored, last)
        if not last:
            particles = self._resample(particles, sizes[level + 1], problem.noise.uniform(0, level))
        survivors = [particle.candidate for particle in particles]
        candidates = decide(scored, {survivor.nfe for survivor in survivors}, best_before)
        best = max(survivors, key=lambda survivor: survivor.reward)
        left = left_with(0, best, candidates[-1].best_reward, len(candidates))
        state = replace(
            record(problem, state, candidates),
            level=level + 1,
            particles=tuple(particles),
            levels=(*state.levels, left),
        )
        return Round(state, candidates, (left,))

    def finished(self, problem: Problem, state: SmcState) -> bool:
        """When all levels and the finish are done with."""
        return state.level == problem.sampler.steps and finish.over(state, self.finish_steps)

    def unspent(self, problem: Problem, state: SmcState) -> None:
        """Nothing is left."""

    def _weigh(self, state: SmcState, scored: Sequence[Candidate], last: bool) -> list[Particle]:  # noqa: FBT001 (a fact)
        """The particles moved to their new candidates, with the potentials of these."""
        potential, scale = _POTENTIALS[self.potential], self.inverse_temperature
        start = -math.inf if self.potential == "max" else 0.0
        weighed: list[Particle] = []
        for i, candidate in enumerate(scored):
            before = state.particles[i] if state.particles else Particle(candidate, start, 0.0, 0.0)
            value, memory = potential(before.memory, candidate.reward)
            # The last potential makes the product exp(lambda reward), whatever the others were.
            log_potential = scale * candidate.reward - before.log_product if last else scale * value
            product, weight = before.log_product + log_potential, before.log_weight + log_potential
            weighed.append(Particle(candidate, memory, product, weight))
        return weighed

    def _resample(self, particles: Sequence[Particle], count: int, u: float) -> Sequence[Particle]:
        """``count`` of them drawn by weight; all as they are where weights are even and the number fits."""
        log_weights = [particle.log_weight for particle in particles]
        weights = normalized(log_weights)
        even = effective_size(weights) >= self.ess_threshold * len(particles)
        if even and count == len(particles):
            return particles
        mean = log_mean(log_weights)
        return [replace(particles[i], log_weight=mean) for i in systematic(weights, count, u)]


def _draw(problem: Problem, state: SmcState, size: int) -> tuple[SmcState, list[Candidate]]:
    """One child of every particle; at the first level ``size`` initial noises."""
    level, times = state.level, problem.sampler.times
    parents = [particle.candidate for particle in state.particles]
    if not parents:
        places = [(slot, 0, 0) for slot in range(size)]
        addresses = [Address(chain=slot, level=0, draw=0, t=1.0, t_next=1.0) for slot in range(size)]
        return evaluate(problem, state, draw_noise(problem, places), addresses)
    addresses = [
        Address(chain=slot, level=level, draw=0, t=times[level - 1], t_next=times[level], parent=parent.nfe)
        for slot, parent in enumerate(parents)
    ]
    return evaluate(problem, state, moves.children(problem, parents, addresses), addresses)
