"""The paths x_t = alpha(t) x0 + sigma(t) eps from data (t = 0) to noise (t = 1)."""

import math
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Coefficients:
    """A path at one time: alpha, sigma and their derivatives by t, in float64.

    ``d_sigma`` is infinite where sigma grows like a square root (the VP path at t = 0).
    """

    alpha: float
    sigma: float
    d_alpha: float
    d_sigma: float

    @property
    def ratio(self) -> float:
        """Alpha / sigma, the square root of the signal-to-noise ratio; infinite at the data."""
        return self.alpha / self.sigma if self.sigma > 0 else math.inf


class Interpolant(Protocol):
    """A path between data and noise."""

    def at(self, t: float) -> Coefficients:
        """Coefficients at t in [0, 1]; ValueError outside."""
        ...

    def time_at_ratio(self, ratio: float) -> float:
        """The time at which alpha / sigma equals ``ratio``, from 0 to infinity.

        ValueError where the path never gets there.
        """
        ...


@dataclass(frozen=True, slots=True)
class Linear:
    """Rectified flow: alpha = 1 - t, sigma = t."""

    def at(self, t: float) -> Coefficients:
        """See Interpolant.at."""
        _check_time(t)
        return Coefficients(alpha=1 - t, sigma=t, d_alpha=-1.0, d_sigma=1.0)

    def time_at_ratio(self, ratio: float) -> float:
        """See Interpolant.time_at_ratio. Every ratio is reached."""
        _check_ratio(ratio)
        return 1 / (1 + ratio)


@dataclass(frozen=True, slots=True)
class VariancePreserving:
    """The VP path of Song et al. (arXiv 2011.13456), beta linear in t: alpha^2 + sigma^2 = 1.

    T(t) is the integral of beta: alpha = exp(-T / 2), sigma = sqrt(1 - exp(-T)).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def at(self, t: float) -> Coefficients:
        """See Interpolant.at. At t = 0 d_sigma is infinite."""
        _check_time(t)
        T = t * t * (self.beta_max - self.beta_min) / 2 + self.beta_min * t
        beta = self.beta_min + t * (self.beta_max - self.beta_min)
        alpha = math.exp(-T / 2)
        sigma = math.sqrt(-math.expm1(-T))
        d_sigma = alpha * alpha * beta / (2 * sigma) if sigma > 0 else math.inf
        return Coefficients(alpha=alpha, sigma=sigma, d_alpha=-alpha * beta / 2, d_sigma=d_sigma)

    def time_at_ratio(self, ratio: float) -> float:
        """See Interpolant.time_at_ratio. Ratios below the one at t = 1 are not reached."""
        _check_ratio(ratio)
        T = math.log1p(ratio**-2) if ratio > 0 else math.inf
        # The root of T(t) in the form that does not cancel for small T.
        root = math.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * T)
        t = 2 * T / (self.beta_min + root) if math.isfinite(T) else math.inf
        if t > 1 + 1e-9:
            raise ValueError(
                f"the VP path ends at ratio {self.at(1.0).ratio:.3g}; it never reaches {ratio:.3g}"
            )
        return min(t, 1.0)


LINEAR = Linear()
VP = VariancePreserving()
INTERPOLANTS: dict[str, Interpolant] = {"linear": LINEAR, "vp": VP}


def _check_time(t: float) -> None:
    if not 0 <= t <= 1:
        raise ValueError(f"a time lies in [0, 1], and this one is {t}")


def _check_ratio(ratio: float) -> None:
    if not ratio >= 0:
        raise ValueError(f"alpha / sigma is never negative, and this one is {ratio}")
