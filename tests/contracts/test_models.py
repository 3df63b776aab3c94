"""Catalogues of models: what they may say, and what is said of one that cannot be used."""

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from contracts.models import BUNDLED, ENTRIES, MODELS, CatalogueError, read
from contracts.resolution import accept
from contracts.search import RbfParams
from contracts.settings import Settings

SIZE = "{ minimum = 256, maximum = 1536, multiple = 16, default = 1024 }"
ENTRY = f"""
[qwen-image]
folder = "qwen"
width = {SIZE}
height = {SIZE}
reward = "brightness"
"""


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    file = tmp_path / "models.toml"
    file.write_text(ENTRY)
    return file


def test_the_bundled_catalogue_has_the_bundled_model() -> None:
    assert (ENTRIES["shapes"].folder or Path()) == Path("models/shapes/weights").resolve()
    assert MODELS["shapes"].title.startswith("Coloured shapes")
    assert read(BUNDLED) == ENTRIES


def test_an_entry_has_defaults_and_is_found_from_its_file(catalogue: Path, tmp_path: Path) -> None:
    entry = read(catalogue)["qwen-image"]
    assert entry.folder == tmp_path / "qwen"
    assert (entry.dtype, entry.quantisation, entry.vae_tiling, entry.inputs) == ("float32", "none", False, {})
    facts = entry.facts("qwen-image")
    assert (facts.id, facts.title, facts.licence, facts.steps) == (
        "qwen-image",
        "qwen-image",
        "not stated",
        10,
    )
    assert (facts.few_step, facts.guidance, facts.held_out) == (False, None, ())
    assert "folder" not in facts.model_dump()


def test_every_field_can_be_set(catalogue: Path) -> None:
    more = """
title = "Qwen"
licence = "Apache-2.0"
dtype = "bfloat16"
device = "cuda:1"
quantisation = "fp8"
offload = "model"
vae_tiling = true
max_batch = 8
compile = true
steps = 20
few_step = true
held_out = ["sharpness"]
defaults = { sampler = { kernel = "ode" }, rbf = { chains = 4 } }
guidance = { minimum = 1, maximum = 10, default = 4.0 }
inputs = { max_sequence_length = 512 }
parameters = { transformer = 20.4, vae = 0.13 }
backend = "mine"
image = "optional"
"""
    catalogue.write_text(
        ENTRY.replace('folder = "qwen"', 'repository = "Qwen/Qwen-Image"\nrevision = "v1"') + more
    )
    entry = read(catalogue)["qwen-image"]
    assert entry.model_fields_set == set(type(entry).model_fields) - {"folder", "calibration"}
    assert entry.guidance is not None
    assert entry.guidance.default == 4.0


@pytest.mark.parametrize("steps", [2, 4, 10, 28, 50])
def test_a_model_of_many_steps_can_be_searched_whatever_their_number(catalogue: Path, steps: int) -> None:
    catalogue.write_text(ENTRY + f"steps = {steps}\n")
    facts = read(catalogue)["qwen-image"].facts("qwen-image")
    search = accept({"prompt": "x"}, {"qwen-image": facts}).search
    assert isinstance(search, RbfParams)
    assert search.first_level == facts.defaults.rbf["first_level"]


def test_defaults_of_ones_own_win_over_what_few_step_says(catalogue: Path) -> None:
    catalogue.write_text(ENTRY + "defaults = { rbf = { chains = 4 } }\n")
    facts = read(catalogue)["qwen-image"].facts("qwen-image")
    assert facts.defaults.rbf == {"chains": 4}
    assert facts.defaults.sampler == {}


@pytest.mark.parametrize(
    ("line", "becomes", "complaint"),
    [
        ('folder = "qwen"', "", "must have either a folder or a repository"),
        (
            'folder = "qwen"',
            'folder = "qwen"\nrepository = "a/b"',
            "must have either a folder or a repository",
        ),
        ('folder = "qwen"', 'folder = "qwen"\nrevision = "v1"', "must have a repository to have a revision"),
        ('folder = "qwen"', 'repository = "../x"', "repository: .* should match pattern"),
        (
            '"brightness"',
            '"brightnes"',
            r"reward: there is no reward 'brightnes'\. Did you mean 'brightness'\?",
        ),
        ('"brightness"', '"scene_match"', "reward: 'scene_match' applies to shapes, shapes-base only"),
        (
            '"brightness"',
            '"brightness"\ndefaults = { rbf = { chain = 4 } }',
            r"defaults: rbf\.chain: Extra inputs are not permitted; there are accept, approach_steps, .*",
        ),
        (
            '"brightness"',
            '"brightness"\ndefaults = { sampler = { kernel = "euler" } }',
            r"sampler\.kernel: .* 'ddim'",
        ),
        ('"brightness"', '"brightness"\nheld_out = ["zzz"]', r"reward 'zzz'\. There are aesthetic, .*"),
        ('"brightness"', '"brightness"\ndtype = "float8"', "dtype: .* 'float32' or 'bfloat16'"),
        (
            '"brightness"',
            '"brightness"\nquantisation = "int4"',
            "quantisation: .* should be 'none', 'fp8', 'int8' or 'nf4'",
        ),
        (
            '"brightness"',
            '"brightness"\nquantisation = "int8"',
            "must have dtype = 'bfloat16' to have .*'int8'",
        ),
        (
            '"brightness"',
            '"brightness"\nquantisation = "nf4"\noffload = "group"',
            "must have offload = 'model' or 'none' to have quantisation = 'nf4'",
        ),
        (
            '"brightness"',
            '"brightness"\noffload = "disk"',
            "offload: .* 'none', 'text_encoders', 'model' or 'group'",
        ),
        ('"brightness"', '"brightness"\ndevice = "GPU 1"', "device: .* should match pattern"),
        ('"brightness"', '"brightness"\nvae_tilling = true', r"no such field\. Did you mean 'vae_tiling'\?"),
        (
            '"brightness"',
            '"brightness"\nzzz = 1',
            r"zzz: there is no such field\. There are backend, .* width\.",
        ),
        ('"brightness"', '"brightness"\nsteps = 0', "steps: .* greater than or equal to 1"),
        ('reward = "brightness"', "", "reward: Field required"),
        ("default = 1024", "default = 2048", "width: must have minimum <= default <= maximum"),
        ("default = 1024", "default = 1000", "width: must have .* multiples of multiple"),
        ("minimum = 256", 'minimum = "a"', "width.minimum: .* valid integer"),
        ("minimum = 256", "minimun = 256", "width.minimun: there is no such field. Did you mean 'minimum'"),
        ("[qwen-image]", '["Qwen Image"]', r"\[Qwen Image\] is no id: up to 64 of a-z"),
        ("[qwen-image]", "[qwen-image", "no catalogue of models can be read there: .*line 2"),
        (
            '"brightness"',
            '"brightness"\nguidance = { minimum = 5, maximum = 9, default = 4 }',
            "guidance: must have 0 <= minimum <= default <= maximum",
        ),
    ],
)
def test_a_wrong_entry_is_named_with_what_is_allowed(
    catalogue: Path, line: str, becomes: str, complaint: str
) -> None:
    assert line in ENTRY
    catalogue.write_text(ENTRY.replace(line, becomes))
    with pytest.raises(CatalogueError, match=complaint) as refused:
        read(catalogue)
    assert str(catalogue) in str(refused.value)


def test_every_problem_is_told_at_once(catalogue: Path) -> None:
    catalogue.write_text(ENTRY.replace('"brightness"', '"brightness"\nsteps = 0\nzzz = 1'))
    with pytest.raises(CatalogueError) as refused:
        read(catalogue)
    assert len(str(refused.value).splitlines()) == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        CatalogueError, match=r"gone\.toml: no catalogue of models can be read there: .*No such"
    ):
        read(tmp_path / "gone.toml")


def test_settings_serve_what_the_owner_added(catalogue: Path) -> None:
    settings = Settings(catalogue=catalogue, models=("qwen-image", "shapes"))
    assert [*settings.served] == ["qwen-image", "shapes"]
    resolved = accept({"prompt": "x"}, settings.served)
    assert (resolved.model, resolved.width, resolved.reward[0].name) == ("qwen-image", 1024, "brightness")


def test_an_owners_entry_replaces_a_bundled_one(catalogue: Path) -> None:
    catalogue.write_text(ENTRY.replace("qwen-image", "shapes"))
    assert Settings(catalogue=catalogue).served["shapes"].reward == "brightness"


def test_settings_refuse_a_model_that_no_catalogue_has(catalogue: Path) -> None:
    with pytest.raises(ValidationError, match=r"unknown model 'qwen-imag'\. Did you mean 'qwen-image'\?"):
        Settings(catalogue=catalogue, models=("qwen-imag",))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("steps = 1", "/sampler/steps"),
        ("steps = 200", "/budget/nfe: .*needs at least"),
        ("steps = 10\ndefaults = { rbf = { first_level = 20 } }", "/search/first_level"),
    ],
)
def test_settings_refuse_a_model_whose_defaults_do_not_go_together(
    catalogue: Path, more: str, said: str
) -> None:
    catalogue.write_text(ENTRY + more + "\n", encoding="utf-8")
    with pytest.raises(
        ValidationError, match=f"model 'qwen-image' refuses a submission of a prompt alone: {said}"
    ):
        Settings(catalogue=catalogue, models=("qwen-image",))


def test_settings_refuse_a_wrong_catalogue(catalogue: Path) -> None:
    catalogue.write_text(ENTRY + "steps = 0")
    with pytest.raises(ValidationError, match=r"models\.toml: \[qwen-image\] steps: "):
        Settings(catalogue=catalogue)


def test_the_example_in_the_documentation_can_be_read(tmp_path: Path) -> None:
    page = Path("docs/models.md").read_text()
    example = page.partition("```toml\n")[2].partition("```")[0]
    file = tmp_path / "models.toml"
    file.write_text(example)
    assert read(file).keys() == tomllib.loads(example).keys()
    assert len(read(file)) > 1
