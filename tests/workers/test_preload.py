"""What the server that engines are forked from may touch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from contracts.jobs import Status
from tests.workers.conftest import Desk, Start, wait_for

ROOT = Path(__file__).parents[2]
BUILT_FOR_CUDA = """
import os
import torch

def touched():
    raise SystemExit("CUDA was begun before the fork: no engine could use it")

torch.cuda._is_compiled = lambda: True
torch.cuda._device_count_nvml = lambda: 1
torch._C._cuda_getDeviceCount = torch.cuda._lazy_init = touched
torch._C._cuda_getCurrentRawStream = None  # a build for CUDA has it
torch.accelerator.current_accelerator = lambda *_: torch.device("cuda")
before = dict(os.environ)
import workers.preload
from diffusers.utils import torch_utils
assert torch_utils.torch_device == "cuda", "the GPU was not seen, so this test shows nothing"
assert dict(os.environ) == before
"""


@pytest.mark.parametrize("asked_so", [{}, {"PYTORCH_NVML_BASED_CUDA_CHECK": "0"}])
def test_no_gpu_is_begun_before_engines_are_forked(asked_so: dict[str, str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **asked_so}
    ran = subprocess.run(
        [sys.executable, "-c", BUILT_FOR_CUDA], env=environment, check=False, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr[-1000:]) == (0, ran.stderr[-1000:])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_worker_searches_on_a_gpu(desk: Desk, start: Start) -> None:
    start(ROLLOVER_DEVICE="cuda:0")
    job = desk.submit()
    wait_for(lambda: desk.record(job).status is Status.SUCCEEDED)
