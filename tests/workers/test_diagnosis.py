"""What a client is told of an error in the engine."""

import pytest

from models.rewards.protocol import RewardLoadError
from workers.diagnosis import job_error
from workers.failures import JobFailedError


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/srv/secret-mount/hps: it could not be loaded", "…/hps: it could not be loaded"),
        (
            "there is no folder '/srv/clip': run hf download a/b",
            "there is no folder '…/clip': run hf download a/b",
        ),
        ("see https://huggingface.co/a/b, 3/4 of it", "see https://huggingface.co/a/b, 3/4 of it"),
    ],
)
def test_folders_of_this_machine_are_not_told(text: str, told: str) -> None:
    error = JobFailedError("reward_failed")
    error.__cause__ = RewardLoadError(text)
    assert job_error(error).detail == told
