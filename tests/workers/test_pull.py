"""Fetching a model, from a hub of real HTTP on this machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from models.backend import ModelLoadError
from models.registry import load_model
from tests.workers.hub_server import BESIDES, ENTRY, REPO, WEIGHTS, Hub
from workers import hub as hub_module
from workers import pull
from workers.hub import Offer
from workers.loading import source_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def refused(hub: Hub, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Pull the model in vain; what is said of it. What stands in the catalogue can be replaced."""

    def refused(line: str = "", becomes: str = "") -> str:
        catalogue = Path(os.environ["ROLLOVER_CATALOGUE"])
        catalogue.write_text(ENTRY.replace(line, becomes))
        assert pull.main(["my-flux"]) == 1
        return capsys.readouterr().err.replace(hub.url, "HUB")

    return refused


def test_what_is_needed_is_fetched_and_can_be_loaded(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    entry = pull.entry_of("my-flux")
    with pytest.raises(
        ModelLoadError, match="not on this machine: fetch it with `rollover models pull my-flux`"
    ):
        source_of("my-flux", entry)
    assert pull.main(["my-flux"]) == 0
    said = capsys.readouterr().out
    source = source_of("my-flux", entry)
    assert "my-flux: some/flux, revision main\n  licence  apache-2.0\n  gated    no\n  files    " in said
    assert said.endswith(f"my-flux is ready in {source.folder}\n")
    assert not hub.fetched() & BESIDES.keys()
    pictures = load_model(source).prepare("a red circle", 32, 32).decode(torch.zeros(1, 16, 16))
    assert pictures.shape == (1, 3, 32, 32)


def test_the_command_shows_its_progress(hub: Hub, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "rollover", "models", "pull", "my-flux"]
    ran = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "my-flux is ready in " in ran.stdout
    assert "100%" in ran.stderr
    assert (tmp_path / "home" / "hub" / "models--some--flux").is_dir()


def test_a_download_that_breaks_off_goes_on_where_it_was(
    hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what is kept of an answer, in bytes
    hub.breaks[WEIGHTS] = [1000, 2000]
    assert pull.main(["my-flux"]) == 0
    ranges = [asked for method, path, asked in hub.asked if method == "GET" and path.endswith(WEIGHTS)]
    assert ranges == [None, "bytes=1000-", "bytes=3000-"]
    assert "is ready in" in capsys.readouterr().out


def test_a_fetch_that_was_interrupted_is_told_and_gone_on_with(
    hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    offer = hub_module.look_up(REPO, None)
    names = hub_module.choose(offer)
    folder = hub_module.fetch(offer, [name for name in names if not name.startswith("vae")])
    entry = pull.entry_of("my-flux")
    with pytest.raises(
        ModelLoadError, match=r"without 2 of its files, such as vae/config.json: fetch the rest"
    ):
        source_of("my-flux", entry)
    before = len(hub.asked)
    assert pull.main(["my-flux"]) == 0
    capsys.readouterr()
    assert WEIGHTS not in {path.removeprefix(f"/{REPO}/resolve/main/") for _, path, _ in hub.asked[before:]}
    assert source_of("my-flux", entry).folder == folder


def test_a_gated_repository_is_told_before_and_refused_with_what_to_do(
    hub: Hub, refused: Callable[..., str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated.add(REPO)
    said = refused()
    assert (
        "some/flux is gated: accept its licence at HUB/some/flux, make a token that may read it at " in said
    )
    assert "HUB/settings/tokens and set HF_TOKEN to it" in said
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody")
    assert "is gated and the token does not open it: accept its licence at HUB/some/flux as the" in refused()
    hub.accepted.add("hf_of_somebody")
    assert pull.main(["my-flux"]) == 0
    assert f"gated    yes: its licence must be accepted at {hub.url}/some/flux" in capsys.readouterr().out


def test_weights_that_are_pickles_are_not_fetched(
    hub: Hub, repository: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    hub.repositories[REPO] = shutil.copytree(repository, tmp_path / "pickled")
    (tmp_path / "pickled" / "text_encoder" / "model.safetensors").unlink()
    said = refused()
    assert (
        "some/flux: text_encoder has only pickles (pytorch_model.bin), which can run code and are never"
        in said
    )
    assert hub.fetched() == {"model_index.json"}


@pytest.mark.parametrize(
    ("line", "becomes", "said"),
    [
        (
            "some/flux",
            "some/other",
            "HUB shows no repository some/other: check `repository` in the catalogue; for",
        ),
        (
            '"some/flux"',
            '"some/flux"\nrevision = "v9"',
            "has no revision 'v9': HUB/some/flux/tree/main lists them",
        ),
        ('repository = "some/flux"', 'folder = "x"', "x: there is nothing to fetch"),
        ("[my-flux]", "[my-fluxx]", "no model 'my-flux' in the catalogue. Did you mean 'my-fluxx'?"),
        ('"brightness"', '"brightnes"', "models.toml: [my-flux] reward: there is no reward 'brightnes'"),
    ],
)
def test_what_is_not_there_is_named(refused: Callable[..., str], line: str, becomes: str, said: str) -> None:
    assert said in refused(line, becomes)


def test_a_repository_that_holds_a_part_of_a_model_is_named(
    hub: Hub, repository: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    hub.repositories[REPO] = shutil.copytree(repository, tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "vae")
    assert "some/flux has no vae, which its index takes from elsewhere: name a repository that" in refused()


@pytest.mark.usefixtures("hub")
def test_a_token_is_suspected_where_the_hub_shows_nothing(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "token that may read it\n" in refused("some/flux", "some/other")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "token that may read it; the token that is set may not be valid\n" in refused(
        "some/flux", "some/other"
    )


def test_a_repository_in_another_layout_is_named(
    hub: Hub, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.safetensors").write_text("")
    hub.repositories[REPO] = tmp_path / "other"
    assert (
        "some/flux is no model in diffusers' layout: it has no model_index.json. Name one that" in refused()
    )


def test_a_broken_file_of_the_hubs_own_is_named(
    hub: Hub, repository: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    hub.repositories[REPO] = shutil.copytree(repository, tmp_path / "broken")
    weights = tmp_path / "broken" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    said = refused()
    assert f"{WEIGHTS} is not whole: it holds " in said


def test_a_hub_that_is_away_is_named(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    said = refused()
    assert "some/flux could not be fetched from http://127.0.0.1:9: " in said
    assert "What has come is kept, and the same command goes on; HF_ENDPOINT names a mirror" in said


def test_what_the_disk_cannot_hold_is_not_begun(hub: Hub) -> None:
    offer = Offer(REPO, None, None, gated=False, sizes={"vae/model.safetensors": 10**18})
    with pytest.raises(
        hub_module.HubError, match=r"1000000.0 TB are to be fetched and .* has room for .*HF_HOME"
    ):
        hub_module.fetch(offer, ["vae/model.safetensors"])
    assert not hub.asked
