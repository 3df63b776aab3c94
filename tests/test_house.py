"""The house keeps what its pages and its packaging promise."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from app.main import create_app
from contracts.resolution import accept
from contracts.settings import Settings
from rollover.serve import StackSettings
from workers.settings import WorkerSettings

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
LARGEST_FILE = 8 * 2**20
FENCES = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def tracked() -> list[Path]:
    """Every file in git."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).exists()]


def rows(page: str, before: str) -> list[list[str]]:
    """Cells of the first table after a text, without its head."""
    lines = page[page.index(before) :].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    end = next((n for n, line in enumerate(lines[start:], start) if not line.startswith("|")), len(lines))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start + 2 : end]]


def setting_rows(settings: type[Settings | WorkerSettings]) -> list[list[str]]:
    """The rows a settings class wants."""
    return [
        [
            f"`ROLLOVER_{name.upper()}`",
            shown(field.get_default(call_default_factory=True)),
            field.description or "",
        ]
        for name, field in settings.model_fields.items()
    ]


def shown(default: object) -> str:
    """A default as the operations page writes it."""
    text = ",".join(default) if isinstance(default, tuple) else default
    return f"`{text}`" if text or text == 0 else "unset"


def nameless(path: str) -> str:
    """A route whatever its parameters are called."""
    return re.sub(r"{\w+}", "{}", path)


def locked() -> dict[str, str]:
    """Version of each package in the lock."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def declared() -> list[Requirement]:
    """Every requirement of pyproject.toml, those of all extras included."""
    project = PROJECT["project"]
    extras = (text for extra in project["optional-dependencies"].values() for text in extra)
    return [Requirement(text) for text in (*project["dependencies"], *extras)]


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after a statement."""
    program = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(ran.stdout.split())


def test_the_client_and_the_command_load_nothing_of_the_server() -> None:
    loaded = modules_after("import rollover, rollover.cli")
    assert "httpx" in loaded
    assert not loaded & {"torch", "fastapi", "redis", "app", "contracts", "models", "sampling", "workers"}


def test_every_package_is_held_by_the_arrows_and_typed() -> None:
    tools = PROJECT["tool"]
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    installed = {name.rstrip("*") for name in tools["setuptools"]["packages"]["find"]["include"]}
    assert found == set(tools["importlinter"]["root_packages"])
    assert found - installed == {"benchmarks"}
    assert found <= set(tools["pyright"]["include"])


def test_what_is_cited_is_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    told = [cited[field] for field in ("title", "version", "license")]
    assert told == ["Rollover", *(PROJECT["project"][field] for field in ("version", "license"))]


def test_the_lock_satisfies_every_requirement() -> None:
    versions = locked()
    unmet = [str(r) for r in declared() if versions.get(canonicalize_name(r.name), "0") not in r.specifier]
    assert not unmet


def test_the_lock_leaves_the_build_of_torch_to_the_index() -> None:
    assert locked()["torch"] == "2.13.0"
    assert not [name for name, version in locked().items() if Version(version).local]


def test_every_dependency_has_its_why() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page[page.index("## Dependencies") :]
    missing = {r.name for r in declared() if not re.search(rf"\b{re.escape(r.name)}\b", section)}
    assert not missing


@pytest.mark.parametrize(
    ("before", "settings"),
    [("(`contracts/settings.py`):", Settings), ("(`workers/settings.py`):", WorkerSettings)],
)
def test_every_setting_is_documented(before: str, settings: type[Settings | WorkerSettings]) -> None:
    assert rows(OPERATIONS, before) == setting_rows(settings)


def test_the_supervisor_agrees_with_the_settings_it_shares() -> None:
    stack, server = StackSettings(), Settings.model_construct()
    shared = StackSettings.__dataclass_fields__.keys() & Settings.model_fields.keys()
    assert {"host", "port", "data_dir", "models", "redis_url", "artifacts_url"} <= shared
    assert {name: getattr(stack, name) for name in shared} == {name: getattr(server, name) for name in shared}


def test_every_variable_the_code_names_is_documented() -> None:
    source = "".join(
        path.read_text(encoding="utf-8")
        for path in tracked()
        if path.suffix == ".py" and "tests" not in path.parts
    )
    named = set(re.findall(r"ROLLOVER_[A-Z][A-Z_]*[A-Z]", source))
    assert "ROLLOVER_URL" in named
    assert named <= set(re.findall(r"ROLLOVER_[A-Z_]+", OPERATIONS))


def test_the_readme_lists_every_route() -> None:
    served = {
        f"{method.upper()} {nameless(path)}"
        for path, methods in create_app(Settings(redis_url="redis://localhost")).openapi()["paths"].items()
        for method in methods
    }
    assert {nameless(row[0].strip("`")) for row in rows(README, "| route |")} == served


def test_the_submission_in_the_readme_is_accepted() -> None:
    body = json.loads(README.split("-d '")[1].split("'")[0])
    assert accept(body).prompt == body["prompt"]


def test_help_lists_every_target() -> None:
    phony = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split())  # type: ignore[index]
    assert phony == set(re.findall(r"^([a-z-]+):.* ## ", MAKEFILE, re.MULTILINE))
    assert {"demo", "test", "serve", "check", "bench", "train-shapes"} <= phony


def test_links_between_pages_lead_somewhere() -> None:
    pages = [path for path in tracked() if path.suffix == ".md"]
    assert ROOT / "README.md" in pages
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)", FENCES.sub("", page.read_text(encoding="utf-8")))
        if "://" not in target and not (page.parent / unquote(target)).exists()
    ]
    assert not broken


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in folder.glob("[0-9]*.md")}
    assert pages
    assert pages == set(re.findall(r"\]\(([0-9][^)]*\.md)\)", index))


def test_git_holds_no_large_file_and_no_pickle() -> None:
    files = tracked()
    assert ROOT / "LICENSE" in files
    assert not [path for path in files if path.stat().st_size > LARGEST_FILE]
    assert not [path for path in files if path.suffix in {".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth"}]
