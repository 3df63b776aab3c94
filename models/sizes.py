"""Sizes as people read them."""

STEPS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def readable(size: float) -> str:
    """A number of bytes with its unit, decimal as disks and GPUs are sold: `57.7 GB`."""
    return next((f"{size / step:.1f} {unit}" for step, unit in STEPS if size >= step), f"{size:.0f} bytes")
