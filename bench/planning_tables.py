"""Tables of the pages about plans, counts and beliefs, from the results under bench/results."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from figures import markdown

TASKS = {
    "cartpole": "CartPole-v1", "mountaincar": "MountainCar-v0", "pendulum": "Pendulum-v1",
    "acrobot": "Acrobot-v1",
}  # fmt: skip
POLICIES = {
    "spibb": "SPIBB, rare pairs kept (Pi_b)", "spibb-at-most": "SPIBB, rare pairs at most (Pi_<=b)",
    "soft-spibb": "soft-SPIBB", "greedy": "greedy in the same model",
    "certified": "certified improvement",
}  # fmt: skip
SETS = {
    "l1, all states": "L1, all states possible", "l1, known support": "L1, moves known",
    "intervals, known support": "intervals, moves known",
    "intervals, unknown rewards": "the same, rewards unknown",
}  # fmt: skip
PROBLEMS = {
    "tiger": ("Tiger", "2, 3, 2", 0.95, 6), "tiger-0.75": ("Tiger", "2, 3, 2", 0.75, 6),
    "light-maze": ("light maze", "9, 4, 6", 0.95, 6), "shuttle": ("shuttle", "8, 3, 5", 0.95, 4),
    "hallway": ("Hallway", "60, 5, 21", 0.95, 3), "hallway2": ("Hallway2", "92, 5, 17", 0.95, 3),
    "tag-avoid": ("TagAvoid", "870, 5, 30", 0.95, 3),
}  # fmt: skip


def outwards(low: float, high: float, digits: int) -> str:
    """An interval to this many decimals, rounded so that it still holds."""
    unit = Decimal(1).scaleb(-digits)
    ends = Decimal(low).quantize(unit, ROUND_FLOOR), Decimal(high).quantize(unit, ROUND_CEILING)
    return f"[{ends[0]}, {ends[1]}]"


def bounds(record: dict[str, Any]) -> str:
    """[L, U] of the frozen lake against the number of draws."""
    rows = []
    for row in record["about"]["table"]:
        cells = [outwards(row[k]["lower"], row[k]["upper"], 4) for k in SETS if k in row]
        earned = row["intervals, known support"]["value_of_policy"]
        rows.append([f"{row['n']:,}", *cells, f"{earned:.4f}"])
    kept = [title for key, title in SETS.items() if key in record["about"]["table"][0]]
    covered = record["figures"]["robust/coverage"]
    sets = record["settings"]["data_sets"]
    return (
        markdown(["n", *kept, "its policy earns"], rows)
        + f"\nIn {sets} resampled data sets [L, U] covered {{math}}`V^*` in every state "
        f"{round(covered * sets / 100)} times, for each kind of set, drawn and played\n(the worst "
        "of them counts): union bounds are on the safe side.\n\n"
    )


def safety(record: dict[str, Any]) -> str:
    """What safe and unsafe improvements of a policy earn."""
    figures, rows = record["figures"], []
    for key, title in POLICIES.items():
        if f"robust/{key}/value" in figures:
            ends = ("value", "value-of-worst-set", "safe", "not-worse")
            mean, least, safe, never = (figures[f"robust/{key}/{end}"] for end in ends)
            rows.append([title, f"{mean:.4f}", f"{least:.4f}", f"{safe:g} %", f"{never:g} %"])
    heads = ["policy", "mean", "worst data set", "at least 9/10 of the behaviour policy's value",
             "at least all of it"]  # fmt: skip
    return markdown(heads, rows) + "\n"


def certified(record: dict[str, Any]) -> str:
    """What proofs make of the behaviour policy, from ever more episodes."""
    figures, rows = record["figures"], []
    for episodes, sets in record["settings"].get("growing", {}).items():
        key, ends = f"robust/certified-{episodes}", ("switches", "value", "value-of-worst-set")
        if f"{key}/value" in figures:
            left, mean, least = (figures[f"{key}/{end}"] for end in ends)
            never = figures[f"{key}/no-state-worse"]
            rows.append([f"{int(episodes):,}", f"{sets}", f"{left:.1f}", f"{mean:.4f}",
                         f"{least:.4f}", f"{never:g} %"])  # fmt: skip
    heads = ["episodes", "data sets", "actions left", "mean value", "worst data set",
             "no state is worth less"]  # fmt: skip
    return markdown(heads, rows) + "\n"


def beliefs(record: dict[str, Any]) -> str:
    """Intervals of V* at the first belief."""
    figures, rows = record["figures"], []
    for key, (title, sizes, discount, digits) in PROBLEMS.items():
        if f"pomdp/{key}/lower" in figures:
            low, high, seconds = (
                figures[f"pomdp/{key}/{n}"] for n in ("lower", "upper", "seconds")
            )
            rows.append([
                title, sizes, f"{discount:g}", outwards(low, high, digits),
                f"{seconds:.2g} s",
            ])  # fmt: skip
    heads = ["problem", "states, actions, observations", "discount",
             "interval of V* at the first belief", ""]  # fmt: skip
    return markdown(heads, rows) + "\n"


def worlds(record: dict[str, Any]) -> str:
    """Returns after few random transitions, rewards and ends declared and not."""
    figures, rows = record["figures"], []
    for key, about in record["about"].items():
        name = key.split("/")[1].split("-")[0]
        if name not in TASKS or f"{key}/return" not in figures:
            continue
        pictures = key.endswith("-pixels")
        seeds = len(about["trials"])
        most = " of 500" if name == "cartpole" else ""
        at_most = f"{key}/seeds-at-500"
        rows.append([
            TASKS[name] + ", before a camera" * pictures, f"{about['transitions']:,}",
            "nothing" if key.endswith("undeclared") else "rewards" + ", ends" * (not pictures),
            f"{figures[f'{key}/return']:.1f}{most}",
            f"{figures[f'{key}/return-of-worst-seed']:.1f}",
            f"{figures[at_most]:.0f} of {seeds} seeds at 500" if at_most in figures
            else f"{seeds} seed{'s' * (seeds > 1)}",
            f"{figures[f'{key}/seconds']:.1f} s",
        ])  # fmt: skip
    heads = [
        "environment",
        "transitions",
        "declared",
        "mean return",
        "worst seed",
        "",
        "slowest seed",
    ]
    return markdown(heads, rows) + "\n"


def slip(record: dict[str, Any]) -> str:
    """Nats of one and several steps in a world of two modes."""
    figures, rows, steps = record["figures"], [], (1, 3, 5)
    models = record["about"].get("world/slip", {}).get("models", {})
    for name, about in models.items():
        cells = []
        for h in steps:
            nats, error = (
                figures[f"world/slip/{name}/{e}-{h}"] for e in ("nats", "standard-error")
            )
            cells.append(f"{'=' if h == 1 else '<='} {nats:.3f} ± {error:.3f}")
        rows.append([name, about, *cells])
    if models:
        rows.append(
            ["the truth", "its entropy", f"{figures['world/slip/truth/nats-1']:.3f}", "", ""]
        )
    return markdown(["model", "", *(f"{h}-step nats" for h in steps)], rows) + "\n"


def camera(record: dict[str, Any]) -> str:
    """The three errors of each seed of the pole before a camera."""
    rows = []
    for t in record["about"].get("world/cartpole-pixels", {}).get("trials", []):
        errors = t["errors"]
        grid, model = errors["discretisation"], errors["model"]
        nats = model["held_out_nats"]
        rows.append([
            f"{t['seed']}", f"{errors['planning']['error_bound']:.1g}",
            f"{grid['value_on_grid']:.1f}, {grid['discounted_return_in_learned_world']:.1f}",
            f"{model['return_in_learned_world']:.1f}, {model['return']:.1f}",
            *(f"{nats['model'][h]:.1f}, {nats['null'][h]:.1f}" for h in ("1", "20")),
            f"{t['seconds']:.0f} s",
        ])  # fmt: skip
    heads = ["seed", "planning: error at most", "discretisation: V on the grid, earned without it",
             "model: return promised, true", "1-step nats, null model", "20-step nats, null model",
             "fit and plan, CPU"]  # fmt: skip
    return markdown(heads, rows) + "\n"


SIGHTS = {
    "vrnn": "VRNN, its belief as the state",
    "two-frames": "polynomial, change since the step before",
    "polynomial": "polynomial, what is seen now", "mean-change": "null model, mean change",
}  # fmt: skip


def hidden(record: dict[str, Any]) -> str:
    """Returns and nats where velocities are hidden."""
    figures, rows, key = record["figures"], [], "world/cartpole-hidden"
    if f"{key}/truth/floor" not in figures:
        return "Not measured yet.\n\n"
    for name, title in SIGHTS.items():
        cells = []
        for h in (1, 5, 20):
            if (nats := figures.get(f"{key}/{name}/nats-{h}")) is None:
                cells.append("other states")
                continue
            sign = "=" if h == 1 and name != "vrnn" else "<="
            cells.append(f"{sign} {nats:.2f} ± {figures[f'{key}/{name}/standard-error-{h}']:.2f}")
        ends = (figures[f"{key}/{name}/{end}"] for end in ("return", "return-of-worst-seed"))
        rows.append([title, *cells, *(f"{value:.1f}" for value in ends)])
    rows.append(
        ["what the noise alone costs", *[f"{figures[f'{key}/truth/floor']:.2f}"] * 3, "", ""]
    )
    heads = ["model", *(f"{h}-step nats" for h in (1, 5, 20)), "mean return", "worst seed"]
    return markdown(heads, rows) + "\n"


METHODS = {
    "grid": "model on a grid", "codes": "codes", "dac-mdp": "DAC-MDP", "kernels": "KBSF",
    "fitted-q": "fitted Q", "cloned": "cloned", "null": "null model",
}  # fmt: skip


def curves(record: dict[str, Any]) -> str:
    """Returns of all methods against the number of transitions."""
    figures, rows = record["figures"], []
    points = {tuple(key.split("/")[1:3]): 0 for key in figures}
    for name, n in sorted(points, key=lambda point: (list(TASKS).index(point[0]), int(point[1]))):
        cells = []
        for method in METHODS:
            key = f"world-curves/{name}/{n}/{method}"
            seeds = len(record["about"].get(key, [0]))
            error = f" ± {figures[f'{key}/interval']:.0f}" if seeds > 1 else ""
            there = f"{key}/return" in figures
            cells.append(f"{figures[f'{key}/return']:.0f}{error}" if there else "")
        rows.append([TASKS[name], f"{int(n):,}", *cells])
    return markdown(["environment", "transitions", *METHODS.values()], rows) + "\n"


# (page, name of the block, result, function).
BLOCKS = (
    ("mdp-counts", "bounds", "robust", bounds), ("mdp-counts", "safety", "robust", safety),
    ("mdp-counts", "certified", "robust", certified),
    ("mdp-beliefs", "beliefs", "pomdp", beliefs), ("worlds", "worlds", "world", worlds),
    ("worlds", "camera", "world", camera), ("worlds", "slip", "world", slip),
    ("worlds", "curves", "world-curves", curves), ("worlds", "hidden", "world", hidden),
)  # fmt: skip
