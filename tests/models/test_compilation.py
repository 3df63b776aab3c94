"""Compiled blocks: torch reads their code as it would on a GPU, and runs what it read."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models import compilation
from models.backend import ModelLoadError
from models.compilation import compile_blocks
from models.families import DENOISERS
from models.modular import ModularBackend
from tests.models.tiny import FAMILIES, autoencoder, make


def load(folder: Path, *, compiled: bool = False) -> ModularBackend:
    return ModularBackend.load(folder, device="cpu", dtype=torch.float32, compiled=compiled)


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compile as far as the graphs, which takes seconds; machine code for them takes a minute."""
    monkeypatch.setitem(compilation.OPTIONS, "backend", "eager")
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("read_only")
def test_compiled_blocks_predict_the_same_whatever_the_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(FAMILIES["Krea 2 Turbo"], tmp_path)
    plain = load(tmp_path).prepare("a circle", 64, 64)
    backend = load(tmp_path, compiled=True)
    session = backend.prepare("a circle", 64, 64)
    x, t = torch.randn(3, *session.latent_shape), torch.tensor([0.9, 0.5, 0.2])
    for rows in (1, 3):
        assert torch.equal(session.velocity(x[:rows], t[:rows]), plain.velocity(x[:rows], t[:rows]))
    # Neither another number of rows nor another size is compiled anew.
    with monkeypatch.context() as patched:
        patched.setattr(torch._dynamo.config, "error_on_recompile", True)  # noqa: SLF001 -- torch's switch for this
        session.velocity(x[:2], t[:2])
        wide = backend.prepare("a circle", 96, 64)
        wide.velocity(torch.randn(2, *wide.latent_shape), t[:2])


@pytest.mark.parametrize("name", FAMILIES)
def test_every_familys_repeated_blocks_are_known(name: str) -> None:
    [network] = [part for part_name, part in FAMILIES[name].parts().items() if part_name in DENOISERS]
    compile_blocks(network)
    compiled = [each for each in network.modules() if each._compiled_call_impl]  # noqa: SLF001 -- only there it shows
    assert compiled
    assert network not in compiled


def test_a_transformer_of_unknown_blocks_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="AutoencoderKL has no blocks that are known to repeat"):
        compile_blocks(autoencoder())


def test_a_machine_without_a_compiler_is_told_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ModelLoadError, match=r"needs a C\+\+ compiler .*: install g\+\+"):
        load(tmp_path, compiled=True)
