"""What a comparison measures and shows of models of sequences.

Nats per step, calibration and simulations are those of `likely evaluate`; beside the simulations
stands the floor of training data. Pictures: draws beside training data, and what follows a held-out
series (fan charts of numbers, rolls of music). Of music each model has a draw to listen to.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from likely.data.sequences import music
from likely.data.sequences.dataset import Sequences
from likely.data.sequences.spec import SequenceSpec
from likely.data.spec import Dataset, DataSpec
from likely.density import Continues, GenerativeModel, SequenceModel
from likely.errors import InvalidData, InvalidSetting
from likely.estimate import Estimate
from likely.evaluate.sequences.forecast import forecast
from likely.evaluate.sequences.simulated import simulation_floor
from likely.files.figures import figure_png
from likely.jobs.evaluate import EvaluateSettings, Evaluation, Progress, measure, stage
from likely.models import SEQUENCES_OF_EACH_KIND
from likely.report.forecast import forecast_figure
from likely.verify import Proofs

DRAWN, FORECASTS = 3, 200
SHOWN_STEPS = {"16th": 128, "quarter": 48}  # of a draw of music; 160 of other data
AHEAD = {"16th": 32, "quarter": 16}  # steps that are forecast; 24 of other data
NUMBERS = ("lattice", "continuous", "angle")


def of_each_kind(spec: DataSpec) -> tuple[str, ...]:
    """The models that are fitted to sequences: classical, autoregressive, latent and implicit.

    A regression on the past is among the classical ones where a column is a number.
    """
    numbers = isinstance(spec, SequenceSpec) and any(c.kind in NUMBERS for c in spec.columns)
    return tuple(name for name in SEQUENCES_OF_EACH_KIND if numbers or name != "var")


def training_picture(train: Sequences) -> bytes:
    """The first training sequences as a PNG, as long as the draws beside them."""
    shown = [train[i][: _steps(train.spec)] for i in range(min(DRAWN, len(train)))]
    return music.picture(shown, train.spec)


class SequenceSide:
    """Sequences: the floor of simulations, and what models of the data are measured with.

    Args:
        train: training set.
        test: the split that is measured.
        settings: of the measuring.
        progress: told of every stage.
    """

    extractor = ""

    def __init__(
        self, train: Dataset, test: Dataset, settings: EvaluateSettings, progress: Progress
    ) -> None:
        assert isinstance(train, Sequences)
        assert isinstance(test, Sequences)
        self._train, self._test = train, test
        self._settings, self._progress = settings, progress
        try:
            self.floor = simulation_floor(test, train)
        except InvalidData:  # that the measuring of each model tells
            self.floor = ()

    def measure(
        self, model: GenerativeModel, name: str, proofs: Proofs
    ) -> tuple[Evaluation, dict[str, Any]]:
        """The numbers, and fields of the `ModelReport`: draws, pictures, sounds."""
        assert isinstance(model, SequenceModel)
        measured = measure(
            model, self._train, self._test, self._settings, name=name, proofs=proofs,
            progress=self._progress,
        )  # fmt: skip
        shown: dict[str, Any] = {}
        with stage(self._progress, f"drawing sequences from {name}"):
            drawn = self._draws(model)
            if drawn is not None:
                shown["samples"] = music.picture(drawn, model.spec)
                if music.is_music(model.spec):
                    shown["sounds"] = {
                        ".mid": music.midi(drawn[:1], model.spec),
                        ".wav": music.sound(drawn[:1], model.spec),
                    }
            if isinstance(model, Continues):
                shown["pictures"] = self._forecast(model)
        return measured, shown

    def speed(self, model: GenerativeModel, name: str) -> tuple[Estimate, ...]:
        """No number: a step of a sequence takes as long as in its score."""
        return ()

    def _draws(self, model: SequenceModel) -> list[npt.NDArray[np.int64]] | None:
        """Sequences as they were drawn; None with covariates, which nobody knows."""
        if model.spec.covariates:
            return None
        labels = None
        if model.classes:
            assert self._train.labels is not None
            labels = torch.from_numpy(self._train.labels[:DRAWN]).long()
        steps = _steps(model.spec)
        drawn = model.sample(DRAWN, seed=self._settings.seed, context=labels, steps=steps)
        return list(drawn.cpu().numpy())

    def _forecast(self, model: Continues) -> dict[str, bytes]:
        """What follows the longest held-out series, and what the model expected, by caption."""
        spec, series = self._test.spec, int(self._test.lengths.argmax())
        horizon = min(AHEAD.get(spec.time_step, 24), max(1, int(self._test.lengths[series]) // 2))
        try:
            drawn = forecast(
                model, self._test, horizon=horizon, draws=FORECASTS, series=series,
                seed=self._settings.seed,
            )  # fmt: skip
        except (InvalidData, InvalidSetting):  # covariates of the future
            return {}
        caption = (
            f"The last {horizon} {spec.time_step}s of {spec.split} series {series}, given all "
            f"before them: {FORECASTS} draws"
        )
        return {caption: figure_png(forecast_figure(drawn, ""))}


def _steps(spec: SequenceSpec) -> int:
    """Steps of a draw that are shown: no more than the data have."""
    return min(SHOWN_STEPS.get(spec.time_step, 160), spec.longest)
