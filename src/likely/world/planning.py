"""`plan`: solve a learned world on a grid, act greedily in it, and say which error is which.

Exact planning in a wrong world is still wrong, so a plan carries three separate errors, never their
sum:

- **planning**: the solver's certificate, |V - V*| of the gridded world, proven;
- **discretisation**: V of the gridded world at the first states against what the plan's own policy
  earns in the learned world without the grid, and how V moves as the grid is refined. Multilinear
  weights diffuse, so this difference is large even where the world is known exactly; it is no error
  of the model, and the policy may be right long before V is;
- **model**: nats of the learned world on held-out transitions beside the null model's, and what the
  policy earns in the true environment against what the learned world promised, from the same first
  states.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from likely.errors import InvalidData, InvalidSetting
from likely.estimate import Estimate
from likely.files import reading
from likely.mdp.model.arrays import FloatArray, IntArray
from likely.mdp.model.problem import MDP, is_discounting, read_npz, write_npz
from likely.mdp.model.solution import Solution, at_most
from likely.mdp.solvers.solve import solve
from likely.world.grid import Averager, Points, averager, look_ahead, to_mdp
from likely.world.learn import fit, held_out_nats
from likely.world.model import TransitionModel
from likely.world.play import Played, act
from likely.world.tasks import task_for
from likely.world.trajectories import Trajectories


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A learned world, solved; as a function of observations [n, o] it gives actions [n].

    Attributes:
        model: the learned world.
        grid: of the states, or their `Points`.
        mdp: the world on the grid; its last state is the end of the episode.
        solution: value and policy with their certificate.
        quadrature: nodes for the noise, as in `to_mdp`.
    """

    model: TransitionModel
    grid: Averager
    mdp: MDP
    solution: Solution
    quadrature: int = 3

    def __call__(self, observation: Any) -> IntArray:
        """Numbers of the best actions: one step of the learned world, then V."""
        return self.choose(self.model.task.states(observation))

    def choose(self, state: FloatArray) -> IntArray:
        """[n] numbers of the best actions in states [n, d]."""
        return np.asarray(self.action_values(state).argmax(axis=1), dtype=np.int64)

    def action_values(self, state: FloatArray) -> FloatArray:
        """r + discount E[V(s')] of states [n, d], [n, A]."""
        value, columns = self.solution.value, []
        for a in range(len(self.model.task.actions)):
            ahead = look_ahead(self.model, self.grid, state, a, self.quadrature)
            after = (ahead.weight * value[ahead.corner]).sum(axis=1)
            columns.append(ahead.reward + self.mdp.discount * after)
        return np.stack(columns, axis=1)

    def value(self, state: FloatArray) -> FloatArray:
        """V of states [n, d] between the grid's points, [n]."""
        corner, weight = self.grid.weights(self.model.task.inside(np.atleast_2d(state)))
        return np.asarray((weight * self.solution.value[corner]).sum(axis=1))

    def __repr__(self) -> str:
        return f"Plan({self.model.task.name}, {self.grid}; {self.solution.status})"

    def save(self, path: str | Path) -> None:
        """Write value, policy and grid as `.npz`."""
        write_npz(Path(path), {
            "value": self.solution.value, "lower": self.solution.lower,
            "upper": self.solution.upper, "policy": self.solution.policy,
            "discount": np.array(self.mdp.discount), "quadrature": np.array(self.quadrature),
            **self.grid.arrays(),
        })  # fmt: skip

    @classmethod
    def load(cls, path: str | Path, model: TransitionModel) -> Plan:
        """Read what `save` wrote, beside the model that it is of; certified again."""
        arrays = read_npz(Path(path), "a plan")
        places = ("points", "neighbours") if "points" in arrays else ("grid",)
        for name in ("value", *places, "discount", "quadrature"):
            if name not in arrays:
                raise InvalidData(f'{path}: "{name}" is missing')
        with reading(Path(path), what="not a plan"):
            if "points" in arrays:
                points = arrays["points"].reshape(-1, model.task.dimensions)
                grid: Averager = Points(model.task, points, int(arrays["neighbours"]))
            else:
                grid = averager(model.task, [int(n) for n in arrays["grid"]])
            if grid.size + 1 != len(arrays["value"]):
                raise InvalidData(
                    f"a value of {len(arrays['value'])} states on a grid of {grid.size}"
                )
            return plan(
                model, grid, discount=float(arrays["discount"]), tolerance=math.inf,
                quadrature=min(9, int(arrays["quadrature"])), start=arrays["value"],
            )  # fmt: skip


def plan(
    model: TransitionModel,
    grid: Sequence[int] | Averager | None = None,
    *,
    discount: float | None = None,
    tolerance: float = 1e-3,
    quadrature: int | None = None,
    start: FloatArray | None = None,
) -> Plan:
    """Solve a learned world on a grid.

    Args:
        model: from `fit`.
        grid: [d] points a side, by default those of the task, else about 20,000 points; or
            `Points`, codes or states of the log.
        discount: below 1; by default that of the task.
        tolerance: the error |V - V*| in the gridded world to reach, in units of reward.
        quadrature: nodes for the noise, by default those of the task; see `to_mdp`.
        start: [S] a value to begin with.

    Raises:
        InvalidSetting: a discount of 1, a grid that does not fit.
    """
    rate = model.task.discount if discount is None else discount
    if not is_discounting(rate):
        raise InvalidSetting(f"a plan needs a discount between 0 and 1, given {rate}")
    quadrature = model.task.quadrature if quadrature is None else quadrature
    lattice = averager(model.task, grid)
    process = to_mdp(model, lattice, discount=rate, quadrature=quadrature)
    if start is not None and start.shape != (process.states,):
        raise InvalidData(f"a value of shape {start.shape}, the grid has {process.states} states")
    endless = not math.isfinite(tolerance)
    solution = solve(process, tolerance=1e300 if endless else tolerance, start=start)
    return Plan(model, lattice, process, solution.uninterrupted(), quadrature)


def imagine(
    plan: Plan, state: FloatArray, steps: int, *, seed: int = 0
) -> tuple[FloatArray, FloatArray]:
    """What a plan's policy earns in its learned world, without the grid, from states [n, d].

    Returns:
        Sums of the rewards of the first `steps` steps [n], and discounted sums [n] until a
        thousandth of the weight is left: a cut has no place in V.
    """
    rate = plan.mdp.discount
    noise, state = np.random.default_rng(seed), np.array(state)
    returns, discounted, live = np.zeros(len(state)), np.zeros(len(state)), np.arange(len(state))
    for step in range(max(steps, math.ceil(math.log(1e-3) / math.log(rate)))):
        drawn = plan.model.draw(state[live], plan.choose(state[live]), noise)
        returns[live] += drawn.reward if step < steps else 0.0
        discounted[live] += rate**step * drawn.reward
        state[live] = drawn.state
        live = live[~drawn.terminated]
        if not len(live):
            break
    return returns, discounted


def validate(
    trajectories: Trajectories,
    model: str = "polynomial",
    *,
    task: Any = None,
    steps: Sequence[int] = (1, 5, 20),
    fraction: float = 0.2,
    **settings: Any,
) -> dict[str, dict[int, Estimate]]:
    """Held-out nats by horizon of a model and of the null model, fitted on the first rows.

    A memory that the task has was fitted to all rows: it is left out, and fitted again.

    Returns:
        {"model": {steps: nats}, "null": {steps: nats}}; see `held_out_nats`.
    """
    kept, held = trajectories.split(fraction)
    task = task_for(trajectories, task)
    task = task if task.memory is None else task.memory.task
    return {
        "model": held_out_nats(fit(kept, model, task=task, **settings), held, steps=steps),
        "null": held_out_nats(fit(kept, "mean-change", task=task), held, steps=steps),
    }


@dataclasses.dataclass(frozen=True, eq=False)
class Errors:
    """The three errors of a plan.

    Attributes:
        planning: proven bound on |V - V*| in the gridded world.
        value: mean V of the plan at the first states, on its grid.
        refinement: points a side and mean V at the first states, coarse to fine.
        promised, promised_discounted: [n] returns of the policy in the learned world, no grid.
        earned: episodes in the true environment from the same first states, or None.
        nats: held-out nats of the model and of the null model, or empty.
        steps: after which `promised` is cut, as the true environment cuts its episodes.
    """

    planning: float
    value: float
    refinement: tuple[tuple[tuple[int, ...], float], ...]
    promised: FloatArray
    promised_discounted: FloatArray
    earned: Played | None
    nats: dict[str, dict[int, Estimate]]
    discount: float
    steps: int
    declared: tuple[str, ...]

    @property
    def discretisation(self) -> float:
        """Mean V on the grid less what its policy earns in the learned world without the grid."""
        return self.value - float(self.promised_discounted.mean())

    @property
    def model(self) -> float | None:
        """Mean return in the learned world less that in the true one, from the same states."""
        return None if self.earned is None else float((self.promised - self.earned.returns).mean())

    def record(self) -> dict[str, Any]:
        """As JSON."""
        earned = self.earned
        return {
            "planning": {"error_bound": self.planning},
            "discretisation": {
                "difference": self.discretisation,
                "value_on_grid": self.value,
                "discounted_return_in_learned_world": float(self.promised_discounted.mean()),
                "refinement": [{"grid": list(n), "value": v} for n, v in self.refinement],
            },
            "model": {
                "difference": self.model,
                "return_in_learned_world": float(self.promised.mean()),
                "return": None if earned is None else float(earned.returns.mean()),
                "discounted_return": None if earned is None else float(earned.discounted.mean()),
                "held_out_nats": {
                    name: {str(h): e.value for h, e in by_steps.items()}
                    for name, by_steps in self.nats.items()
                },
                "declared": list(self.declared),
            },
        }

    def __str__(self) -> str:
        coarse = "; ".join(f"{'x'.join(map(str, n))}: {v:.4g}" for n, v in self.refinement)
        lines = [
            f"planning        |V - V*| <= {at_most(self.planning)} in the gridded world (proven)",
            f"discretisation  V(start) on the grid {self.value:.4g}, its policy earns "
            f"{self.promised_discounted.mean():.4g} (discounted by {self.discount:g}) in the "
            "learned world without the grid",
            f"                refined, {coarse}",
        ]
        head = "model           "
        if self.earned is not None:
            gap = self.promised - self.earned.returns
            error = gap.std(ddof=1) / math.sqrt(len(gap)) if len(gap) > 1 else math.inf
            lines.append(
                f"{head}return {self.promised.mean():.5g} in the learned world, "
                f"{self.earned.returns.mean():.5g} in the true one: difference {gap.mean():.3g} ± "
                f"{error:.2g}"
            )
            head = " " * len(head)
        for h, nats in self.nats.get("model", {}).items():
            null = self.nats["null"][h]
            lines.append(
                f"{head}{h}-step held-out nats {nats.relation.value} {nats.value:.4g} ± "
                f"{nats.standard_error:.2g}, null model {null.relation.value} {null.value:.4g}"
            )
            head = " " * len(head)
        if self.declared:
            lines.append(f"{head}declared, not learned: {', '.join(self.declared)}")
        return "\n".join(lines)

    __repr__ = __str__


def errors(
    plan: Plan,
    environment: Any = None,
    *,
    states: FloatArray | None = None,
    nats: dict[str, dict[int, Estimate]] | None = None,
    episodes: int = 20,
    seed: int = 0,
    refine: Sequence[float] = (0.5,),
    steps: int = 1000,
) -> Errors:
    """Planning, discretisation and model error of a plan, apart.

    Args:
        plan: from `plan`.
        environment: the true one, as `act` takes it; None where there is only a log.
        states: [n, d] first states where there is no environment.
        nats: what `validate` measured.
        episodes: from the first states of the seeds `seed`, `seed` + 1, ...
        refine: factors of the grid's sides to solve besides; above 1 is finer. Of `Points`, of
            their number.
        steps: of the undiscounted returns in the learned world, where the true one has no limit.
    """
    task, earned, begin = plan.model.task, None, states
    if environment is not None:
        earned = act(environment, plan, episodes, seed, discount=plan.mdp.discount)
        begin = task.states(earned.first)
        # The learned world is cut where the true one was.
        cut = earned.lengths[~earned.terminated]
        steps = earned.limit or (int(cut.max()) if len(cut) else steps)
    if begin is None:
        raise InvalidSetting("errors needs an environment, or the first states of the log")
    refinement = [(plan.grid.counts, float(plan.value(begin).mean()))]
    for factor in refine:
        other = plan_like(plan, plan.grid.refined(factor))
        refinement.append((other.grid.counts, float(other.value(begin).mean())))
    refinement.sort(key=lambda item: math.prod(item[0]))
    promised, discounted = imagine(plan, begin, steps, seed=seed)
    return Errors(
        plan.solution.error, float(plan.value(begin).mean()), tuple(refinement), promised,
        discounted, earned, nats or {}, plan.mdp.discount, steps, task.declared,
    )  # fmt: skip


def plan_like(other: Plan, grid: Averager) -> Plan:
    """The same world on another grid."""
    return plan(
        other.model, grid, discount=other.mdp.discount, quadrature=other.quadrature,
        tolerance=max(1e-3, other.solution.error),
    )  # fmt: skip
