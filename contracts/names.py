"""Closed vocabularies and the nearest known name to an unknown one."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Return up to `limit` known names that look like `name`, most alike first.

    The comparison ignores case and treats `-` and blanks as `_`, the slips a client makes most.
    """
    by_folded = {folded(candidate): candidate for candidate in known}
    return [by_folded[match] for match in get_close_matches(folded(name), by_folded, n=limit, cutoff=0.6)]


def folded(name: str) -> str:
    """Reduce a name to what matters when it is compared with another."""
    return name[:100].strip().lower().replace("-", "_").replace(" ", "_")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` (with its leading blank), or an empty string when nothing is near."""
    matches = nearest(name, known, limit=1)
    return f" Did you mean '{matches[0]}'?" if matches else ""
