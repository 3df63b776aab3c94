"""What a flow model must offer the search: a velocity at any latent and time, and a decoder to pictures."""

from typing import Protocol

from PIL.Image import Image
from torch import Tensor


class ModelLoadError(Exception):
    """A model repository is missing, incomplete, of the wrong kind, or unsafe to load."""


class Session(Protocol):
    """One prompt at one size, ready to be evaluated as often as the search asks.

    A session belongs to one thread. Its tensors live on the device of its backend.
    """

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent, without the batch dimension."""
        ...

    @property
    def forwards_per_nfe(self) -> int:
        """Forward passes of the network that the velocity of one latent costs: above 1 under guidance."""
        ...

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocity dx/dt = noise - data of the linear path x = (1 - t) data + t noise.

        Args:
            x: latents [b, *latent_shape], any float type.
            t: times [b] in [0, 1], 1 is noise; the rows may be at different times.

        Returns:
            [b, *latent_shape], float32.
        """
        ...

    def schedule(self, steps: int) -> tuple[float, ...]:
        """The steps + 1 times, from 1 down to 0, that the model's own pipeline visits in so many steps.

        A session of an installed package may lack this: its times are even.
        """
        ...

    def decode(self, x0: Tensor) -> Tensor:
        """Pictures [b, 3, height, width], float32 in [0, 1], of clean latents [b, *latent_shape].

        Gradients flow from the pictures to latents that require them.
        """
        ...


class FlowBackend(Protocol):
    """A loaded flow model."""

    def prepare(
        self,
        prompt: str,
        width: int,
        height: int,
        guidance_scale: float | None = None,
        image: Image | None = None,
    ) -> Session:
        """Encode a prompt once, for pictures of width x height pixels.

        Args:
            prompt: the text; may be empty.
            width: in pixels.
            height: in pixels.
            guidance_scale: None leaves the family's own default.
            image: what the prompt is about, RGB, of any size; None: a prompt alone.

        Raises:
            ValueError: a size that the model cannot draw; an image that it does not take, or none where it
                needs one.
        """
        ...
