"""What a run's encoder is worth to a classifier with few labels.

    likely classify runs/vae --per-class 1 10 100 all      the command
    likely.classify("runs/vae", per_class=(1, 10, 100, 0))  Python

Draws of labels are stratified and paired: every method sees the same labelled images in draw k. The
encoder was fitted to training images only, labels are drawn among them, and the accuracy is that on
the test split. An interval is over draws of labels and initial weights; the encoder and the test
images are the same in all of them.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from likely.ask.layers import Layers
from likely.data import load as load_data
from likely.data.spec import Dataset, DataSpec
from likely.density import DiagonalGaussian, Fittable, LatentVariable, chunks
from likely.devices import choose_device, place
from likely.errors import InvalidData, InvalidSetting, Unanswerable
from likely.estimate import Estimate, Relation, confidence_width
from likely.evaluate.baselines import (
    PENALTIES,
    Features,
    LabelSpreading,
    cross_validated,
    logistic_regression,
    nearest_neighbour,
    scikit_learn,
)
from likely.evaluate.few_labels import (
    Encoder,
    FineTuning,
    Probe,
    chosen_probe,
    fine_tuned,
    stratified,
)
from likely.evaluate.scores import Floats, Integers, Scores, scored
from likely.evaluate.semi_supervised import Codes, SemiSupervised, semi_supervised
from likely.jobs.evaluate import Progress, Split, quiet, split_of
from likely.models.gan.adversary import adversary_of
from likely.noise import derived_seed, weights_from
from likely.runs.saved import SavedRun, build, load
from likely.settings import to_json, typed

Mode = Literal["joint", "frozen", "scratch", "m1m2"]
MODES: tuple[Mode, ...] = ("joint", "frozen", "scratch")
TITLES = {
    "joint": "fine-tuned jointly",
    "frozen": "frozen, linear probe",
    "scratch": "same network from scratch",
    "m1m2": "M1+M2, semi-supervised",
    "logistic": "logistic regression on pixels",
    "nearest": "1-nearest neighbour on pixels",
    "spreading": "label spreading on pixels (transductive)",
}
# Images that means and scales of layers are taken from.
UNLABELLED = 2000
# Above this many labels, spreading them tells nothing and takes memory.
MOST_SPREAD = 5000


@dataclasses.dataclass(frozen=True)
class ClassifySettings:
    """How a classifier is fitted and scored.

    Attributes:
        per_class: labelled examples of each class, one after another; 0 for all, in one draw.
        seeds: draws of labels.
        modes: joint, frozen, scratch; m1m2 for a VAE, which takes minutes a draw.
        layer: name of the layer that the classifier reads; "auto" chooses it by cross-validation.
        baselines: whether classifiers on pixels are scored, too.
        split: test, validation or train; make choices on the validation split.
        seed: of the first draw.
        device: auto, cpu, cuda.
        tuning: choices and budget of a fit of all weights.
        semi_supervised: how M2 is fitted.
    """

    per_class: tuple[int, ...] = (10,)
    seeds: int = 20
    modes: tuple[Mode, ...] = MODES
    layer: str = "auto"
    baselines: bool = True
    split: Split = "test"
    seed: int = 0
    device: str = "auto"
    tuning: FineTuning = dataclasses.field(default_factory=FineTuning)
    semi_supervised: SemiSupervised = dataclasses.field(default_factory=SemiSupervised)

    def __post_init__(self) -> None:
        typed(self)
        if not self.per_class or min(self.per_class) < 0 or self.seeds < 1 or self.seed < 0:
            raise InvalidSetting(
                "classify needs per_class of at least 0 (all), seeds of at least 1 and a seed of "
                f"at least 0, given {self.per_class}, {self.seeds} and {self.seed}"
            )


@dataclasses.dataclass(frozen=True)
class Difference:
    """A paired difference of accuracies in percentage points, with its 95 % interval."""

    points: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"{self.points:+.1f}"
        return f"{self.points:+.1f} [{self.low:.1f}, {self.high:.1f}]"


@dataclasses.dataclass(frozen=True)
class Result:
    """One way to classify, on one draw of labels.

    Attributes:
        scores: confusion matrix and calibration.
        choices: what cross-validation chose.
        seconds: of the fit and its choices.
    """

    scores: Scores
    choices: dict[str, Any]
    seconds: float


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to classify, over all draws.

    Attributes:
        accuracies: share of right examples, one for each draw.
        scores: confusion matrix and calibration, summed over the draws.
        choices: what cross-validation chose in each draw.
        seconds: of a draw on average.
    """

    accuracies: tuple[float, ...]
    scores: Scores
    choices: tuple[dict[str, Any], ...]
    seconds: float

    @classmethod
    def of(cls, results: Sequence[Result]) -> Method:
        """The method that gave these results."""
        scores = [result.scores for result in results]
        return cls(
            tuple(each.accuracy for each in scores),
            sum(scores[1:], start=scores[0]),
            tuple(result.choices for result in results),
            sum(result.seconds for result in results) / len(results),
        )


@dataclasses.dataclass(frozen=True, repr=False)
class Fraction:
    """All methods at one number of labels.

    Attributes:
        per_class: labelled examples of each class; 0 for all.
        labelled: labelled examples in all.
        methods: by name.
        data: that they are scored on.
    """

    per_class: int
    labelled: int
    methods: Mapping[str, Method]
    data: DataSpec

    @property
    def share(self) -> str:
        """How many labels, as "10 labels a class"."""
        return words_for(self.per_class)

    def accuracy(self, name: str) -> Estimate:
        """Mean accuracy over the draws in percent, its standard error over the draws."""
        accuracies = self.methods[name].accuracies
        return Estimate.mean_of(
            [100 * accuracy for accuracy in accuracies],
            unit="%",
            relation=Relation.APPROXIMATE,
            quantity="accuracy",
            fingerprint=self.data.fingerprint,
            lower_is_better=False,
            about=f"{self.labelled:,} labels, {len(accuracies)} draws",
        )

    def difference(self, first: str, second: str) -> Difference:
        """How much better the first is than the second, draw by draw."""
        pairs = zip(self.methods[first].accuracies, self.methods[second].accuracies, strict=True)
        points = [100 * (a - b) for a, b in pairs]
        mean, n = sum(points) / len(points), len(points)
        if n == 1:
            return Difference(mean, -math.inf, math.inf)
        half = float(np.std(points, ddof=1)) / math.sqrt(n) * confidence_width(n)
        return Difference(mean, mean - half, mean + half)

    def __str__(self) -> str:
        draws = len(next(iter(self.methods.values())).accuracies)
        head = (
            f"{self.share} ({self.labelled:,} in all), {draws} draw{'s' * (draws > 1)}; "
            f"{self.data.split} accuracy, n = {self.data.n:,}"
        )
        against = "scratch" if "scratch" in self.methods else ""
        lines = [head]
        for name, method in self.methods.items():
            text = f"  {TITLES[name]:42}{self.accuracy(name)!s:21} "
            text += f"calibration error {100 * method.scores.calibration_error:.1f} %"
            if against and name != against:
                text += f"  against scratch {self.difference(name, against)}"
            lines.append(text)
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True, repr=False)
class Classification:
    """What `classify` measured; as text a table for each number of labels.

    Attributes:
        run: directory of the run.
        model: its name.
        fractions: by number of labels.
        settings: of the classifiers.
    """

    run: str
    model: str
    fractions: tuple[Fraction, ...]
    settings: ClassifySettings

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.fractions))

    __repr__ = __str__

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "run": self.run,
            "model": self.model,
            "data": self.fractions[0].data.to_json(),
            "settings": to_json(self.settings),
            "fractions": [_fraction_json(fraction) for fraction in self.fractions],
        }

    def plot(self, path: str | Path) -> Path:
        """Draw accuracies, the confusion matrix and the calibration (.png, .pdf, .svg)."""
        from likely.files.figures import save_figure
        from likely.report.classify import classification_figure

        return save_figure(classification_figure(self.model, self.fractions, TITLES), path)


def words_for(per_class: int) -> str:
    """A number of labels in words."""
    return f"{per_class} label{'s' * (per_class > 1)} a class" if per_class else "all labels"


def _fraction_json(fraction: Fraction) -> dict[str, Any]:
    methods = {}
    for name, method in fraction.methods.items():
        methods[name] = {
            "title": TITLES[name],
            "mean": fraction.accuracy(name).to_json(),
            "accuracies": list(method.accuracies),
            **method.scores.to_json(),
            "choices": list(method.choices),
            "seconds": method.seconds,
        }
        if "scratch" in fraction.methods and name != "scratch":
            difference = fraction.difference(name, "scratch")
            if math.isfinite(difference.high):
                methods[name]["against_scratch_points"] = dataclasses.asdict(difference)
    return {"per_class": fraction.per_class, "labelled": fraction.labelled, "methods": methods}


def classify(
    run: SavedRun | str | Path,
    labels: str | Path | tuple[Dataset, Dataset] | None = None,
    settings: ClassifySettings | None = None,
    *,
    progress: Progress = quiet,
    **changes: Any,
) -> Classification:
    """Fit classifiers to few labels, starting from a run's encoder and without it.

    Args:
        run: from `likely.load`, or its directory.
        labels: a labelled data set, as `likely.data.load` takes or returns it, of the shape that
            the run was fitted to; the run's own data when None.
        settings: of the classifiers.
        progress: told of every draw.
        changes: fields of the settings, as per_class=(1, 10, 100).

    Raises:
        Unanswerable: the run's model gives no hidden layers and no features, or features alone,
            which can only be read frozen.
        InvalidData: there are no labels, or too few of a class.
        InvalidSetting: labelled images of another shape, or a layer that is not there.
        MissingDependency: scikit-learn is not installed.
    """
    settings = dataclasses.replace(settings or ClassifySettings(), **changes)
    scikit_learn("linear_model")
    run = run if isinstance(run, SavedRun) else load(run)
    job = Draws(run, labels, settings)
    fractions = tuple(job.fraction(per_class, progress) for per_class in settings.per_class)
    return Classification(str(run.directory), run.name, fractions, settings)


def _labelled(
    run: SavedRun, labels: str | Path | tuple[Dataset, Dataset] | None
) -> tuple[Dataset, Dataset]:
    """Training and test images with labels, as the run's model takes them."""
    spec = run.model.spec
    if labels is None:
        train, test = run.datasets()
    elif isinstance(labels, tuple):
        train, test = labels
    else:
        train, test = load_data(labels, binarize="threshold" if spec.levels == 2 else None)
    for part in (train, test):
        if part.labels is None:
            raise InvalidData(
                f"{part.spec.name} ({part.spec.split}) has no labels; name a labelled data set "
                "of the same shape, as --labels mnist"
            )
        if misfit := part.spec.misfit(spec):
            raise InvalidSetting(misfit)
    return train, test


class Draws:
    """Classifiers on draws of labels: what all of them share is made once.

    Args:
        run, labels, settings: as of `classify`.
    """

    def __init__(
        self,
        run: SavedRun,
        labels: str | Path | tuple[Dataset, Dataset] | None,
        settings: ClassifySettings,
    ) -> None:
        train, test = _labelled(run, labels)
        part = split_of(train, test, settings.split)
        assert train.labels is not None
        assert part.labels is not None
        self.run, self.train, self.part, self.settings = run, train, part, settings
        self.device = choose_device(settings.device)
        self.labels = np.asarray(train.labels, np.int64)
        self.classes = max(len(train.spec.classes), int(self.labels.max()) + 1)
        self.truth = np.asarray(part.labels, np.int64)
        self.scored = self._integers(part, np.arange(len(part)))
        every = np.arange(min(UNLABELLED, len(train))) * len(train) // min(UNLABELLED, len(train))
        self.unlabelled = self._integers(train, every)
        self.encoder = self._encoder(run.model, run.adversary)
        self.names = self.encoder.layers.names
        if settings.layer != "auto":
            self.names = (self.encoder.layers.chosen(settings.layer),)
        moved = [mode for mode in settings.modes if mode in ("joint", "scratch")]
        if moved and not all(map(self.encoder.layers.movable, self.names)):
            raise Unanswerable(
                f"{run.name} gives features without gradients, and {' and '.join(moved)} would "
                'move all its weights; leave the network as it is: --mode frozen, modes=("frozen",)'
            )
        self.features: dict[str, Features] = {}  # of the scored images
        self.pixels = self._pixels(self.scored)
        self.spreading: LabelSpreading | None = None
        self.codes: tuple[Codes, Tensor] | None = None

    def _encoder(self, model: Fittable, adversary: nn.Module | None) -> Encoder:
        for network in (model, adversary):
            if network is not None:
                place(network, self.device)
        return Encoder(Layers(model, adversary), self.unlabelled)

    def _integers(self, data: Dataset, index: Integers) -> Tensor:
        return torch.from_numpy(data.batch(index).x.astype(np.int64)).to(self.device)

    def _pixels(self, x: Tensor) -> Features:
        """[N, D] in [0, 1]."""
        pixels: Features = (x.flatten(1).float() / (self.train.spec.levels - 1)).cpu().numpy()
        return pixels

    def fraction(self, per_class: int, progress: Progress = quiet) -> Fraction:
        """Every method on every draw."""
        draws = self.settings.seeds if per_class else 1
        share = words_for(per_class)
        results = []
        for draw in range(draws):
            progress(f"classifying with {share}", draw, draws)
            results.append(self.draw(per_class, draw))
        progress(f"classifying with {share}", draws, draws)
        return self.together(per_class, results)

    def draw(self, per_class: int, number: int) -> dict[str, Result]:
        """Every method on the draw of this number, counted from 0."""
        seed = self.settings.seed + number
        index = stratified(self.labels, self.classes, per_class, seed)
        results = {}
        for name, method in self._methods(index, seed).items():
            began = time.monotonic()
            probabilities, choices = method()
            seconds = time.monotonic() - began
            results[name] = Result(scored(probabilities, self.truth), choices, seconds)
        return results

    def together(self, per_class: int, results: Sequence[Mapping[str, Result]]) -> Fraction:
        """The results of several draws as one."""
        labelled = self.classes * per_class or len(self.labels)
        methods = {name: Method.of([draw[name] for draw in results]) for name in results[0]}
        return Fraction(per_class, labelled, methods, self.part.spec)

    def _methods(
        self, index: Integers, seed: int
    ) -> dict[str, Callable[[], tuple[Floats, dict[str, Any]]]]:
        """What is fitted to one draw, each as a function without arguments."""
        settings, tuning = self.settings, self.settings.tuning
        x, labels = self._integers(self.train, index), self.labels[index]
        layers = {name: self.encoder.features(x, name) for name in self.names}
        probe = chosen_probe(layers, labels, self.classes, tuning)

        def frozen() -> tuple[Floats, dict[str, Any]]:
            layer = probe.layer
            if layer not in self.features:
                self.features[layer] = self.encoder.features(self.scored, layer)
            p = logistic_regression(
                layers[layer], labels, self.classes, self.features[layer], probe.penalty
            )
            return p, dataclasses.asdict(probe)

        def joint() -> tuple[Floats, dict[str, Any]]:
            return fine_tuned(
                self.encoder, probe, x, labels, self.classes, self.scored, tuning, seed
            )

        def scratch() -> tuple[Floats, dict[str, Any]]:
            initial = self._initial(seed)
            features = {probe.layer: initial.features(x, probe.layer)}
            start: Probe = chosen_probe(features, labels, self.classes, tuning)
            return fine_tuned(initial, start, x, labels, self.classes, self.scored, tuning, seed)

        pixels = self._pixels(x)

        def logistic() -> tuple[Floats, dict[str, Any]]:
            splits = tuning.splits(labels)
            penalty = cross_validated(
                logistic_regression, PENALTIES, pixels, labels, self.classes, splits
            )[2]
            p = logistic_regression(pixels, labels, self.classes, self.pixels, penalty)
            return p, {"penalty": penalty}

        def nearest() -> tuple[Floats, dict[str, Any]]:
            return nearest_neighbour(pixels, labels, self.classes, self.pixels), {}

        def spreading() -> tuple[Floats, dict[str, Any]]:
            if self.spreading is None:
                self.spreading = LabelSpreading(self.pixels)
            return self.spreading(pixels, labels, self.classes), {}

        networks: dict[str, Callable[[], tuple[Floats, dict[str, Any]]]]

        def m1m2() -> tuple[Floats, dict[str, Any]]:
            codes, mean = self._codes()
            drawn = self._posterior(x)
            settings = self.settings.semi_supervised
            targets = torch.from_numpy(labels)
            return semi_supervised(codes, drawn, targets, self.classes, mean, settings, seed), {}

        networks = {"joint": joint, "frozen": frozen, "scratch": scratch, "m1m2": m1m2}
        methods = {str(name): networks[name] for name in settings.modes}
        if settings.baselines:
            methods |= {"logistic": logistic, "nearest": nearest}
            if len(index) <= MOST_SPREAD:
                methods["spreading"] = spreading
        return methods

    def _codes(self) -> tuple[Codes, Tensor]:
        """q(c | x) of all training images, and the mean codes of the scored ones."""
        if self.codes is None:
            parts = [
                self._posterior(self._integers(self.train, np.arange(rows.start, rows.stop)))
                for rows in chunks(len(self.train), 1000)
            ]
            every = (torch.cat([getattr(part, n) for part in parts]) for n in ("mean", "scale"))
            self.codes = Codes(*every), self._posterior(self.scored).mean
        return self.codes

    @torch.no_grad()
    def _posterior(self, x: Tensor) -> Codes:
        """q(c | x) of M1.

        Raises:
            Unanswerable: the model's posterior is no diagonal Gaussian.
        """
        model = self.run.model
        parts = []
        for rows in chunks(len(x), 1000):
            posterior = model.posterior(x[rows]) if isinstance(model, LatentVariable) else None
            if not isinstance(posterior, DiagonalGaussian):
                raise Unanswerable(
                    f"{self.run.name}: M1+M2 takes a VAE whose posterior is a diagonal Gaussian"
                )
            parts.append(posterior)
        scale = torch.cat([part.log_scale for part in parts]).exp()
        return Codes(torch.cat([part.mean for part in parts]).cpu(), scale.cpu())

    def _initial(self, seed: int) -> Encoder:
        """The same network at initial weights."""
        model = self.run.model
        key = derived_seed("scratch", seed) % 2**31
        fresh = build(self.run.name, model.spec, to_json(model.settings), seed=key)
        adversary = None
        if self.run.adversary is not None:
            with weights_from(key):
                adversary = adversary_of(fresh)
        return self._encoder(fresh, adversary)
