r"""A key given the keys around it, by weights that all keys share.

    h_k = relu(e_k + S h + sum over traces r, |j - k| <= n of U[r, j - k] m_r(j)
                         + sum over k - n <= j < k of W[j - k] x(j)),   logit_k += v relu(A h_k + a)

The sums are convolutions over the keys: what is learned of one key holds for all, moved by as many
semitones. So it is in Johnson 2017, "Generating polyphonic music using tied parallel networks",
https://doi.org/10.1007/978-3-319-55750-2_9, with a recurrent state for each key. Here each key has
traces instead, decaying means of its past without weights,
m_r(t) = d_r m_r(t - 1) + (1 - d_r) x(t). A convolution of few channels is fastest as a product with
a Toeplitz matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

DECAYS = (0.0, 0.5, 0.8, 0.95)  # of the traces; 0 is the last step itself
WIDTH = 24  # hidden numbers of each key
ROWS = 2048  # steps whose hidden numbers are in memory together, where no gradient is wanted


class Traces(nn.Module):
    """Decaying means of the steps before."""

    decays: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns
        self.register_buffer("decays", torch.tensor(DECAYS)[:, None], persistent=False)

    def begin(self, n: int) -> Tensor:
        """Before the first step: silence, [n, R, K]."""
        return self.decays.new_zeros(n, len(self.decays), self.columns)

    def forward(self, last: Tensor, traces: Tensor) -> Tensor:
        """Traces before each step, [B, T, R, K].

        Args:
            last: the step before each, 0 where it is not known, int64 [B, T, K].
            traces: before the first of those, [B, R, K].
        """
        fresh = (1 - self.decays) * last[:, :, None].to(self.decays.dtype)  # [B, T, R, K]
        out = torch.empty_like(fresh)
        for t in range(last.shape[1]):
            traces = torch.addcmul(fresh[:, t], self.decays, traces)
            out[:, t] = traces
        return out


class Neighbours(nn.Module):
    """The part of a key's logit that its neighbours give.

    Args:
        columns: keys, K.
        state: numbers that the body gives.
        reach: keys on each side.
    """

    def __init__(self, columns: int, state: int, reach: int) -> None:
        super().__init__()
        self.columns, self.reach = columns, min(reach, columns - 1)
        count = len(DECAYS) * (2 * self.reach + 1)  # numbers that are summed over
        before = torch.randn(len(DECAYS), WIDTH, 2 * self.reach + 1) / math.sqrt(count)
        below = torch.randn(1, WIDTH, self.reach) / math.sqrt(self.reach)
        self.before, self.below = nn.Parameter(before), nn.Parameter(below)  # U, W
        self.place = nn.Parameter(torch.zeros(columns, WIDTH))  # e
        self.shared = nn.Linear(state, WIDTH)  # S
        self.mixed = nn.Linear(WIDTH, WIDTH)  # A, a
        self.out = nn.Linear(WIDTH, 1, bias=False)  # v
        nn.init.zeros_(self.out.weight)

    def forward(self, state: Tensor, traces: Tensor, on: Tensor) -> Tensor:
        """Logits of every key given those below it, [M, K].

        Args:
            state: what the body made of the steps before, [M, S].
            traces: of the steps before, [M, R, K].
            on: the keys of this step, int64 [M, K]; what is not known is off.
        """
        around, lower = self._around(), self._lower()
        logits = []
        for first in range(0, len(on), ROWS):
            rows = slice(first, first + ROWS)
            below = _keys(on[rows].to(state.dtype) @ lower)
            logits.append(self._logit(self._before(state[rows], traces[rows], around) + below))
        return torch.cat(logits)

    def turns(self, state: Tensor, traces: Tensor) -> Callable[[Tensor, int], Tensor]:
        """The logit of key k [M] given the keys so far, as a function of (on, k)."""
        inner, lower = self._before(state, traces, self._around()), _keys(self._lower())
        return lambda on, k: self._logit(inner[:, k] + on.to(inner.dtype) @ lower[:, k])

    def _logit(self, inner: Tensor) -> Tensor:
        out: Tensor = self.out(torch.relu(self.mixed(torch.relu(inner))))
        return out[..., 0]

    def _before(self, state: Tensor, traces: Tensor, around: Tensor) -> Tensor:
        """Hidden numbers before the rectifier, of all but this step, [M, K, WIDTH]."""
        shared: Tensor = self.shared(state)
        return _keys(traces.flatten(1) @ around) + shared[:, None] + self.place

    def _around(self) -> Tensor:
        """Weights from the traces of each key to those around it, [R K, K WIDTH]."""
        return _toeplitz(pad(self.before, (self.columns - 1 - self.reach,) * 2))

    def _lower(self) -> Tensor:
        """Weights from each key to those above it, [K, K WIDTH]."""
        return _toeplitz(pad(self.below, (self.columns - 1 - self.reach, self.columns)))


def _keys(x: Tensor) -> Tensor:
    """[M, K WIDTH] as [M, K, WIDTH]."""
    return torch.unflatten(x, 1, (-1, WIDTH))


def _toeplitz(weight: Tensor) -> Tensor:
    """Weights [R, H, 2 K - 1] by offset, from -(K - 1), as a matrix [R K, K H]."""
    sources, width, offsets = weight.shape
    columns = (offsets + 1) // 2
    spread = weight.unfold(2, columns, 1).flip(2)  # [R, H, to, from]
    return spread.permute(0, 3, 2, 1).reshape(sources * columns, columns * width)
