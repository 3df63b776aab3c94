"""The picture of each level: that of the candidate the chain goes on from, which need not be the newest."""

from dataclasses import dataclass, field

from sampling.events import Candidate, Level, Round
from sampling.state import State
from workers.pictures import Pixels, pixels


@dataclass
class LevelPictures:
    """Remembers each chain's best candidate at its present level: the only older one a level can end with."""

    _best: dict[tuple[int, int], Candidate] = field(default_factory=dict[tuple[int, int], Candidate])

    def of(self, around: Round[State]) -> list[Pixels | None]:
        """The picture of each level in a round; None where the candidate is not at hand."""
        for candidate in around.candidates:
            place = (candidate.chain, candidate.level)
            if place not in self._best or candidate.reward > self._best[place].reward:
                self._best[place] = candidate
        return [self._picture(level, around) for level in around.levels]

    def _picture(self, level: Level, around: Round[State]) -> Pixels | None:
        remembered = [*around.candidates, *self._best.values()]
        found = next((c.image for c in remembered if c.nfe == level.candidate), None)
        self._best.pop((level.chain, level.level), None)
        return None if found is None else pixels(found)
