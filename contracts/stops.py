"""Why a search stops, and what that says of the NFE that it leaves unspent."""

from typing import Literal

from contracts.requests import Budget

StopReason = Literal[
    "budget", "finished", "target_reward", "patience", "seconds", "canceled", "deadline", "error"
]
ByLimit = Literal["target_reward", "patience", "seconds", "canceled", "deadline", "error"]
"""Reasons for which a search is stopped that would have gone on."""

IN_WORDS: dict[ByLimit, str] = {
    "target_reward": "the best reward reached the target of {target_reward:g}",
    "patience": "the best reward did not grow for {patience} NFE",
    "seconds": "the {seconds:g} s of the budget were over",
    "canceled": "the job was canceled",
    "deadline": "the job ran as long as the server allows any",
    "error": "the job failed",
}


def why_unspent(stop: ByLimit, budget: Budget) -> str:
    """Say why a search that was stopped left NFE of its budget, in plain words."""
    return IN_WORDS[stop].format_map(budget.model_dump())
