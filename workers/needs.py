"""What the settings give to rewards that cannot be made from nothing."""

from typing import Any

from contracts.destinations import Destination
from contracts.settings import Settings
from outbound.posting import Poster
from workers.scoring import LONGEST, ScoringService


def reward_needs(settings: Settings) -> dict[str, dict[str, Any]]:
    """For each reward that is set up, by name, what it is made with beside its device."""
    needs: dict[str, dict[str, Any]] = {
        name: {"folder": folder} for name, folder in settings.reward_paths.items()
    }
    if settings.scoring:
        needs["http"] = {"send": scoring_service(settings.scoring, settings)}
    return needs


def scoring_service(target: Destination, settings: Settings) -> ScoringService:
    """The service, as the settings say."""
    poster = Poster(settings.reward_networks, settings.reward_timeout_seconds, longest=LONGEST)
    return ScoringService(target, poster, settings.reward_token)
