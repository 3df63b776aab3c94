"""The captions of the hard set by number, each once."""

from functools import cache

from models.shapes.world import hard_prompts

DRAWN = 800
"""Of the hard set; training sees no caption of two or three groups among the first 600."""
CALIBRATION = range(300, 360)
"""Those that `rollover calibrate` takes: no table of a benchmark is of them."""


@cache
def numbered() -> tuple[str, ...]:
    """All of them. A caption drawn again keeps its first number."""
    return tuple(dict.fromkeys(hard_prompts(DRAWN)))


def captions(numbers: range) -> list[str]:
    """Those of some numbers; ValueError where there are not so many."""
    known = numbered()
    if numbers.stop > len(known):
        raise ValueError(f"the hard set has {len(known)} captions")
    return [known[number] for number in numbers]
