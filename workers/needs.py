"""What the settings give to rewards that cannot be made from nothing."""

from typing import Any

from contracts.settings import Settings


def reward_needs(settings: Settings) -> dict[str, dict[str, Any]]:
    """For each reward that is set up, by name, what it is made with beside its device."""
    return {name: {"folder": folder} for name, folder in settings.reward_paths.items()}
