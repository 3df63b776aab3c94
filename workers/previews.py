"""The picture of each level: that of the candidate the chain goes on from, which need not be the newest."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from sampling.events import Candidate, Level, Round
from sampling.state import State
from workers.pictures import Pixels, pixels


@dataclass(frozen=True)
class Seen:
    """The picture of a candidate that a level may yet end with."""

    chain: int
    level: int
    nfe: int
    reward: float
    image: Tensor


class LevelPictures:
    """Remembers each chain's best candidate at its present level: the only older one a level can end with.

    Args:
        seen: what an earlier execution remembered.
    """

    def __init__(self, seen: Iterable[Seen] = ()) -> None:
        self._best = {(each.chain, each.level): each for each in seen}

    @property
    def seen(self) -> tuple[Seen, ...]:
        """What is remembered now."""
        return tuple(self._best.values())

    def of(self, around: Round[State]) -> list[Pixels | None]:
        """The picture of each level in a round; None where the candidate is not at hand."""
        fresh = [seen for candidate in around.candidates if (seen := _seen(candidate))]
        for each in fresh:
            place = (each.chain, each.level)
            if place not in self._best or each.reward > self._best[place].reward:
                self._best[place] = each
        shown = [self._picture(level, fresh) for level in around.levels]
        # A chain that drew nothing now has ended: runs that report no level must not pile up here.
        drawing = {candidate.chain for candidate in around.candidates}
        if drawing:
            self._best = {place: each for place, each in self._best.items() if place[0] in drawing}
        return shown

    def _picture(self, level: Level, fresh: list[Seen]) -> Pixels | None:
        remembered = [*fresh, *self._best.values()]
        found = next((each.image for each in remembered if each.nfe == level.candidate), None)
        self._best.pop((level.chain, level.level), None)
        return None if found is None else pixels(found)


def _seen(candidate: Candidate) -> Seen | None:
    if candidate.image is None:
        return None
    return Seen(candidate.chain, candidate.level, candidate.nfe, candidate.reward, candidate.image)
