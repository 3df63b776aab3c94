"""Run the checks of every family and print them as a table: `python -m tests.models`."""

import sys
from pathlib import Path

import pytest

from tests.models.table import Place, Table, run

CHECKS = {
    "test_the_schedule_is_the_familys_own": "times",
    "test_each_forward_pass_is_counted": "passes counted",
    "test_guidance_matters_and_does_not_linger": "guidance its own",
    "test_rows_at_different_times_do_not_see_each_other": "rows apart",
    "test_a_call_leaves_no_trace_in_the_next": "no trace",
    "test_gradients_flow_from_the_pictures_to_the_latents": "gradient",
    "test_weights_in_8_bits_give_nearly_the_same_velocity": "8 bits",
    "test_half_precision_runs": "half",
    "test_networks_that_come_and_go_give_the_same_bits": "offload",
    "test_a_short_rbf_run_spends_its_budget_exactly": "rbf, exact NFE",
}
RUNS = {
    "test_a_base_run_is_the_familys_own_pipeline": "base",
    "test_an_ode_run_is_a_diffusions_own_pipeline": "ode",
}
COLUMNS = [
    f"{run} {kind}, batch {batch}"
    for run in RUNS.values()
    for kind in ("guided", "unguided")
    for batch in (1, 3)
]


def place(item: pytest.Function) -> Place | None:
    """The family a test is of, and the check it makes."""
    if not hasattr(item, "callspec") or "scale" not in item.callspec.params:
        return None
    family = str(item.callspec.params["name"])
    if item.originalname in RUNS:
        kind = "unguided" if "unguided" in item.callspec.id else "guided"
        return family, f"{RUNS[item.originalname]} {kind}, batch {item.callspec.params['batch']}"
    check = CHECKS.get(item.originalname)
    return (family, check) if check else None


if __name__ == "__main__":
    table = Table("family", [*COLUMNS, *CHECKS.values()], place)
    sys.exit(run(table, [Path(__file__).parent / "test_families.py"]))
