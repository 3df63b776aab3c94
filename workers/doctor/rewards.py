"""Which rewards are set up, and what the others lack."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contracts.catalogue import RewardFacts
from contracts.rewards import BROKEN, REWARDS
from contracts.settings import Settings
from models.flaws import flaw
from models.weights import BrokenFileError, weights_of


@dataclass(frozen=True)
class RewardState:
    """A reward: whether jobs can name it, what it lacks else, and under which licence its weights are."""

    name: str
    ok: bool
    said: str
    licence: str


def states(settings: Settings) -> list[RewardState]:
    """Every reward, those of broken packages too."""
    known = [state(facts, settings) for facts in REWARDS.values()]
    return known + [RewardState(name, ok=False, said=why, licence="") for name, why in BROKEN.items()]


def state(facts: RewardFacts, settings: Settings) -> RewardState:
    """One reward."""
    lacks = lacking(facts, settings.reward_paths, settings.rewards)
    return RewardState(facts.name, lacks is None, lacks or "ready", facts.weights_licence or facts.licence)


def lacking(facts: RewardFacts, folders: Mapping[str, Path], set_up: frozenset[str]) -> str | None:
    """What a reward lacks; None: nothing that names and headers tell of."""
    if facts.setting is None:
        return None
    if facts.name not in set_up:
        return f"not set up: {remedy(facts)}"
    found = (flaw(part, weights=True) for part in parts(folders[facts.name])) if facts.name in folders else ()
    return next(filter(None, found), None)


def remedy(facts: RewardFacts) -> str:
    """How to set a reward up."""
    if facts.setting != "ROLLOVER_REWARD_PATHS":
        return f"set {facts.setting}"
    return f"set ROLLOVER_REWARD_PATHS={facts.name}=FOLDER, the folder with {facts.weights} (docs/rewards.md)"


def parts(folder: Path) -> list[Path]:
    """The folders of a reward's networks: its own, or those in it."""
    inner = [each for each in sorted(folder.glob("*/")) if (each / "config.json").is_file()]
    return [folder] if (folder / "config.json").is_file() or not inner else inner


def weights_in(folder: Path) -> int:
    """Bytes of a reward's weights, as they are stored."""
    try:
        found = [weights_of(part) for part in parts(folder)]
    except (BrokenFileError, OSError):
        return 0
    return sum(weights.size for weights in found if weights)
