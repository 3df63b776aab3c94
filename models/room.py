"""Whether a model fits where it shall run, and what its catalogue would have to say for that."""

from collections.abc import Mapping
from dataclasses import dataclass

from models.estimate import in_host, loaded, needed
from models.sizes import readable

PLANS = (
    ("none", "none"),
    ("none", "text_encoders"),
    ("fp8", "none"),
    ("fp8", "text_encoders"),
    ("nf4", "none"),
    ("nf4", "text_encoders"),
    ("none", "model"),
    ("fp8", "model"),
    ("nf4", "model"),
    ("none", "group"),
    ("fp8", "group"),
)
"""Quantisation and offload, from what costs least time to what takes least memory."""


@dataclass(frozen=True)
class Model:
    """What of a model decides how much memory it takes.

    Attributes:
        parameters: of each network.
        rewards: bytes of the weights of its rewards, on the same device.
        picture: bytes that one takes while it is made.
    """

    parameters: Mapping[str, float]
    rewards: int = 0
    picture: int = 0


@dataclass(frozen=True)
class Room:
    """Free memory.

    Attributes:
        device: bytes where the model computes.
        host: bytes of the CPU's, where that is a GPU; None: the CPU computes, and there is no offload.
    """

    device: int
    host: int | None = None

    def lacks(self, model: Model, dtype: str, quantisation: str, offload: str) -> str | None:
        """Where there is too little for a model so loaded, in words; None: nowhere."""
        offload = "none" if self.host is None else offload
        networks = loaded(model.parameters, dtype, quantisation)
        need = needed(networks, offload, model.rewards, model.picture)
        if need > self.device:
            return f"it takes about {readable(need)} and {readable(self.device)} are free"
        in_cpu = in_host(model.parameters, dtype, quantisation, offload)
        if self.host is not None and in_cpu > self.host:
            return (
                f"of its weights {readable(in_cpu)} lie in the CPU's memory, or pass through it, "
                f"and {readable(self.host)} are free there"
            )
        return None

    def advice(self, model: Model) -> str:
        """What makes a model fit, in bfloat16."""
        for quantisation, offload in PLANS:
            possible = self.host is not None or (offload == "none" and quantisation != "nf4")
            if possible and self.lacks(model, "bfloat16", quantisation, offload) is None:
                return said(quantisation, offload)
        return "no quantisation or offload makes it fit: choose another device, or a smaller model"


def said(quantisation: str, offload: str) -> str:
    """The fields of a catalogue that say so."""
    fields = {"quantisation": quantisation, "offload": offload}
    more = [f"{name} = '{value}'" for name, value in fields.items() if value != "none"]
    return f"{', '.join(['dtype = ' + repr('bfloat16'), *more])} would make it fit"
