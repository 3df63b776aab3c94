import pytest
import torch

from sampling.interpolants import INTERPOLANTS, LINEAR, VP, Interpolant
from sampling.prediction import predict, stack, unstack
from tests.sampling.oracle import MIXTURE

TIMES = [1.0, 0.9, 0.5, 0.2, 0.03]


def latents(seed: int = 0) -> torch.Tensor:
    return torch.randn(len(TIMES), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", sorted(INTERPOLANTS))
def test_the_model_of_the_linear_path_answers_for_every_path(name: str) -> None:
    path, x = INTERPOLANTS[name], latents()
    got = predict(MIXTURE.velocity, path, x, TIMES)
    alpha = torch.tensor([[path.at(r).alpha] for r in TIMES], dtype=torch.float64)
    sigma = torch.tensor([[path.at(r).sigma] for r in TIMES], dtype=torch.float64)
    truth = MIXTURE.posterior(x, alpha, sigma)
    torch.testing.assert_close(got.x0, truth.x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.eps, truth.eps, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(alpha * got.x0 + sigma * got.eps, x, rtol=1e-12, atol=1e-12)


def paper_velocity(path: Interpolant, x: torch.Tensor, r: float) -> torch.Tensor:
    """The paper's chain rule: x_r = c(r) x_t(r), so u = c'/c x + c t' v(x / c, t), ' by differences."""

    def time(at: float) -> float:
        return LINEAR.time_at_ratio(path.at(at).ratio)

    def scale(at: float) -> float:
        return path.at(at).sigma / time(at)

    h = 1e-6
    d_time = (time(r + h) - time(r - h)) / (2 * h)
    d_scale = (scale(r + h) - scale(r - h)) / (2 * h)
    t = torch.full((len(x),), time(r), dtype=x.dtype)
    c = scale(r)
    return d_scale / c * x + c * d_time * MIXTURE.velocity(x / c, t)


@pytest.mark.parametrize("r", [0.95, 0.6, 0.3, 0.1])
@pytest.mark.parametrize("name", sorted(INTERPOLANTS))
def test_the_conversion_is_the_papers_chain_rule(name: str, r: float) -> None:
    path, x = INTERPOLANTS[name], latents(1)
    prediction, at = predict(MIXTURE.velocity, path, x, [r] * len(x)), path.at(r)
    u = at.d_alpha * prediction.x0 + at.d_sigma * prediction.eps
    torch.testing.assert_close(u, paper_velocity(path, x, r), rtol=1e-6, atol=1e-6)


def test_the_model_may_answer_in_its_own_dtype() -> None:
    x = latents().float()
    got = predict(lambda x, t: MIXTURE.velocity(x, t).bfloat16(), VP, x, TIMES)
    exact = predict(MIXTURE.velocity, VP, x, TIMES)
    assert got.x0.dtype == got.eps.dtype == torch.float32
    torch.testing.assert_close(got.x0, exact.x0, rtol=0.02, atol=0.02)


def test_the_model_is_asked_at_the_time_of_the_linear_path() -> None:
    asked: list[torch.Tensor] = []

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked.append(t)
        return torch.zeros_like(x)

    predict(velocity, LINEAR, latents().float(), TIMES)
    assert torch.equal(asked[0], torch.tensor(TIMES))


def test_rows_survive_stacking() -> None:
    batch = predict(MIXTURE.velocity, VP, latents(), TIMES)
    again = stack(unstack(batch))
    assert torch.equal(again.x0, batch.x0)
    assert torch.equal(again.eps, batch.eps)
