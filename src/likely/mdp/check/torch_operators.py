"""The Bellman operators in PyTorch, for accelerators: CSR arrays on the device.

The same numbers as `operators` and `kernels`, to rounding: q = r + discount P v by one sparse
product, the maximum over the pairs of a state by a segment reduction. Import this module by its
name; `likely.mdp` itself never imports torch.
"""

from __future__ import annotations

import dataclasses
import math
import time
import warnings

import numpy as np
import torch
from torch import Tensor

from likely.errors import InvalidSetting
from likely.mdp.check.certificates import certify
from likely.mdp.model.problem import MDP, is_discounting
from likely.mdp.model.solution import Solution, TracePoint, sentence

__all__ = ["TorchMDP", "bellman_expectation", "bellman_optimality", "greedy_pairs", "solve"]


@dataclasses.dataclass(frozen=True)
class TorchMDP:
    """The rows of an `MDP` on a device.

    Attributes:
        transition: sparse CSR [pairs, S].
        reward: [pairs].
        lengths: [L] number of pairs of each state that is not terminal.
        live: [L] those states.
        owner: [pairs] state of each pair.
        discount: in (0, 1].
        states: S.
    """

    transition: Tensor
    reward: Tensor
    lengths: Tensor
    live: Tensor
    owner: Tensor
    discount: float
    states: int

    @classmethod
    def of(
        cls, mdp: MDP, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float64
    ) -> TorchMDP:
        """Copy the rows of an MDP to a device, in float64 or float32."""
        if dtype not in (torch.float64, torch.float32):
            raise InvalidSetting(f"dtype {dtype}: expected torch.float64 or torch.float32")
        index = torch.int32 if mdp.indices.dtype == np.int32 else torch.int64
        counts = np.diff(mdp.pair_ptr).astype(np.int64)
        with warnings.catch_warnings():
            # PyTorch calls its CSR support beta; the operations used here are tested.
            warnings.filterwarnings("ignore", message=".*CSR tensor support.*")
            transition = torch.sparse_csr_tensor(
                torch.tensor(mdp.indptr, dtype=index, device=device),
                torch.tensor(mdp.indices, dtype=index, device=device),
                torch.tensor(mdp.probability, dtype=dtype, device=device),
                size=(mdp.pairs, mdp.states),
                check_invariants=False,
            )
        return cls(
            transition=transition,
            reward=torch.tensor(mdp.reward, dtype=dtype, device=device),
            lengths=torch.tensor(counts[counts > 0], device=device),
            live=torch.tensor(np.flatnonzero(counts > 0), device=device),
            owner=torch.tensor(mdp.pair_state.astype(np.int64), device=device),
            discount=mdp.discount,
            states=mdp.states,
        )


def state_action_values(mdp: TorchMDP, value: Tensor) -> Tensor:
    """q = r + discount P v; [pairs]."""
    moved = (mdp.transition @ value.unsqueeze(1)).squeeze(1)  # [pairs]
    return mdp.reward + mdp.discount * moved


def bellman_optimality(mdp: TorchMDP, value: Tensor) -> Tensor:
    """T v; [S], 0 in terminal states."""
    q = state_action_values(mdp, value)
    out = torch.zeros_like(value)
    out[mdp.live] = torch.segment_reduce(q, "max", lengths=mdp.lengths)
    return out


def bellman_expectation(mdp: TorchMDP, value: Tensor, weights: Tensor) -> Tensor:
    """T_pi v for the probabilities pi(a|s) of each pair, `weights` [pairs]; [S]."""
    q = state_action_values(mdp, value)
    return torch.zeros_like(value).index_add_(0, mdp.owner, weights * q)


def greedy_pairs(mdp: TorchMDP, value: Tensor) -> Tensor:
    """[S] the first best pair of each state, -1 in terminal states."""
    q = state_action_values(mdp, value)
    best = torch.zeros_like(value)
    best[mdp.live] = torch.segment_reduce(q, "max", lengths=mdp.lengths)
    rows = torch.arange(len(q), device=q.device)
    hit = q == best[mdp.owner]
    chosen = torch.full((mdp.states,), len(q), dtype=rows.dtype, device=q.device)
    chosen.scatter_reduce_(0, mdp.owner[hit], rows[hit], "amin")
    return torch.where(chosen == len(q), torch.full_like(chosen, -1), chosen)


def solve(
    mdp: MDP,
    tolerance: float = 1e-6,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float64,
    max_iterations: int = 1_000_000,
    check_every: int = 16,
) -> Solution:
    """Value iteration on a device with the span stop; the bounds are proven on the CPU.

    Every `check_every` sweeps the span of the change is read back. When it is small enough, one
    float64 backup by `certificates.certify` on the CPU gives the bounds, so they include what
    the device rounded, also in float32.
    """
    if not is_discounting(mdp.discount):
        raise InvalidSetting(f"discount {mdp.discount}: expected a discount below 1")
    if not tolerance > 0.0 or max_iterations < 1 or check_every < 1:
        raise InvalidSetting("tolerance, max_iterations and check_every must be positive")
    began = time.perf_counter()
    rows = TorchMDP.of(mdp, device, dtype)
    value = torch.zeros(mdp.states, dtype=dtype, device=device)
    scale = mdp.discount / (1.0 - mdp.discount)
    ends = bool(mdp.terminal.any())
    trace: list[TracePoint] = []
    outcome, iteration, narrowest = "iterations", 0, np.inf
    while iteration < max_iterations:
        following = bellman_optimality(rows, value)
        iteration += 1
        if iteration % check_every == 0 or iteration == max_iterations:
            change = following - value
            low, high = float(change.min()), float(change.max())
            if ends:
                low, high = min(low, 0.0), max(high, 0.0)
            error = 0.5 * scale * (high - low)
            trace.append(
                TracePoint(iteration, float(iteration), time.perf_counter() - began, error)
            )
            if not math.isfinite(error):
                break
            if error <= 0.45 * tolerance:
                value = following
                outcome = "converged"
                break
            if error >= narrowest and iteration > 64 * check_every:
                outcome = "rounding"  # the device's precision gives no more
                break
            narrowest = min(narrowest, error)
        value = following
    final = value.double().cpu().numpy().copy()
    final[mdp.terminal] = 0.0
    if not bool(np.isfinite(final).all()):
        outcome, final = "overflow", np.zeros(mdp.states)
    certificate = certify(mdp, final)
    if certificate.error > tolerance and outcome != "overflow" and not ends:
        # The middle of the interval differs from the sweep by a shift of all states.
        middle = 0.5 * certificate.lower + 0.5 * certificate.upper
        if bool(np.isfinite(middle).all()):
            final, certificate = middle, certify(mdp, middle)
    error = certificate.error
    if error <= tolerance:
        outcome = "converged"
    elif outcome == "converged":
        outcome = "rounding"
    chosen = greedy_pairs(TorchMDP.of(mdp), torch.from_numpy(final)).numpy()
    policy = np.where(chosen >= 0, mdp.pair_action[chosen] if mdp.pairs else -1, -1)
    seconds = time.perf_counter() - began
    return Solution(
        policy=policy,
        value=final,
        lower=np.minimum(certificate.lower, final),
        upper=np.maximum(certificate.upper, final),
        iterations=iteration,
        outcome=outcome,
        status=sentence(outcome, error, tolerance, iteration, seconds),
        trace=tuple(trace),
        about={"criterion": "discounted", "objective": "max", "method": "value-iteration (torch)",
               "tolerance": tolerance, "device": str(device), "precision": str(dtype),
               "seconds": seconds},
        _problem=mdp,
    )  # fmt: skip
