"""What is compared, and in which order it is measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.cells import Cell
from benchmarks.setup import Method
from contracts.search import AUTHORS, SMALL, WIDE, rbf_defaults

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
    "svdd, 1 chain": Method("svdd", {"chains": 1}, {}),
    "evolution": Method("evolution", {}, {}),
    "rbf": Method("rbf", {}, {}),
    "rbf, upstream": Method("rbf", {"mode": "upstream", **AUTHORS}, {}),
}
KERNELS = {
    f"{name}, {kernel}": Method(name.partition(",")[0], params, sampler)
    for name, params in {"rbf, 2 chains, 25 noises": AUTHORS, "svdd": {}, "smc": {}}.items()
    for kernel, sampler in {"linear ODE": LINEAR_ODE, "linear SDE": LINEAR_SDE, "ddim": DDIM}.items()
}
"""Those of rbf have the paper's chains and noises."""
SETTINGS = {
    f"rbf, {chains} {'chain' if chains == 1 else 'chains'}, {noises} noises{name}": Method(
        "rbf", {"chains": chains, "initial_noises": noises}, sampler
    )
    for name, sampler in {"": {}, ", linear SDE": LINEAR_SDE, ", ddim": DDIM}.items()
    for chains in (1, 2, 4)
    for noises in (6, 12, 25)
}
SMALL_NAME, LARGE_NAME = "rbf, 1 chain, 12 noises", "rbf, 2 chains, 25 noises"
WIDE_NAME = "rbf, 2 chains, 50 noises, top, width 8"
OURS = {SMALL_NAME: SMALL, LARGE_NAME: AUTHORS, WIDE_NAME: WIDE}
"""What the default has, by budget."""
WIDTHS = {
    f"{name}, width {width}": Method("rbf", {**params, "width": width, "accept": "best"}, {})
    for name, params in {SMALL_NAME: SMALL, LARGE_NAME: AUTHORS}.items()
    for width in (2, 4, 8)
}
"""Several children at a time, the best taken."""
RIVALS = {
    "code, 1 chain": Method("code", {"chains": 1}, {}),
    "local search at t = 1, patience 1": Method(
        "zero_order", {"steps": 1, "finish_steps": 4, "patience": 1}, {}
    ),
}
ABLATED = {
    "rbf, no rollover": Method("rbf without rollover", {}, {}),
    "rbf, no finish": Method("rbf", {"finish_steps": 0}, {}),
    "rbf, the end of the run": Method("rbf, the end of the run", {}, {}),
    "rbf, upstream, the best of the run": Method(
        "upstream, the best of the run", {"mode": "upstream", **AUTHORS}, {}
    ),
    "rbf, upstream, 12 noises": Method("rbf", {"mode": "upstream", **AUTHORS, "initial_noises": 12}, {}),
}
"""The default without one of its ideas, and the authors' way with one of them."""
DEFAULT_LINEAR = {"rbf, linear SDE": Method("rbf", {}, LINEAR_SDE)}
"""The default on the other path."""
GUIDED = {
    f"{strategy}, guidance {strength}": Method(strategy, {}, {"reward_guidance": float(strength)})
    for strategy in ("base", "rbf")
    for strength in (30, 100)
}
WIDEST = {WIDE_NAME: Method("rbf", {**WIDE}, {})}
METHODS = MAIN | KERNELS | SETTINGS | WIDTHS | WIDEST | RIVALS | ABLATED | DEFAULT_LINEAR | GUIDED


@dataclass(frozen=True)
class Stage:
    """Cells that belong together.

    `draw` numbers the seeds of a prompt: all methods have the same ones.
    """

    rewards: Sequence[str]
    budgets: Sequence[int]
    methods: Sequence[str]
    prompts: range
    draw: int = 0

    def cells(self, reward: str, prompt: int, precision: str) -> list[Cell]:
        """Of one prompt, each once, those that no budget pays for included."""
        seed = seed_of(prompt, self.draw)
        return [
            Cell(reward, nfe, name, prompt, seed, precision)
            for nfe in self.budgets
            for name in dict.fromkeys(named(method, nfe) for method in self.methods)
        ]


def named(method: str, nfe: int) -> str:
    """The name of the settings that a method has at a budget: the default's are another's for each."""
    if method != "rbf":
        return method
    return next(name for name, settings in OURS.items() if rbf_defaults(nfe) is settings)


def seed_of(prompt: int, draw: int) -> int:
    """The seed of a prompt's searches: two prompts that share noises make errors over prompts too small."""
    return 1000 * (draw + 1) + prompt


MATCH, COUNT = ("scene_match",), ("object_count",)
BUDGETS = (50, 100, 200, 500)
TABLE, CHOSEN_ON, FRESH = range(200), range(200, 300), range(360, 560)
"""Prompts that tables are of, that settings were chosen on, and that nothing was (nor calibrated)."""
DRAWS = range(3)
LEADING = (
    "rbf",
    "rbf, upstream",
    "svdd",
    "svdd, 1 chain",
    "local search at t = 1",
    "best_of_n, 10 steps",
)
"""Those that a claim is about."""
RIVALLING = ("rbf", "svdd", "svdd, 1 chain", "code", "smc", "evolution", "local search at t = 1", *RIVALS)
ORDER = (
    *(
        Stage(rewards, (BASE_NFE, *BUDGETS), [*MAIN], TABLE, draw)
        for draw in DRAWS
        for rewards in (MATCH, COUNT)
    ),
    Stage(MATCH, BUDGETS, LEADING, FRESH),
    Stage(MATCH, (100, 200), [*RIVALLING, *SETTINGS, *WIDTHS], CHOSEN_ON),
    *(Stage(MATCH, (500,), [LARGE_NAME, WIDE_NAME], prompts) for prompts in (CHOSEN_ON, FRESH)),
    *(Stage(MATCH, BUDGETS, [SMALL_NAME, LARGE_NAME, *DEFAULT_LINEAR], TABLE, draw) for draw in DRAWS),
    Stage(MATCH, (100, 200), ["rbf", "rbf, upstream", *ABLATED], TABLE, draw=1),
    Stage(MATCH, (100,), [*KERNELS], TABLE),
    Stage(MATCH, (BASE_NFE, 100), [*GUIDED], range(24)),
)
"""The most telling first. Within a stage the longest of some prompts come first: one that was stopped has all
methods of the prompts before those only."""
