"""The package of docs/extending.md, taken out of the page and installed, beside packages that are broken."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from rollover import Client
from rollover.errors import RolloverError
from rollover.serve import Stack, StackSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?:`([\w./]+)`\n\n)?```(toml|python)\n(.*?)```", re.DOTALL)
ENTRY = """
[plain]
folder = "."
backend = "plain"
width = { minimum = 16, maximum = 64, multiple = 16, default = 32 }
height = { minimum = 16, maximum = 64, multiple = 16, default = 32 }
reward = "redness"
"""


def files_of_the_page() -> dict[str, str]:
    """Content of each file that the page shows; a block without a name belongs to `pyproject.toml`."""
    files: dict[str, str] = {}
    for name, _, text in BLOCK.findall(PAGE):
        files[name or "pyproject.toml"] = files.get(name or "pyproject.toml", "") + text
    return files


def write_all(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's package, installed by pip, and with broken ones."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    write_all(source, files_of_the_page())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--no-index", "--target", target, source], check=True)
    add_package(target, "needy", "[rollover.rewards]\nneedy = needy:REWARD\nwrong = needy.other:X\n")
    write_all(target, {"needy/__init__.py": "import nowhere_to_be_found", "needy_other.py": "X = 1"})
    add_package(target, "rude", "[rollover.rewards]\nrude = rude:X\nNo-Name = rude:X\n")
    write_all(target, {"rude.py": "raise SystemExit(3)"})
    add_package(target, "odd", "[rollover.rewards]\nodd = needy_other:X\nbrightness = needy_other:X\n")
    add_package(target, "twin", "[rollover.rewards]\nodd = needy_other:X\n")
    return target


def add_package(target: Path, name: str, entry_points: str) -> None:
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n"
    folder = f"{name}-0.1.dist-info"
    write_all(target, {f"{folder}/METADATA": metadata, f"{folder}/entry_points.txt": entry_points})


@pytest.fixture(scope="module")
def stack(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("extended")
    (folder / "models.toml").write_text(ENTRY)
    with ExitStack() as exits:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(installed))
            patch.setenv("ROLLOVER_CATALOGUE", str(folder / "models.toml"))
            patch.setenv("ROLLOVER_DEVICE", "cpu")
            settings = StackSettings(port=0, data_dir=folder / "var", models=["plain"])
            stack = exits.enter_context(Stack(settings, print))
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.url) as client:
        yield client


def test_a_job_climbs_the_reward_of_an_installed_package_on_a_model_of_its_backend(client: Client) -> None:
    job = client.wait(client.submit("red", nfe=60, seed=1, sampler={"reward_guidance": 0.1}).id, within=60)
    assert job.status == "succeeded"
    result = job.raw["result"]
    assert result["images"][0]["rewards"].keys() == {"redness"}
    assert result["images"][0]["reward"] > result["first_reward"] + 0.05
    assert result["provenance"]["rewards"].keys() == {"redness"}


def test_the_api_tells_of_it(stack: Stack, client: Client) -> None:
    listed = {reward["name"]: reward for reward in client.rewards()}
    told = listed["redness"]
    assert (told["minimum"], told["maximum"], told["differentiable"]) == (0.0, 1.0, True)
    assert (told["licence"], told["available"], told["title"][:6]) == ("MIT", True, "How mu")
    schema = httpx.get(f"{stack.url}/openapi.json", trust_env=False, timeout=60).json()
    assert "redness" in json.dumps(schema["components"]["schemas"]["RewardTermRequest"])


def test_a_reward_of_ours_is_there_whatever_takes_its_name(client: Client) -> None:
    job = client.wait(client.submit("x", nfe=40, reward=["redness", "brightness"]).id, within=60)
    assert job.status == "succeeded"


@pytest.mark.parametrize("name", ["needy", "wrong", "rude", "odd", "No-Name"])
def test_a_reward_whose_package_is_broken_is_refused(client: Client, name: str) -> None:
    assert name not in [reward["name"] for reward in client.rewards()]
    with pytest.raises(RolloverError, match=f"The package that brings '{name}' cannot be used"):
        client.submit("x", reward=name)


def test_the_log_says_what_is_broken(stack: Stack) -> None:
    for program in ("api", "worker-plain"):
        log = (stack.settings.data_dir / "logs" / f"{program}.log").read_text()
        for said in (
            "'needy' of the package needy 0.1 cannot be used: needy:REWARD cannot be imported: Module",
            "NotFoundError: No module named 'nowhere_to_be_found'",
            "'rude' of the package rude 0.1 cannot be used: rude:X cannot be imported: SystemExit: 3",
            "'odd' of the package odd 0.1 and twin 0.1 cannot be used: two packages give this name",
            "'brightness' of the package odd 0.1 cannot be used: Rollover has a reward of that name",
            "'No-Name' of the package rude 0.1 cannot be used: its name must be up to 64 of a-z",
        ):
            assert said in log


def test_what_the_api_imports_of_a_package_has_no_torch(installed: Path) -> None:
    program = (
        "import sys, app.main\nfrom contracts.rewards import REWARDS\n"
        "print(REWARDS['redness'].title, 'torch' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "How much redder than green and blue False"
