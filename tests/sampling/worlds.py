"""Problems for the search tests: the oracle flow, a reward, and row-wise arithmetic throughout."""

from typing import Any

from sampling.events import Candidate, Round
from sampling.problem import Problem, Score
from sampling.sampler import Sampler
from sampling.search import search
from sampling.strategies import make_strategy
from tests.sampling.oracle import MIXTURE, Nearness, row_by_row

TARGET = Nearness((1.2, -0.8))


def problem(nfe: int, seed: int = 0, score: Score = TARGET, **settings: Any) -> Problem:  # noqa: ANN401
    """A problem on the mixture; settings go to Problem, those of a Sampler under ``sampler``."""
    sampler = Sampler(**settings.pop("sampler", {"steps": 5}))
    given = {"velocity": row_by_row(MIXTURE.velocity), "slope": TARGET.slope, "shape": (2,), **settings}
    return Problem(score=score, seed=seed, nfe=nfe, sampler=sampler, **given)


def rounds(name: str, parameters: dict[str, Any], made: Problem) -> list[Round[Any]]:
    """The whole search."""
    return list(search(made, make_strategy(name, parameters)))


def candidates(done: list[Round[Any]]) -> list[Candidate]:
    """All candidates in order."""
    return [candidate for one in done for candidate in one.candidates]


def facts(candidate: Candidate) -> tuple[object, ...]:
    """All of a candidate that can be compared with ==, bits of its tensors included, its picture left out."""
    c = candidate
    tensors = tuple(tuple(tensor.flatten().tolist()) for tensor in (c.x, c.prediction.x0, c.prediction.eps))
    place = (c.nfe, c.chain, c.level, c.draw, c.t, c.t_next, c.parent)
    return (*place, c.reward, c.best_reward, c.decision, c.quota, c.carried, tensors)
