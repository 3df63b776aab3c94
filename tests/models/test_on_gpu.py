"""Ways to load a model that need a GPU to mean anything; left out where there is none."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from models.modular import ModularBackend
from models.offload import OFFLOADS
from models.quantisation import PACKAGES, QUANTISATIONS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
WAYS = [(q, o) for q in QUANTISATIONS for o in OFFLOADS if (q, o) != ("nf4", "group")]


@pytest.mark.parametrize(("quantisation", "offload"), WAYS)
def test_a_model_is_nearly_the_same_however_it_is_loaded(
    tiny_flux: Path, quantisation: str, offload: str
) -> None:
    if quantisation in PACKAGES and find_spec(PACKAGES[quantisation]) is None:
        pytest.skip(f"needs {PACKAGES[quantisation]}")
    exact = ModularBackend.load(tiny_flux, device="cpu", dtype=torch.float32).prepare("two red", 48, 32)
    backend = ModularBackend.load(
        tiny_flux, device="cuda:0", dtype=torch.bfloat16, quantisation=quantisation, offload=offload
    )
    session = backend.prepare("two red", 48, 32)
    x = torch.randn(2, *exact.latent_shape, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.9, 0.3])
    for _ in range(2):  # groups learn their order in the first pass
        velocity = session.velocity(x.cuda(), t.cuda())
        assert velocity.device.type == "cuda"
        assert (velocity.cpu() - exact.velocity(x, t)).norm() < 0.3 * exact.velocity(x, t).norm()
        pictures = session.decode(x.cuda())
        torch.testing.assert_close(pictures.cpu(), exact.decode(x), rtol=0, atol=0.1)
    latents = x.cuda().requires_grad_()
    [gradient] = torch.autograd.grad(session.decode(latents).sum(), latents)
    assert gradient.abs().max() > 0
