"""Programs that are told to stop while they still import what they need."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("program", "number"),
    [
        ("app", signal.SIGTERM),
        ("app.webhooks", signal.SIGTERM),
        ("workers", signal.SIGTERM),
        ("workers", signal.SIGINT),
    ],
)
def test_a_program_told_to_stop_before_it_has_begun_ends_well(
    program: str, number: signal.Signals, tmp_path: Path
) -> None:
    held = {"PYTHONPATH": str(ROOT / "tests/held"), "HELD_MODULE": "pydantic", "HELD_FOLDER": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", program], cwd=ROOT, env=os.environ | held, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            while not (tmp_path / "reached").exists():
                time.sleep(0.01)
            process.send_signal(number)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, said) == (0, "")
