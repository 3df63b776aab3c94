"""A diffusion seen as a velocity, against a Gaussian, whose predictions and velocity have closed forms."""

import diffusers
import pytest
import torch
from torch import Tensor

from models.diffusion import PREDICTIONS, Diffusion

MEAN, SPREAD = 0.7, 0.4


def of(prediction: str, *, zero: bool = False) -> Diffusion:
    config = {"prediction_type": prediction, "rescale_betas_zero_snr": zero}
    return Diffusion.of(diffusers.DDIMScheduler.from_config({"beta_schedule": "scaled_linear", **config}))


def expected(x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Mean data and noise of x = alpha x0 + sigma eps, x0 Gaussian."""
    gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
    x0 = MEAN + gain * (x - alpha * MEAN)
    return x0, (x - alpha * x0) / sigma


def network(diffusion: Diffusion, x: Tensor, steps: Tensor) -> Tensor:
    """The best that a network could predict, by the diffusion's ratios between its steps."""
    below = steps.floor().long().clamp(max=len(diffusion.log_ratios) - 2)
    ratio = torch.lerp(
        diffusion.log_ratios[below], diffusion.log_ratios[below + 1], steps.double() - below
    ).exp()
    alpha = (1 / (1 + ratio**2).sqrt()).float()[:, None]
    sigma = (1 - alpha**2).sqrt()
    x0, eps = expected(x, alpha, sigma)
    return {"epsilon": eps, "v_prediction": alpha * eps - sigma * x0, "sample": x0}[diffusion.prediction]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_velocity_of_a_gaussian_is_its_own(prediction: str) -> None:
    diffusion = of(prediction)
    t = torch.linspace(0.05, 0.9, 50)
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    x0, eps = expected(x, 1 - t[:, None], t[:, None])
    velocity = diffusion.velocity(lambda scaled, steps: network(diffusion, scaled, steps), x, t)
    torch.testing.assert_close(velocity, eps - x0, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("zero", [False, True])
def test_the_ends_are_asked_at_the_first_step_and_the_last(prediction: str, *, zero: bool) -> None:
    diffusion = of(prediction, zero=zero)
    asked: list[float] = []

    def predict(x: Tensor, steps: Tensor) -> Tensor:
        asked.extend(steps.tolist())
        return torch.zeros_like(x)

    velocity = diffusion.velocity(predict, torch.ones(4, 3), torch.tensor([0.0, 1e-3, 1.0 - 1e-6, 1.0]))
    assert velocity.isfinite().all()
    assert asked == pytest.approx([0.0, 0.0, 999.0, 999.0], abs=0.3)


def test_steps_are_those_of_the_schedule_and_between_them() -> None:
    diffusion = of("epsilon")
    steps = diffusion.steps(diffusion.log_ratios[[0, 1, 500, 998, 999]])
    assert steps.tolist() == pytest.approx([0, 1, 500, 998, 999], abs=1e-4)
    assert diffusion.steps(diffusion.log_ratios[500:502].mean()[None]).item() == pytest.approx(500.5)
