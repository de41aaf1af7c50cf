"""Prediction: the value of a given policy, v = r_pi + discount P_pi v."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from likely.errors import InvalidData, InvalidSetting, nearest, whole
from likely.mdp.check.certificates import certify
from likely.mdp.model.arrays import FloatArray
from likely.mdp.model.operators import Policy, policy_weights, state_action_values, table_of
from likely.mdp.model.problem import MDP, is_discounting
from likely.mdp.model.solution import at_most, widest
from likely.mdp.model.world import Problem, stored
from likely.mdp.undiscounted.transient import bounds, solver_of

UNIT = 2.0**-53
SWEEPING = ("sweeps", "gauss-seidel")
METHODS = ("direct", *SWEEPING, "gmres", "bicgstab")


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """The value of a policy.

    Attributes:
        value: [S].
        lower, upper: [S] the true value of the policy lies between them, rounding included.
            Undiscounted, they come from the expected number of steps to the end.
        iterations: sweeps or Krylov steps; 0 for a direct solve.
        status: a sentence.
        history: the values after the sweeps asked for by `keep`, by their number.
        q: [pairs] r + discount P value, state-action values of the policy; `q_table` gives them
            as [S, A].
    """

    value: FloatArray
    lower: FloatArray
    upper: FloatArray
    iterations: int
    status: str
    history: dict[int, FloatArray]
    _problem: MDP

    @property
    def q(self) -> FloatArray:
        """[pairs] state-action values r + discount P value."""
        return state_action_values(self._problem, self.value)

    def q_table(self, missing: float = np.nan) -> FloatArray:
        """[S, A] `q` by state and action label, `missing` where an action is not available."""
        return table_of(self._problem, self.q, missing)

    @property
    def error(self) -> float:
        """Certified bound on max |value - V^pi|."""
        return widest(self.value, self.lower, self.upper)

    def __str__(self) -> str:
        return self.status

    def __repr__(self) -> str:
        return self.status


def evaluate(
    problem: Problem,
    policy: Policy,
    method: str = "direct",
    *,
    tolerance: float = 1e-6,
    sweeps: int | None = None,
    keep: Sequence[int] = (),
    start: npt.ArrayLike | None = None,
) -> Evaluation:
    """Value of a deterministic or stochastic policy.

        V(s) = sum_a pi(a | s) [r(s, a) + discount sum_s' p(s' | s, a) V(s')]

    Args:
        problem: an `MDP` or a `World`.
        policy: [S] action labels or names, one name for all states, [pairs] or [S, A]
            probabilities, a `Solution`, or "uniform".
        method: "direct" (sparse LU), "sweeps" (synchronous iterative evaluation),
            "gauss-seidel" (in place, solved exactly row by row), "gmres", "bicgstab".
        tolerance: true sup-norm error at which sweeps and Krylov methods stop.
        sweeps: exactly this many sweeps instead, from 0; only for the two sweeping methods.
        keep: sweep numbers whose values are kept in `history`, those that are reached; only for
            the two sweeping methods.
        start: [S] start value of sweeps and Krylov steps; default 0.

    Raises:
        InvalidSetting: an unknown method, a tolerance that is not positive, sweeps of a method
            that makes none; a discount of 1 with a policy that may never end.
        InvalidData: a policy that is not one.
    """
    if method not in METHODS:
        raise InvalidSetting(f'method="{method}" is unknown; {nearest(method, METHODS)}')
    if not tolerance > 0.0:
        raise InvalidSetting(f"tolerance {tolerance}: expected a positive number")
    if method not in SWEEPING and (sweeps is not None or len(keep)):
        raise InvalidSetting(
            f'method="{method}" makes no sweeps, so that it takes neither sweeps= nor keep=; '
            f"expected one of {', '.join(SWEEPING)}"
        )
    last = math.inf if sweeps is None else whole("sweeps", sweeps, 0)
    if any(whole("keep", number, 0) > last for number in keep):
        raise InvalidSetting(
            f"sweeps={sweeps}, keep={list(keep)}: expected those that are kept among those that "
            "are made"
        )
    mdp = stored(problem)
    began = time.perf_counter()
    weights = policy_weights(mdp, policy)
    chain, gain = policy_chain(mdp, weights)
    if not is_discounting(mdp.discount):
        _require_ending(mdp, chain)
    value = np.zeros(mdp.states)
    if start is not None:
        first = np.asarray(start, dtype=np.float64)
        if first.shape != value.shape or not bool(np.isfinite(first).all()):
            raise InvalidData(
                f"start of shape {first.shape}: expected finite numbers [{mdp.states}]"
            )
        value[:] = first
        value[mdp.terminal] = 0.0
    history: dict[int, FloatArray] = {0: value.copy()} if 0 in keep else {}
    iterations = 0
    with np.errstate(over="ignore", invalid="ignore"):
        if method in SWEEPING:
            value, iterations = _sweep(
                mdp, chain, gain, weights, value, method, tolerance, sweeps, set(keep), history
            )
        else:
            value, iterations = _linear(mdp, chain, gain, method, tolerance, value)
        note = ""
        if not bool(np.isfinite(value).all()):
            value, note = (
                np.zeros(mdp.states),
                "; values exceed the range of floating-point numbers",
            )
        lower, upper = policy_bounds(mdp, chain, gain, weights, value)
        error = widest(value, lower, upper)
    seconds = time.perf_counter() - began
    count = "" if method == "direct" else f" after {iterations} iterations"
    status = f"evaluated by {method}{count} in {seconds:.3g} s; "
    status += f"|V - V^pi| <= {at_most(error)}{note}"
    return Evaluation(value, lower, upper, iterations, status, history, mdp)


def policy_chain(mdp: MDP, weights: FloatArray) -> tuple[Any, FloatArray]:
    """P_pi as a CSR array [S, S] (rows of terminal states empty) and r_pi [S]."""
    from scipy import sparse

    mix = sparse.csr_array(
        (weights, np.arange(mdp.pairs), np.asarray(mdp.pair_ptr, dtype=np.int64)),
        shape=(mdp.states, mdp.pairs),
    )
    chain = (mix @ mdp.transition).tocsr()
    chain.eliminate_zeros()
    return chain, np.asarray(mix @ mdp.reward)


def _linear(
    mdp: MDP, chain: Any, gain: FloatArray, method: str, tolerance: float, start: FloatArray
) -> tuple[FloatArray, int]:
    from scipy import sparse
    from scipy.sparse import linalg

    system = (sparse.eye_array(mdp.states, format="csr") - mdp.discount * chain).tocsr()
    if method == "direct":
        solve = solver_of(system)
        value = solve(gain)
        return value + solve(gain - system @ value), 0
    count = [0]

    def counted(_: Any) -> None:
        count[0] += 1

    solver = linalg.gmres if method == "gmres" else linalg.bicgstab
    settings = {"restart": 50, "callback_type": "pr_norm"} if method == "gmres" else {}
    target = tolerance * max(1e-3, 1.0 - mdp.discount) * 0.1
    value = start
    for _ in range(20):  # a Krylov method may stagnate: restart from where it stands
        step, info = solver(
            system, gain - system @ value, rtol=0.0, atol=target, maxiter=2000, callback=counted,
            **settings,
        )  # fmt: skip
        if bool(np.isfinite(step).all()):
            value = value + step
        residual = float(np.abs(gain - system @ value).max(initial=0.0))
        if info == 0 or residual <= target or not np.isfinite(residual):
            return value, count[0]
        for _ in range(50):  # Richardson steps always make progress
            value = gain + mdp.discount * (chain @ value)
    return value, count[0]


def _sweep(
    mdp: MDP,
    chain: Any,
    gain: FloatArray,
    weights: FloatArray,
    value: FloatArray,
    method: str,
    tolerance: float,
    sweeps: int | None,
    keep: set[int],
    history: dict[int, FloatArray],
) -> tuple[FloatArray, int]:
    from scipy import sparse
    from scipy.sparse import linalg

    lower_solve = None
    upper_part: Any = None
    if method == "gauss-seidel":
        # One sweep in the order 0, 1, ... solves (I - discount L) v' = r + discount U v, with L
        # the part up to the diagonal.
        lower = sparse.tril(chain, format="csr")
        upper_part = chain - lower
        system = sparse.eye_array(mdp.states, format="csr") - mdp.discount * lower
        try:
            lower_solve = linalg.splu(
                system.tocsc(), permc_spec="NATURAL", diag_pivot_thresh=0.0
            ).solve
        except RuntimeError:  # SuperLU's word for singular: a state that stays, up to rounding
            return np.full(mdp.states, np.nan), 0
    limit = sweeps if sweeps is not None else 10_000_000
    count = 0
    while count < limit:
        if lower_solve is None:
            following = gain + mdp.discount * (chain @ value)
        else:
            following = lower_solve(gain + mdp.discount * (upper_part @ value))
        change = float(np.abs(following - value).max(initial=0.0))
        value = following
        count += 1
        if not np.isfinite(change):
            break
        if count in keep:
            history[count] = value.copy()
        # The bounds cost a solve when undiscounted: ask for them only when the change is small
        # against the tolerance, and ever more rarely.
        if sweeps is None and (change <= tolerance * max(1e-9, 1.0 - mdp.discount) or (
            count >= 8 and count & (count - 1) == 0
        )):  # fmt: skip
            low, high = policy_bounds(mdp, chain, gain, weights, value)
            reach = np.maximum(high - value, value - low)
            if float(reach.max(initial=0.0)) <= tolerance or change == 0.0:
                break
    return value, count


def policy_bounds(
    mdp: MDP, chain: Any, gain: FloatArray, weights: FloatArray, value: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Bounds on the value of the policy from any `value`."""
    if is_discounting(mdp.discount):
        certificate = certify(mdp, np.where(mdp.terminal, 0.0, value), weights)
        return certificate.lower, certificate.upper
    # Mixing the pairs of a state rounds once a pair, and large rewards may cancel in it.
    owner, counts = mdp.pair_state, np.diff(mdp.pair_ptr)
    totals = np.bincount(owner, weights, minlength=mdp.states)
    off = float(np.abs(totals - 1.0)[~mdp.terminal].max(initial=0.0))
    mixing = (int(counts.max(initial=0)) + 2) * UNIT + off
    size = np.bincount(owner, weights * abs(mdp.reward), minlength=mdp.states)
    lost = np.asarray((mixing + 2.0 * UNIT + mdp.row_defect) * size + mdp.reward_defect, np.float64)
    return bounds(mdp.terminal, chain, gain, value, mdp.row_defect + mixing, gain_error=lost)


def _require_ending(mdp: MDP, chain: Any) -> None:
    """Undiscounted values exist only where the policy ends with probability one."""
    from scipy.sparse import csgraph

    reversed_edges = chain.T.tocsr()
    reached = mdp.terminal.copy()
    frontier = np.flatnonzero(reached)
    while len(frontier):
        rows = reversed_edges[frontier].indices
        frontier = np.unique(rows[~reached[rows]])
        reached[frontier] = True
    if not bool(reached.all()):
        state = int(np.flatnonzero(~reached)[0])
        count = csgraph.connected_components(chain, connection="strong")[0]
        raise InvalidSetting(
            f"discount 1: from {mdp.state_name(state)} the policy never reaches a terminal state "
            f"({count} strongly connected classes); give a discount below 1"
        )
