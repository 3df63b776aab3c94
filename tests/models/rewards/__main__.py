"""Run the checks of every reward and print them as a table: `python -m tests.models.rewards`.

With `--collect-only` it says at once which checks there are.
"""

import sys
from pathlib import Path

import pytest

from models.registry import REWARDS
from tests.models.table import Place, Table, run

HERE = Path(__file__).parent
ALONE = {"test_grounded_count.py": "grounded_count", "test_scoring.py": "http"}
"""Files that check one reward."""
FILES = [
    *(HERE / f"test_{name}.py" for name in ("with_weights", "every_reward", "scenes", "grounded_count")),
    HERE.parents[1] / "workers" / "test_scoring.py",
]
FORMULAS = {
    "test_grounded_count_is_the_authors_programs": "grounded_count",
    "test_clip_score_is_the_papers": "clip_score",
    "test_pickscore_is_the_model_cards": "pickscore",
    "test_hps_is_open_clips_cosine": "hps",
    "test_aesthetic_is_a_perceptron_over_the_unit_vector": "aesthetic",
    "test_siglip_is_the_probability_of_its_loss": "siglip",
    "test_vqa_score_is_the_probability_of_yes": "vqa_score",
    "test_instructblip_is_the_likelihood_of_yes": "instructblip",
    "test_image_reward_is_its_programs": "image_reward",
}
CHECKS = {
    "test_every_picture_has_one_score_whatever_its_company": "order, batch",
    "test_a_score_lies_in_range_and_does_not_depend_on_its_company": "order, batch",
    "test_scores_belong_to_the_pictures_that_were_sent": "order, batch",
    "test_any_size_has_a_score_in_range": "sizes, range",
    "test_scores_lie_in_the_stated_range": "sizes, range",
    "test_flat_grey_pictures_have_finite_scores_in_range": "grey",
    "test_any_prompt_has_a_score": "prompts",
    "test_a_prompt_that_cannot_be_read_is_refused": "prompts",
    "test_a_prompt_that_counts_nothing_is_told_what_to_give": "prompts",
    "test_gradients_are_the_slopes_of_the_score": "gradient",
    "test_the_learned_rewards_gradients_are_slopes": "gradient",
    "test_without_a_folder_it_says_how_to_make_one": "no weights",
    "test_pickles_are_refused": "pickle",
    "test_corrupt_weights_are_refused": "corrupt",
    "test_a_missing_file_is_named": "missing file",
}


def place(item: pytest.Function) -> Place | None:
    """The reward a test is of, and the check it makes."""
    name = item.originalname
    if name in FORMULAS:
        return f"`{FORMULAS[name]}`", "formula"
    if name in CHECKS and item.path.name in ALONE:
        return f"`{ALONE[item.path.name]}`", CHECKS[name]
    if name in CHECKS and hasattr(item, "callspec"):
        return f"`{item.callspec.params['name']}`", CHECKS[name]
    return None


if __name__ == "__main__":
    table = Table("reward", ["formula", *dict.fromkeys(CHECKS.values())], place)
    sys.exit(run(table, FILES, [f"`{name}`" for name in REWARDS], sys.argv[1:]))
