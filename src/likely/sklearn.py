"""Encoders of Likely as transformers of scikit-learn.

    from likely.sklearn import Encoder
    Pipeline([("codes", Encoder("vae", steps=500)), ("classes", LogisticRegression())]).fit(X, y)

`Encoder` takes real numbers, as every transformer does; the models of Likely are distributions of
integers. It puts each feature on a grid of `levels` numbers between the smallest and the largest
value of the fit, and `inverse_transform` goes back to the units of X.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from likely import runs
from likely.ask.layers import Layers
from likely.data import from_array
from likely.density import Decoder, chunks
from likely.errors import (
    InvalidData,
    InvalidSetting,
    MissingDependency,
    Unanswerable,
    nearest,
    whole,
)
from likely.models import MODELS
from likely.training.loop import fit_whole
from likely.training.presets import fit_settings
from likely.training.run import Run

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import check_array, check_is_fitted, validate_data
except ImportError as error:
    raise MissingDependency(
        "likely.sklearn needs scikit-learn; install with: pip install 'likely[sklearn]'"
    ) from error

Floats = npt.NDArray[np.float64]
BATCH = 1000  # rows a forward pass
ROUNDING = 1e-6  # by which a number may differ from an integer


class Encoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Codes of a model of Likely as features.

    Parameters
    ----------
    model : str
        Name of a model with an encoder, as "vae", which `fit` fits to X without labels; or the
        directory of a run, whose weights are taken as they are, those of a GAN's adversary, too.
    layer : str
        "code", or the last layer of a model without one; or another hidden layer
        (`likely.ask.layers.Layers`). All but the code have no inverse.
    shape : tuple of int or None
        Of an image (C, H, W), a row of X each; None for vectors. Of a run, its own.
    levels : int
        Grid that real numbers are rounded to. A run has its own: X then holds its integers.
    settings : dict or None
        Of the model, over its preset.
    steps : int or None
        Updates of the fit; None for the preset of the model.
    random_state : int
        Seed of weights, order and noise.

    Attributes
    ----------
    model_ : Fittable
        Fitted.
    layer_ : str
        The layer that is taken.
    `low_`, `step_` : ndarray of shape (n_features,)
        A level l stands for the number `low_ + l * step_`.
    n_features_in_ : int
        Columns of X.
    """

    def __init__(
        self,
        model: str = "vae",
        *,
        layer: str = "code",
        shape: tuple[int, ...] | None = None,
        levels: int = 32,
        settings: Mapping[str, Any] | None = None,
        steps: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.model = model
        self.layer = layer
        self.shape = shape
        self.levels = levels
        self.settings = settings
        self.steps = steps
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Encoder:
        """Fit the model to X [n, features] without labels; y is not read.

        Raises
        ------
        InvalidSetting
            X has another number of columns than the shape or the run, there is no such model, or
            there are fewer than two levels.
        InvalidData
            X holds a number that is none of the integers of the run's data.
        """
        values = validate_data(self, X, dtype=np.float64)
        if self.model in MODELS:
            if whole("levels", self.levels) < 2:
                raise InvalidSetting(f"levels must be at least 2, given {self.levels}")
            low, high = values.min(0), values.max(0)
            self.low_ = low
            self.step_ = np.where(high > low, high - low, 1.0) / (self.levels - 1)
            run = self._fitted(values)
            self.model_, adversary = run.model, run.adversary
        else:
            name = str(self.model)
            if not Path(name).is_dir():
                hint = nearest(name, MODELS)
                raise InvalidSetting(f'Encoder: no model and no run is called "{name}": {hint}')
            saved = runs.load(Path(name))
            self.model_, adversary = saved.model, saved.adversary
            self.low_, self.step_ = np.zeros(values.shape[1]), np.ones(values.shape[1])
        spec = self.model_.spec
        if spec.dimensions != values.shape[1]:
            raise InvalidSetting(
                f"Encoder: expected X with {spec.dimensions} columns, an example of shape "
                f"{spec.shape} in each row, given {values.shape[1]}"
            )
        self._integers(values)  # refuses what is none of a run's integers
        # In float64 the features of a row do not depend on its place among the others, where the
        # sums of float32 differ in their last digits.
        model, judge = copy.deepcopy((self.model_, adversary))
        self.layers_ = Layers(model.double(), None if judge is None else judge.double())
        self.layer_ = self.layers_.usual(self.layer)
        self._n_features_out = self.transform(values[:1]).shape[1]
        return self

    def _fitted(self, values: Floats) -> Run:
        """A model of the registry, fitted to these rows."""
        shape = self.shape or (values.shape[1],)
        if int(np.prod(shape)) != values.shape[1]:
            raise InvalidSetting(
                f"Encoder: X has {values.shape[1]} columns, which do not make images of {shape}"
            )
        data = from_array(self._integers(values).reshape(-1, *shape), levels=self.levels)
        model = runs.build(self.model, data.spec, dict(self.settings or {}), self.random_state)
        changes: dict[str, Any] = {"seed": self.random_state, "validate_every": 0}
        if self.steps is not None:
            changes["steps"] = self.steps
        plan = fit_settings(type(model.settings), data, changes)
        return fit_whole(model, data, settings=plan)

    def _integers(self, values: Floats) -> npt.NDArray[np.uint16]:
        """Levels of real numbers; what lies outside the fit takes the nearest.

        Raises
        ------
        InvalidData
            The levels are those of a run, and a number is none of them.
        """
        levels = self.levels if self.model in MODELS else self.model_.spec.levels
        nearest = np.rint((values - self.low_) / self.step_)
        if self.model not in MODELS:
            wrong = (np.abs(values - nearest) > ROUNDING) | (nearest < 0) | (nearest >= levels)
            if wrong.any():
                row, column = np.argwhere(wrong)[0]
                raise InvalidData(
                    f"Encoder: {self.model} takes the integers 0 to {levels - 1}, as its data "
                    f"holds them, given {values[row, column]:g} in row {row}, column {column} of X"
                )
        integers: npt.NDArray[np.uint16] = nearest.clip(0, levels - 1).astype(np.uint16)
        return integers

    def transform(self, X: Any) -> Floats:
        """Features [n, F] of X [n, features].

        Raises
        ------
        InvalidData
            X holds a number that is none of the integers of the run's data.
        """
        check_is_fitted(self)
        values = validate_data(self, X, dtype=np.float64, reset=False)
        x = torch.from_numpy(self._integers(values).astype(np.int64))
        x = x.reshape(-1, *self.model_.spec.shape)
        with torch.no_grad():
            parts = [self.layers_(x[rows], self.layer_) for rows in chunks(len(x), BATCH)]
        features: Floats = torch.cat(parts).cpu().double().numpy()
        return features

    def inverse_transform(self, X: Any) -> Floats:
        """Decoded codes: X holds codes [n, F]; [n, features] in the units of the fit.

        Raises
        ------
        Unanswerable
            Another layer than the code, or a model that decodes nothing.
        InvalidData
            X has another number of columns than a code.
        """
        check_is_fitted(self)
        model = self.layers_.model
        if self.layer_ != "code" or not isinstance(model, Decoder):
            raise Unanswerable(f"Encoder: {self.layer_} of {type(model).__name__} has no inverse")
        codes = check_array(X, dtype=np.float64, copy=True, input_name="X")
        if codes.shape[1] != self._n_features_out:
            raise InvalidData(
                f"Encoder: expected codes with {self._n_features_out} columns, a code in each row, "
                f"given {codes.shape[1]}"
            )
        z = torch.from_numpy(codes)
        parts = [model.decode(z[rows]).flatten(1) for rows in chunks(len(z), BATCH)]
        numbers: Floats = self.low_ + torch.cat(parts).numpy() * self.step_
        return numbers
