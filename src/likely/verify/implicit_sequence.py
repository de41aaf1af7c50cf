"""Proofs for sequences without a density: what is drawn is what was judged, and nothing couples."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from likely.data.sequences.dataset import Sequences
from likely.data.sequences.spec import PADDING
from likely.data.spec import Dataset
from likely.density import ImplicitSequence, weights_digest
from likely.noise import Noise, weights_from
from likely.training.objectives import Step, default_objective
from likely.verify.proofs import Proof, Proofs
from likely.verify.sequence import SAME, context_for, difference, probes, scales
from likely.verify.training import reach, useful

ROWS, LENGTH = 4, 12


def implicit_sequence_proofs(
    model: ImplicitSequence, data: Dataset | None, train: Dataset | None, quick: bool, seed: int
) -> Proofs:
    """All checks; `train` is the training set, where it is at hand."""
    exact = copy.deepcopy(model).cpu().double().eval().requires_grad_(False)
    with torch.no_grad():
        x, context = probes(exact, data, seed)
        proofs = [_alone(exact, seed), _one_pass(exact, seed), _padding(exact, x, context)]
        if isinstance(train, Sequences):
            proofs.append(scales(model, train))
    proofs.append(_gradients(exact, x, context, seed))
    return Proofs(type(model).__name__, weights_digest(model), quick, seed, tuple(proofs), ())


def _alone(model: ImplicitSequence, seed: int) -> Proof:
    context = context_for(model, ROWS, LENGTH, seed)
    z = Noise("verify", seed, "alone").normal(ROWS, LENGTH, model.latent).double()
    _, together, _ = model.generate(z, context, model.begin(ROWS))
    worst = 0.0
    for row in range(ROWS):
        part = None if context is None else context[row : row + 1]
        single = model.generate(z[row : row + 1], part, model.begin(1))[1]
        worst = max(worst, difference(together[row : row + 1], single))
    return Proof.at_most(
        "sequences do not couple", worst, SAME,
        "Largest change of what is drawn for a sequence when it is drawn alone, of the same noise.",
    )  # fmt: skip


def _one_pass(model: ImplicitSequence, seed: int) -> Proof:
    context = context_for(model, ROWS, LENGTH, seed)
    uniform = Noise("verify", seed, "pass").uniform(LENGTH, ROWS, model.uniforms)
    state, drawn = model.begin(ROWS), []
    for t in range(LENGTH):
        step, state = model.draw_step(state, None if context is None else context[:, t], uniform[t])
        drawn.append(step)
    z = torch.special.ndtri(uniform).transpose(0, 1)
    whole, _, _ = model.generate(z, context, model.begin(ROWS))
    wrong = int((torch.stack(drawn, 1) != whole).sum())
    levels = torch.tensor([column.levels for column in model.spec.columns])
    wrong += int(((whole < 0) | (whole >= levels)).sum())
    return Proof.at_most(
        "the sampler is the generator that was judged", float(wrong), 0.0,
        f"Integers, of {whole.numel()} drawn step by step, that are not those of one pass, or are "
        "no levels.",
    )  # fmt: skip


def _padding(model: ImplicitSequence, x: Tensor, context: Tensor | None) -> Proof:
    padded = x.clone()
    padded[1::2, -2:] = PADDING
    real, generated = model.against(padded, Noise("verify", "padding"), context)
    worst = max(float(side[1::2, -2:].abs().max()) for side in (real, generated))
    differs = difference(real[..., -1], generated[..., -1])
    return Proof.at_most(
        "no padding is judged", max(worst, differs), 0.0,
        "Largest number that an adversary sees after the end of a sequence, real or generated.",
    )  # fmt: skip


def _gradients(model: ImplicitSequence, x: Tensor, context: Tensor | None, seed: int) -> Proof:
    trained = copy.deepcopy(model).train().requires_grad_(True)
    objective = default_objective(trained)
    with weights_from(seed):
        players = {player: n.double() for player, n in objective.players(trained).items()}
    player = list(players)[-1]
    step = Step(trained, players, player, x, context, Noise("verify"), 0)
    with torch.enable_grad():
        objective.loss(step).value.sum().backward()  # type: ignore[no-untyped-call]
    return reach(trained, [n for n, p in trained.named_parameters() if not useful(p.grad)])
