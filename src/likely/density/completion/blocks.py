r"""Draws of p(rest | observed) redrawn in blocks, which removes the error of the particles.

Blocks of unobserved pixels are redrawn from the model's own conditionals, and a redrawn block is
accepted with the ratio of the joint densities

    min(1, p(x') q(x | x') / p(x) q(x' | x)) = min(1, prod_{i not in the block} p(x'_i | x'_<i) /
    p(x_i | x_<i)),

which leaves p(rest | observed) as it is.

Source: Liu 2001, Monte Carlo Strategies in Scientific Computing (Metropolised independence
sampling of blocks).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from likely.heads import Head, at_least_float
from likely.noise import Noise

if TYPE_CHECKING:
    from likely.density.chain import Autoregressive

BLOCK = 8  # pixels that are redrawn together


def log_probs_of(head: Head, parameters: Tensor, x: Tensor) -> Tensor:
    """log p of each pixel given those before it, nats, float64 [B, H, W]."""
    return head.log_prob(at_least_float(parameters), x).double().sum(1)


def accepted(log_ratio: Tensor, uniform: Tensor) -> Tensor:
    """Which proposals of those log-ratios of the joint densities are taken, bool [R]."""
    return uniform.log() < log_ratio


@torch.no_grad()
def refined(
    model: Autoregressive,
    x: Tensor,
    observed: Tensor,
    noise: Noise,
    context: Tensor | None,
    sweeps: int,
    block: int = BLOCK,
) -> tuple[Tensor, float, Tensor]:
    """Images whose unobserved pixels are redrawn in blocks; see the module's docstring.

    Args:
        model: any chain rule.
        x: starts of the chains, int64 [R, C, H, W].
        observed: bool [H, W].
        noise: of the proposals and of acceptance.
        context: of each chain, as the model takes it, or None.
        sweeps: over all unobserved pixels.
        block: pixels that are redrawn together.

    Returns:
        (the images; share of the blocks that was accepted; log p(x) after each sweep, before the
        first one first, [sweeps + 1, R]).
    """
    rank, head = model.rank.to(x.device), model.head
    missing = [tuple(at) for at in (~observed).nonzero().tolist()]
    missing.sort(key=lambda at: int(rank[at]))
    log_p = log_probs_of(head, model.conditionals(x, context), x)
    trace, taken, tried = [log_p.sum((1, 2))], 0.0, 0
    groups = [range(model.spec.grid[0])]
    if not head.couples_channels:
        groups = [range(c, c + 1) for c in groups[0]]
    for sweep in range(sweeps):
        # The bounds of the blocks move from sweep to sweep.
        cuts = [0, *range(1 + sweep % block, len(missing), block), len(missing)]
        for low, high in itertools.pairwise(cuts):
            proposed, inside = x.clone(), torch.zeros_like(observed)
            for at in missing[low:high]:
                inside[at] = True
            for step in sorted({int(rank[at]) for at in missing[low:high]}):
                place = inside & (rank == step)
                for channels in groups:
                    parameters = model.conditionals(proposed, context)[:, :, place].double()
                    for c in channels:
                        uniform = noise.uniform(len(x), 1, int(place.sum()))
                        pixels = proposed[:, :, None, place]
                        drawn = head.quantile(parameters[:, :, None], pixels, c, uniform)
                        proposed[:, c, place] = drawn[:, 0]
            after = log_probs_of(head, model.conditionals(proposed, context), proposed)
            log_ratio = (after - log_p).masked_fill(inside, 0.0).sum((1, 2))
            take = accepted(log_ratio, noise.uniform(len(x)))
            x = torch.where(take[:, None, None, None], proposed, x)
            log_p = torch.where(take[:, None, None], after, log_p)
            taken, tried = taken + float(take.double().mean()), tried + 1
        trace.append(log_p.sum((1, 2)))
    return x, taken / max(1, tried), torch.stack(trace)


def autocorrelation(trace: Tensor) -> float:
    """Correlation of a trace [T, R] of R chains from one time to the next, about their mean."""
    off = trace - trace.mean()
    size = float(off[:-1].square().mean().sqrt() * off[1:].square().mean().sqrt())
    return float((off[:-1] * off[1:]).mean()) / size if size > 0 else 1.0
