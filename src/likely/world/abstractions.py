r"""Other ways from a log to an MDP, beside a model on a grid: neighbours, codes, kernels.

**Neighbours** (DAC-MDP: Shrestha, Lee, Tadepalli and Fern 2021, https://arxiv.org/abs/2010.08891).
The states are the next states of the log. For each of them and each action, the k nearest
transitions with that action are as likely as each other, and pay r - C d, d the distance to where
they began: far from the data the plan is charged. In a state that is not stored, the k_pi nearest
transitions are averaged the same way.

**Codes** (vector quantisation). States are replaced by the nearest of a few centres (k-means), and
transitions between centres are counted. An action that a centre never took leads to an absorbing
state with the smallest reward of the log for ever: R-max turned upside down.

**Kernels** (KBSF: Barreto, Precup and Pineau 2016, https://jmlr.org/papers/v17/13-134.html; after
Ormoneit and Sen 2002). For m representative states, P_a = K_a D_a and r_a = K_a r, K_a the kernel
from representatives to where the transitions with action a began, D_a from where they landed back.

All keep `terminated` apart from `truncated`: terminal successors keep their mass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from likely.errors import InvalidData
from likely.mdp.model.arrays import FloatArray, IntArray
from likely.mdp.model.problem import MDP
from likely.mdp.model.solution import Solution
from likely.mdp.solvers.solve import solve
from likely.world.features import Features, ridge
from likely.world.grid import centres_of
from likely.world.learn import columns
from likely.world.tasks import Task, task_for
from likely.world.trajectories import Trajectories


@dataclasses.dataclass(frozen=True, eq=False)
class TablePlan:
    """A solved MDP of a log, and how its policy reads observations.

    Attributes:
        task: what was declared.
        mdp: the process.
        solution: with its certificate.
        choose: states [n, d] to numbers of actions [n].
    """

    task: Task
    mdp: MDP
    solution: Solution
    choose: Callable[[FloatArray], IntArray]

    def __call__(self, observation: Any) -> IntArray:
        """Numbers of the actions for observations [n, o]."""
        return self.choose(self.task.states(observation))

    def __repr__(self) -> str:
        return f"TablePlan({self.task.name}, {self.mdp}; {self.solution.status})"


def neighbours_plan(
    trajectories: Trajectories,
    *,
    task: Any = None,
    neighbours: int = 5,
    penalty: float = 1.0,
    smoothing: int = 11,
    discount: float | None = None,
    tolerance: float = 1e-3,
) -> TablePlan:
    """DAC-MDP: solve the averager of nearest transitions.

    Args:
        trajectories: N transitions; each gives one state.
        neighbours: k.
        penalty: C, in reward for each unit of distance (of states scaled by their deviation).
        smoothing: k_pi, neighbours when acting.
        discount: by default that of the task.

    Raises:
        InvalidData: an action with fewer than one transition.
    """
    from scipy.spatial import cKDTree

    declared = task_for(trajectories, task)
    rate = declared.discount if discount is None else discount
    data, features = columns(declared, trajectories), Features(declared, 1)
    begin = features(data.state)
    scale = np.maximum(begin.std(axis=0), 1e-9)
    rows_of, trees = [], []
    for a, action in enumerate(declared.actions):
        rows = np.flatnonzero(data.action == a)
        if not len(rows):
            raise InvalidData(f"{declared.name}: action {action} was never taken")
        rows_of.append(rows)
        trees.append(cKDTree(begin[rows] / scale))

    def nearest(state: FloatArray, a: int, k: int) -> tuple[IntArray, FloatArray]:
        """Rows [n, k] of the nearest transitions with an action, and what they pay."""
        k = min(k, len(rows_of[a]))
        distance, at = trees[a].query(features(state) / scale, k=k)
        rows = rows_of[a][np.reshape(at, (len(state), k))]
        return rows, trajectories.reward[rows] - penalty * np.reshape(distance, rows.shape)

    n, actions = len(trajectories), len(declared.actions)
    parts = [nearest(data.next_state, a, neighbours) for a in range(actions)]
    counts = np.tile([rows.shape[1] for rows, _ in parts], n)
    process = MDP.from_pairs(
        np.arange(n + 1) * actions, np.append(0, np.cumsum(counts)),
        np.concatenate([rows for rows, _ in parts], axis=1).ravel(),
        np.repeat(1.0 / counts, counts),
        np.stack([pay.mean(axis=1) for _, pay in parts], axis=1).ravel(), rate,
        terminal=trajectories.terminated,
    )  # fmt: skip
    solution = solve(process, tolerance=tolerance).uninterrupted()

    def choose(state: FloatArray) -> IntArray:
        values = []
        for a in range(actions):
            rows, pay = nearest(state, a, smoothing)
            values.append((pay + rate * solution.value[rows]).mean(axis=1))
        return np.asarray(np.argmax(values, axis=0), dtype=np.int64)

    return TablePlan(declared, process, solution, choose)


def codes_plan(
    trajectories: Trajectories,
    *,
    task: Any = None,
    codes: int = 200,
    discount: float | None = None,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> TablePlan:
    """Vector quantisation: solve the counts between the centres of k-means.

    Args:
        codes: centres, at most as many as there are transitions.
        seed: of k-means.
    """
    from scipy.spatial import cKDTree

    declared = task_for(trajectories, task)
    rate = declared.discount if discount is None else discount
    data, features = columns(declared, trajectories), Features(declared, 1)
    begin = features(data.state)
    scale = np.maximum(begin.std(axis=0), 1e-9)
    centres = centres_of(begin / scale, codes, seed)
    tree, size, actions = cKDTree(centres), len(centres), len(declared.actions)

    def code(state: FloatArray) -> IntArray:
        return np.asarray(tree.query(features(state) / scale)[1], dtype=np.int64)

    unknown, end = size, size + 1
    after = np.where(trajectories.terminated, end, code(data.next_state))
    pair = code(data.state) * actions + data.action
    visits = np.bincount(pair, minlength=size * actions)
    # What a pair never did leads to the worst that is known, for ever; an episode's end pays 0.
    ends = [0.0] if trajectories.terminated.any() else []
    worst = min([float(trajectories.reward.min()), *ends])
    never = np.flatnonzero(visits == 0)
    pairs = np.concatenate([pair, never, size * actions + np.arange(actions)])
    successors = np.concatenate([after, np.full(len(never) + actions, unknown)])
    paid = np.concatenate([trajectories.reward, np.full(len(never) + actions, worst)])
    order = np.argsort(pairs, kind="stable")
    counts = np.bincount(pairs, minlength=(size + 1) * actions)
    process = MDP.from_pairs(
        np.append(np.arange(size + 2) * actions, (size + 1) * actions),
        np.append(0, np.cumsum(counts)), successors[order], np.repeat(1.0 / counts, counts), None,
        rate, successor_reward=paid[order], terminal=[end],
    )  # fmt: skip
    solution = solve(process, tolerance=tolerance).uninterrupted()
    return TablePlan(declared, process, solution, lambda state: solution.policy[code(state)])


def kernel_plan(
    trajectories: Trajectories,
    *,
    task: Any = None,
    states: int = 200,
    width: float = 0.3,
    discount: float | None = None,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> TablePlan:
    """KBSF: solve the process of a few representative states, kernels to the data and back.

    Args:
        states: representative ones, the centres of k-means; m.
        width: of both Gaussian kernels, in deviations of the states.
        seed: of k-means.

    Raises:
        InvalidData: an action that was never taken.
    """
    declared = task_for(trajectories, task)
    rate = declared.discount if discount is None else discount
    data, features = columns(declared, trajectories), Features(declared, 1)
    begin = features(data.state)
    scale = np.maximum(begin.std(axis=0), 1e-9)
    centres = centres_of(begin / scale, states, seed)
    m, actions = len(centres), len(declared.actions)

    def kernel(left: FloatArray, right: FloatArray) -> FloatArray:
        """Rows that sum to one, [n, k]; the nearest is never lost to rounding."""
        distance = ((left[:, None] - right[None]) ** 2).sum(axis=2)
        weight = np.exp(-(distance - distance.min(axis=1, keepdims=True)) / (2.0 * width**2))
        return np.asarray(weight / weight.sum(axis=1, keepdims=True))

    # Where each transition lands: at representatives, or at the end (the last column).
    landing = np.column_stack(
        [kernel(features(data.next_state) / scale, centres), np.zeros(len(begin))]
    )
    landing[trajectories.terminated] = np.eye(m + 1)[m]
    rows, reward = np.zeros((m + 1, actions, m + 1)), np.zeros((m + 1, actions))
    rows[m, :, m] = 1.0
    for a, action in enumerate(declared.actions):
        taken = data.action == a
        if not taken.any():
            raise InvalidData(f"{declared.name}: action {action} was never taken")
        near = kernel(centres, begin[taken] / scale)  # K of the paper, [m, n_a]
        rows[:m, a] = near @ landing[taken]  # K D
        reward[:m, a] = near @ trajectories.reward[taken]
    process = MDP.from_arrays(rows, reward, rate, layout="sas", terminal=[m])
    solution = solve(process, tolerance=tolerance).uninterrupted()
    q = solution.q_table(0.0)
    assert q is not None

    def choose(state: FloatArray) -> IntArray:
        """Q between the representatives, by the same kernel."""
        share = kernel(features(state) / scale, centres)
        return np.asarray((share @ q[:m]).argmax(axis=1), dtype=np.int64)

    return TablePlan(declared, process, solution, choose)


def clone(
    trajectories: Trajectories, *, task: Any = None, degree: int = 2
) -> Callable[[Any], IntArray]:
    """Behaviour cloning: the action that the log takes most, by ridge regression on a polynomial.

    Of random actions it learns nothing; of a good policy it needs no rewards. Returns a policy.
    """
    declared = task_for(trajectories, task)
    data, features = columns(declared, trajectories), Features(declared, degree)
    taken = np.eye(len(declared.actions))[data.action]
    fitted = ridge(features(data.state), taken)

    def policy(observation: Any) -> IntArray:
        scores = fitted.offset + features(declared.states(observation)) @ fitted.weights
        return np.asarray(scores.argmax(axis=1), dtype=np.int64)

    return policy
