"""What is compared, and in which order it is measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.cells import Cell
from benchmarks.setup import Method

BASE_NFE = 10
"""What plain sampling takes, whatever the budget."""
LINEAR_ODE = {"interpolant": "linear", "kernel": "ode"}
LINEAR_SDE = {"interpolant": "linear"}
DDIM = {"kernel": "ddim"}

MAIN = {
    "base": Method("base", {}, {}),
    "best_of_n, 10 steps": Method("best_of_n", {}, {}),
    "best_of_n, 4 steps": Method("best_of_n", {"steps": 4}, {}),
    "best_of_n, 1 step": Method("best_of_n", {"steps": 1}, {}),
    "local search at t = 1": Method("zero_order", {"steps": 1, "finish_steps": 4}, {}),
    "zero_order": Method("zero_order", {"steps": 4}, {}),
    "sop": Method("sop", {}, {}),
    "smc": Method("smc", {}, {}),
    "code": Method("code", {}, {}),
    "svdd": Method("svdd", {}, {}),
    "evolution": Method("evolution", {}, {}),
    "rbf": Method("rbf", {}, {}),
    "rbf, upstream": Method("rbf", {"mode": "upstream"}, {}),
}
KERNELS = {
    f"{strategy}, {name}": Method(strategy, {}, sampler)
    for strategy in ("rbf", "svdd", "smc")
    for name, sampler in {"linear ODE": LINEAR_ODE, "linear SDE": LINEAR_SDE, "ddim": DDIM}.items()
}
IDEAS = {
    "rbf, 1 chain": Method("rbf", {"chains": 1}, {}),
    "rbf, 4 chains": Method("rbf", {"chains": 4}, {}),
    "rbf, width 4, best": Method("rbf", {"width": 4, "accept": "best"}, {}),
    "rbf, width 4, ordered": Method("rbf", {"width": 4}, {}),
    "rbf, pool 10": Method("rbf", {"initial_noises": 10}, {}),
    "rbf, pool 50": Method("rbf", {"initial_noises": 50}, {}),
    "rbf, no finish": Method("rbf", {"finish_steps": 0}, {}),
}
GUIDED = {
    f"{strategy}, guidance {strength}": Method(strategy, {}, {"reward_guidance": float(strength)})
    for strategy in ("base", "rbf")
    for strength in (30, 100)
}
METHODS = MAIN | KERNELS | IDEAS | GUIDED


@dataclass(frozen=True)
class Stage:
    """Cells that belong together: all of one prompt are made before the next prompt's.

    `draw` numbers the seeds of a prompt: all methods have the same ones.
    """

    rewards: Sequence[str]
    budgets: Sequence[int]
    methods: Sequence[str]
    prompts: range
    draw: int = 0

    def cells(self, reward: str, prompt: int, precision: str) -> list[Cell]:
        """Of one prompt, those that no budget pays for included."""
        seed = seed_of(prompt, self.draw)
        return [
            Cell(reward, nfe, method, prompt, seed, precision)
            for nfe in self.budgets
            for method in self.methods
        ]


def seed_of(prompt: int, draw: int) -> int:
    """The seed of a prompt's searches: two prompts that share noises make errors over prompts too small.

    Cells made before 2026-11-26 do share them; their seeds are 0 and 1.
    """
    return 1000 * (draw + 1) + prompt


MATCH, COUNT = ("scene_match",), ("object_count",)
LONG = ("rbf", "rbf, upstream", "best_of_n, 10 steps", "best_of_n, 1 step")
VARIED = ("rbf", "rbf, linear SDE", "rbf, upstream", "svdd", "best_of_n, 1 step")
ORDER = (
    Stage(MATCH, (10, 100), [*MAIN], range(24)),
    Stage(MATCH, (100,), [*KERNELS, *IDEAS], range(12)),
    Stage(MATCH, (50, 200), [*MAIN], range(24)),
    Stage(MATCH, (100,), [*KERNELS, *IDEAS], range(24)),
    Stage(MATCH, (100,), VARIED, range(12), draw=1),
    Stage(MATCH, (500,), LONG, range(24)),
    Stage(COUNT, (10, 100), [*MAIN], range(24)),
    Stage(MATCH, (10, 50, 100, 200), [*MAIN], range(100)),
    Stage(MATCH, (100,), [*IDEAS, *KERNELS], range(100)),
    Stage(MATCH, (10, 100), [*GUIDED], range(24)),
    Stage(MATCH, (10, 50, 100, 200), [*MAIN], range(200)),
    Stage(COUNT, (10, 100, 200), [*MAIN], range(200)),
    Stage(MATCH, (500,), [*MAIN], range(200)),
    Stage(COUNT, (50, 500), [*MAIN], range(200)),
    *(Stage(MATCH + COUNT, (10, 50, 100, 200, 500), [*MAIN], range(200), draw) for draw in (1, 2)),
)
"""The most telling first, so that whatever time there was, what exists is balanced over methods."""
