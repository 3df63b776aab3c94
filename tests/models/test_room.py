"""Where a model fits, and the least costly way to make it."""

import pytest

from models.estimate import in_host
from models.room import Model, Room

PARAMETERS = {"transformer": 12e9, "text_encoder": 5e9, "vae": 0.1e9}
"""24, 10 and .2 GB in bfloat16."""
MODEL = Model(PARAMETERS, rewards=0, picture=10**9)


def room(device: float, host: float | None = 64) -> Room:
    """So many gigabytes."""
    return Room(round(device * 1e9), None if host is None else round(host * 1e9))


@pytest.mark.parametrize(
    ("device", "advice"),
    [
        (36, "dtype = 'bfloat16' would"),
        (34.5, "dtype = 'bfloat16', offload = 'text_encoders' would"),
        (24, "dtype = 'bfloat16', quantisation = 'fp8' would"),
        (22.5, "dtype = 'bfloat16', quantisation = 'fp8', offload = 'text_encoders' would"),
        (20, "dtype = 'bfloat16', quantisation = 'nf4' would"),
        (14, "dtype = 'bfloat16', quantisation = 'fp8', offload = 'model' would"),
        (12, "dtype = 'bfloat16', quantisation = 'nf4', offload = 'model' would"),
        (5, "dtype = 'bfloat16', offload = 'group' would"),
        (2, "no quantisation or offload makes it fit"),
    ],
)
def test_the_fastest_way_that_fits_is_advised(device: float, advice: str) -> None:
    assert room(device).advice(MODEL).startswith(advice)


@pytest.mark.parametrize(
    ("device", "advice"),
    [(36, "dtype = 'bfloat16' would"), (24, "quantisation = 'fp8' would"), (20, "no quantisation")],
)
def test_on_the_cpu_there_is_neither_offload_nor_4_bits(device: float, advice: str) -> None:
    assert advice in room(device, None).advice(MODEL)


def test_offload_needs_memory_of_the_cpu() -> None:
    small = room(26, host=20)
    assert small.lacks(MODEL, "bfloat16", "none", "model") == (
        "of its weights 34.0 GB lie in the CPU's memory, or pass through it, and 20.0 GB are free there"
    )
    assert small.lacks(MODEL, "bfloat16", "nf4", "none") is None
    # Weights in 8 bits are read in 16 before they shrink.
    assert small.advice(MODEL) == "dtype = 'bfloat16', quantisation = 'nf4' would make it fit"


def test_rewards_lie_beside_the_model() -> None:
    beside = Model(PARAMETERS, rewards=2 * 10**9, picture=10**9)
    assert room(36).lacks(MODEL, "bfloat16", "none", "none") is None
    said = room(36).lacks(beside, "bfloat16", "none", "none")
    assert said == "it takes about 37.2 GB and 36.0 GB are free"


@pytest.mark.parametrize(
    ("quantisation", "offload", "size"),
    [
        ("none", "none", 0),
        ("nf4", "none", 0),
        ("fp8", "none", 24e9),
        ("none", "text_encoders", 10e9),
        ("fp8", "text_encoders", 34e9),
        ("none", "model", 34e9),
        ("nf4", "group", 16.75e9),
    ],
)
def test_what_is_offloaded_or_shrinks_passes_through_the_cpus_memory(
    quantisation: str, offload: str, size: float
) -> None:
    assert in_host(PARAMETERS, "bfloat16", quantisation, offload) == size
    unet = {name.replace("transformer", "unet"): count for name, count in PARAMETERS.items()}
    assert in_host(unet, "bfloat16", quantisation, offload) == size
