"""The benchmark of a GPU, run through on the CPU with tiny networks of the same classes."""

import json
import math
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_throughput
from benchmarks.flux import FULL, SMOKE, Flux
from benchmarks.gpu_throughput import flops_of, latents_for, measure
from benchmarks.loops import AuthorsLoop
from benchmarks.setup import Method, run
from sampling.sampler import Sampler


def test_every_arm_runs_and_its_figures_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = ["--out", str(tmp_path / "json"), "--tables", str(tmp_path / "md")]
    gpu_throughput.main(["--smoke", "--nfe", "30", "--noises", "3", "--minutes", "0", *folders])
    told = json.loads((tmp_path / "json" / "gpu_throughput.json").read_text())
    arms = told["arms"]
    assert {name: arm["passes"] for name, arm in arms.items()} == {
        "bare transformer calls": 30,
        "bare decodes": 0,
        "bare rewards": 0,
        "search": 30,
        "authors' loop": 28,  # which stops while its chains could go beyond the budget
        "diffusers' best-of-n": 30,
    }
    assert all(len(arm["seconds"]) == 1 for arm in arms.values()), "no minute was left for a second turn"
    assert told["turns"] == "1, cold"
    assert told["TFLOP/s of matrix products"] > 0
    assert 0 < told["FLOP utilisation of search"] < 1
    assert all(math.isfinite(value) for name, value in told.items() if "/" in name)
    table = (tmp_path / "md" / "gpu_throughput.md").read_text()
    assert "| search |" in table
    assert table.splitlines()[-1] in capsys.readouterr().out


@pytest.mark.parametrize(("until", "counted"), [(0.0, [1]), (math.inf, [1, 1, 2])])
def test_what_was_measured_is_told_after_every_turn(until: float, counted: list[int]) -> None:
    runs: list[int] = []

    def arm() -> int:
        runs.append(1)
        return 7

    told = measure({"arm": arm}, torch.device("cpu"), Namespace(repeats=2, until=until))
    turns = [(len(runs), len(measured["arm"].seconds)) for measured in told]
    assert turns == [*enumerate(counted, 1)], "the first turn is cold: it counts until there is another"


def test_the_loop_ends_where_mode_upstream_does_on_this_model_too() -> None:
    task = Flux.random(SMOKE, torch.device("cpu")).task()
    loop = AuthorsLoop(task.problem(30, 0, Sampler()), 2, 3)
    with torch.inference_mode():
        reward = loop.search()
    method = Method("rbf", {"mode": "upstream", "chains": 2, "initial_noises": 3}, {})
    state = run(task, method, 30, 0)
    assert loop.spent == state.ledger.nfe_spent
    assert reward == pytest.approx(state.best[0].reward, abs=1e-2), "bfloat16"


def test_networks_of_full_size_compute_on_the_device_that_they_are_made_on() -> None:
    # A device whose tensors hold no numbers: to mix one with the CPU's is an error.
    flux = Flux.random(FULL, torch.device("meta"))
    assert sum(weight.numel() for weight in flux.transformer.parameters()) == pytest.approx(12e9, rel=0.01)
    task = flux.task()
    latents = latents_for(task, [2])
    assert latents.shape == (2, 4096, 64)
    assert flops_of(task) == pytest.approx(74e12, rel=0.01)
    assert task.session.velocity(latents, torch.ones(2, device=task.device)).is_meta
    pictures = task.session.decode(latents)
    assert pictures.shape == (2, 3, 1024, 1024)
    assert flux.reward.score(pictures, "").is_meta
    theirs = flux.pipeline()(
        **flux.prompt,
        height=1024,
        width=1024,
        num_inference_steps=1,
        num_images_per_prompt=2,
        output_type="pt",
    )
    assert theirs.images.is_meta


def test_it_says_so_where_there_is_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit):
        gpu_throughput.main([])
    assert "there is no GPU here; --smoke" in capsys.readouterr().err
