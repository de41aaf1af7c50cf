"""Proofs for densities of sequences: causality over time, sums, padding, state, sampler, scales.

Each is of the verbs alone (`per_step`, `scan`, `draw_step`), so that it holds for any such density:

- no later step changes the log p of an earlier one;
- summed over the levels of a column, the conditional is one, whatever step and column: a state that
  has seen the step it predicts fails here, since its "probabilities" are those of different states;
- all short sequences of a tiny instance sum to one;
- padding is not scored, and a sequence has the same log p alone as beside longer ones;
- the state is kept over the borders of the pieces that long sequences are read in;
- the sampler draws what teacher forcing says: the state after the first steps of a drawn sequence
  and the same uniform numbers give its next step, to the same integers;
- the codec writes drawn series in as many bits as `log_prob` says, and reads them back;
- what was taken from data (scales) is that of the training set alone.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from likely.ask.compress import compress, decompress
from likely.data.sequences.dataset import Sequences
from likely.data.sequences.spec import MISSING, PADDING, Column, SequenceSpec
from likely.data.spec import Dataset
from likely.density import NoSettings, SequenceDensity, SequenceModel, weights_digest
from likely.density.sequence.steps import State, Steps
from likely.errors import InvalidData
from likely.noise import Noise, derived_seed
from likely.training.objectives import Step, default_objective
from likely.verify.length import ENDS, NAME, OVER
from likely.verify.proofs import Proof, Proofs
from likely.verify.training import reach, useful

Sequential = TypeVar("Sequential", bound=SequenceModel)
SAME, SUM = 1e-9, 1e-8
LENGTH, ROWS = 24, 4
MOST_LEVELS = 20_000  # of a column that is summed over


def sequence_proofs(
    model: SequenceDensity, data: Dataset | None, train: Dataset | None, quick: bool, seed: int
) -> Proofs:
    """All checks; `train` is the training set, where it is at hand."""
    exact = copy.deepcopy(model).cpu().double().eval().requires_grad_(False)
    with torch.no_grad():
        x, context = probes(exact, data, seed)
        proofs = [
            _no_future_leak(exact, x, context),
            *_conditionals(exact, x, context, quick),
            _total(exact, seed),
            _padding(exact, x, context),
            _pieces(exact, x, context),
            _sampler(model, quick, seed),
        ]
        if not quick and not model.spec.covariates:
            proofs.append(_code_length(exact, seed))
        if isinstance(train, Sequences):
            proofs.append(scales(model, train))
    proofs.append(gradients(exact, x, context))
    return Proofs(type(model).__name__, weights_digest(model), quick, seed, tuple(proofs), ())


def probes(model: SequenceModel, data: Dataset | None, seed: int) -> tuple[Tensor, Tensor | None]:
    """Sequences [ROWS, T, K] of the data and of the model, and their context."""
    length = max(4, min(LENGTH, model.spec.longest))
    context = context_for(model, ROWS, length, seed)
    x = model.sample(ROWS, seed=derived_seed("verify", seed), context=context, steps=length)
    if isinstance(data, Sequences):
        for row in range(min(ROWS // 2, len(data))):
            whole = torch.from_numpy(data[row])[:length]
            x[row, : len(whole)] = torch.where(whole == MISSING, x[row, : len(whole)], whole)
    return x, context


def context_for(model: SequenceModel, n: int, length: int, seed: int) -> Tensor | None:
    """What is known of n sequences beforehand, classes in turn, floats [n, length, C], or None."""
    if not model.context_size:
        return None
    labels = torch.arange(n) % model.classes if model.classes else None
    if model.spec.covariates:
        noise = Noise("verify", seed, "context")
        return noise.normal(n, length, model.context_size, dtype=torch.float64)
    return model.known_context(labels, n, length)


def _no_future_leak(model: SequenceDensity, x: Tensor, context: Tensor | None) -> Proof:
    before = model.per_step(x, context)
    worst = 0.0
    for t in range(1, x.shape[1]):
        changed = x.clone()
        changed[:, t:] = x.roll(1, 0)[:, t:].flip(1)
        after = model.per_step(changed, context)
        worst = max(worst, difference(before[:, :t], after[:, :t]))
    return Proof.at_most(
        "no future leak", worst, SAME,
        "Largest change of log p of a step when all later steps are others, in nats, float64.",
    )  # fmt: skip


def _conditionals(
    model: SequenceDensity, x: Tensor, context: Tensor | None, quick: bool
) -> Iterator[Proof]:
    columns = model.spec.columns
    summed = [k for k, c in enumerate(columns) if c.levels <= MOST_LEVELS]
    if not summed:
        return
    every = len(summed) <= (2 if quick else 8)
    chosen = summed if every else [summed[i * (len(summed) - 1) // 5] for i in range(6)]
    times = (0, 3) if quick else (0, 1, x.shape[1] // 2, x.shape[1] - 1)
    worst = 0.0
    for t, k in itertools.product(times, dict.fromkeys(chosen)):
        levels = columns[k].levels
        state = model.state_after(model.steps(x[:1, :t], _until(context, t)))
        step = x[:1, t : t + 1].clone()
        step[..., k:] = MISSING
        alone = _one_step(model, step, context, t, state)
        every_level = step.repeat(levels, 1, 1)
        every_level[:, 0, k] = torch.arange(levels)
        whole = _one_step(model, every_level, context, t, state)
        worst = max(worst, abs(math.expm1(float(whole.logsumexp(0) - alone[0]))))
    which = f"{len(dict.fromkeys(chosen))} of {len(columns)} columns, steps {list(times)}"
    yield Proof.at_most(
        "each conditional sums to one", worst, SUM,
        f"Largest |sum over the levels of a column given the columns before - 1|; {which}.",
    )  # fmt: skip


def _until(context: Tensor | None, t: int) -> Tensor | None:
    return None if context is None else context[:1, :t]


def _one_step(
    model: SequenceDensity, x: Tensor, context: Tensor | None, t: int, state: State
) -> Tensor:
    """log p of a step [n, 1, K] after a state of one sequence, [n]."""
    n = len(x)
    known = None if context is None else context[:1, t : t + 1].expand(n, -1, -1)
    carried = tuple(part.expand(n, *part.shape[1:]) for part in state)
    return model.scan(model.steps(x, known), carried)[0][:, 0]


def tiny(
    model: Sequential, seed: int, settings: Any = None, spread: float = 0.3
) -> tuple[Sequential, SequenceSpec]:
    """An instance of the same class and settings for two columns of few levels, random weights.

    The columns are of the kinds that the model has; many binary ones stay three. `settings` are
    those of the model by default, `spread` the size of what is added to every weight.
    """
    kinds = {column.kind: column for column in model.spec.columns}
    several = list(kinds.values()) if len(kinds) > 1 else [*kinds.values()] * 3
    width = 3 if set(kinds) == {"binary"} else 2
    columns = tuple(
        Column(f"x{i}", c.kind, 2 if c.kind == "binary" else 3, names=())
        for i, c in enumerate(several[:width])
    )
    covariates, clock = model.spec.covariates, model.spec.clock
    spec = SequenceSpec(
        "verify", (width,), 3, columns=columns, n=4, steps=12, longest=3, clock=clock,
        covariates=covariates, classes=model.spec.classes,
    )  # fmt: skip
    build = cast(Callable[..., Sequential], type(model))
    plain = isinstance(model.settings, NoSettings)
    instance = build(spec) if plain else build(spec, settings or model.settings, seed=seed)
    generator = torch.Generator().manual_seed(derived_seed("verify", seed, "tiny"))
    for parameter in instance.parameters():
        parameter.data += spread * torch.randn(parameter.shape, generator=generator)
    return instance.double().eval().requires_grad_(False), spec


def _total(model: SequenceDensity, seed: int) -> Proof:
    instance, spec = tiny(model, seed)
    length = 3 if all(column.levels == 2 for column in spec.columns) else 2
    steps = list(itertools.product(*(range(c.levels) for c in spec.columns)))
    x = torch.tensor(list(itertools.product(steps, repeat=length)))  # [n, length, K]
    context = context_for(instance, 1, length, seed)
    known = None if context is None else context.expand(len(x), -1, -1)
    total = float(instance.log_prob(x, known).logsumexp(0).exp())
    return Proof.at_most(
        "all sequences sum to one", abs(total - 1), SUM,
        f"|sum - 1| over all {len(x):,} sequences of {length} steps, {len(spec.columns)} columns "
        "each, on an instance of the same class with random weights.",
    )  # fmt: skip


def _padding(model: SequenceDensity, x: Tensor, context: Tensor | None) -> Proof:
    """Every second sequence is cut, and padded beside the others."""
    length = x.shape[1]
    ends = [length - 2 * row if row % 2 else length for row in range(len(x))]
    padded = x.clone()
    for row, end in enumerate(ends):
        padded[row, end:] = PADDING
    together = model.per_step(padded, context)
    worst = 0.0
    for row, end in enumerate(ends):
        part = None if context is None else context[row : row + 1, :end]
        alone = model.per_step(x[row : row + 1, :end], part)
        worst = max(worst, difference(together[row, :end], alone[0]))
        worst = max(worst, float(together[row, end:].abs().sum()))
    return Proof.at_most(
        "no padding is scored", worst, SAME,
        "Largest change of log p of a step, in nats, when its sequence is padded beside longer "
        "ones, and the log p of the padding itself.",
    )  # fmt: skip


def _pieces(model: SequenceDensity, x: Tensor, context: Tensor | None) -> Proof:
    whole = model.per_step(x, context)
    worst = max(
        difference(whole, model.per_step(x, context, piece=size * len(x))) for size in (1, 5)
    )
    return Proof.at_most(
        "the state is kept over pieces", worst, SAME,
        "Largest change of log p of a step, in nats, when sequences are read one or five steps at "
        "a time.",
    )  # fmt: skip


def _code_length(model: SequenceDensity, seed: int) -> Proof:
    """Draws written and read back by the codec, which never calls `log_prob`."""
    label = 0 if model.classes else None
    rows, length = 4, max(4, min(24, model.spec.longest))
    x = model.sample(rows, seed=seed, context=label, steps=length)
    claimed = -float(model.log_prob(x, label).sum()) / math.log(2.0)
    about = f"Bits of {rows} drawn series of {length} steps, written and read back, "
    try:
        compressed = compress(model, x, label)
        again = torch.equal(decompress(model, compressed.content).x, x)
    except InvalidData as error:
        return Proof.at_most(NAME, math.inf, 0.0, f"{about}which failed: {error}")
    over = abs(compressed.stream - claimed - ENDS * compressed.blocks / 2)
    return Proof.at_most(
        NAME,
        over if again else math.inf,
        OVER * claimed + ENDS * compressed.blocks / 2,
        f"{about}apart from the claimed {claimed:.0f} and the end of the file.",
    )


def _sampler(model: SequenceDensity, quick: bool, seed: int) -> Proof:
    """On the weights as they are, in their own precision."""
    model = copy.deepcopy(model).eval()
    rows, length = 3, 6 if quick else 16
    context = context_for(model, rows, length, seed)
    noise = Noise("verify", seed, "sampler")
    columns = len(model.spec.columns)
    uniform = noise.uniform(length, rows, columns).to(model.device)
    state, drawn = model.begin(rows), []
    for t in range(length):
        part = None if context is None else context[:, t].to(model.device)
        step, state = model.draw_step(state, part, uniform[t])
        drawn.append(step)
    x = torch.stack(drawn, 1)
    steps: Steps = model.steps(x, context)
    wrong = 0
    for t in range(length):
        state = model.state_after(steps.part(slice(None), 0, t)) if t else model.begin(rows)
        part = None if steps.context is None else steps.context[:, t]
        again, _ = model.draw_step(state, part, uniform[t])
        wrong += int((again != x[:, t]).sum())
    return Proof.at_most(
        "the sampler is teacher forcing", float(wrong), 0.0,
        f"Integers, of {x.numel()} drawn step by step, that the state after reading the sequence "
        "in one piece does not give again from the same uniform numbers.",
    )  # fmt: skip


def scales(model: SequenceModel, train: Sequences) -> Proof:
    """A fresh model that starts at the training data has the same buffers."""
    build = cast(Callable[..., SequenceModel], type(model))
    plain = isinstance(model.settings, NoSettings)
    fresh = build(model.spec) if plain else build(model.spec, model.settings)
    fresh.start_at(train)
    buffers = dict(fresh.named_buffers())
    worst = 0.0
    for name, buffer in model.named_buffers():
        size = float(buffers[name].double().abs().max()) if buffer.numel() else 0.0
        error = (buffer.cpu().double() - buffers[name].double()).abs().max()
        worst = max(worst, float(error) / max(size, 1e-12))
    return Proof.at_most(
        "scales are those of the training set", worst, 1e-6,
        f"Largest relative difference of what normalises the inputs, in {len(buffers)} tensors, to "
        "what the training set alone gives.",
    )  # fmt: skip


def gradients(model: SequenceModel, x: Tensor, context: Tensor | None) -> Proof:
    """Of the objective that the model is fitted by."""
    trained = copy.deepcopy(model).train().requires_grad_(True)
    step = Step(trained, {"model": trained}, "model", x, context, Noise("verify"), 0)
    with torch.enable_grad():
        loss: Any = default_objective(trained).loss(step).value.sum()
        if loss.requires_grad:
            loss.backward()
    return reach(trained, [n for n, p in trained.named_parameters() if not useful(p.grad)])


def difference(a: Tensor, b: Tensor) -> float:
    """The largest, infinite where one is NaN."""
    worst = float((a - b).abs().max()) if a.numel() else 0.0
    return worst if worst == worst else math.inf
