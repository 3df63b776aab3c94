"""The devices of this machine."""

import torch

from models.backend import ModelLoadError


def usable(name: str, setting: str = "ROLLOVER_DEVICE, or `device` in the catalogue") -> torch.device:
    """The device of that name; `auto` is the first GPU, else the CPU.

    Args:
        name: of the device.
        setting: what names it, for the refusal.

    Raises:
        ModelLoadError: there is no such device, with those that there are.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    gpus = torch.cuda.device_count()
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts where it was built without CUDA
        names = ", ".join(["cpu", *(f"cuda:{number}" for number in range(gpus))])
        raise ModelLoadError(
            f"there is no device '{name}' for this torch ({torch.__version__}); there are {names}. "
            f"Set {setting}"
        ) from error
    return device
