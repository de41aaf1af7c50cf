"""Likely: generative models with honest numbers, and Markov decision processes with bounds.

    train, test = likely.data.load("digits")
    run = likely.fit(likely.models.VAE(train.spec), train, likely.NegativeELBO())
    likely.bits_per_dim(run.model, test)          # <= ... bits/dim

The names below are imported when they are first used, so `import likely` is quick and loads
neither torch nor numpy.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from likely import data as data
    from likely import mdp as mdp
    from likely import models as models
    from likely import runs as runs
    from likely import world as world
    from likely.ask import Guarantee as Guarantee
    from likely.ask import answers as answers
    from likely.ask import ask as ask
    from likely.ask.compress import compress as compress
    from likely.ask.compress import decompress as decompress
    from likely.data.spec import Dataset as Dataset
    from likely.data.spec import DataSpec as DataSpec
    from likely.density import ApproximateDensity as ApproximateDensity
    from likely.density import Fittable as Fittable
    from likely.density import GenerativeModel as GenerativeModel
    from likely.density import ImplicitDensity as ImplicitDensity
    from likely.density import TractableDensity as TractableDensity
    from likely.errors import LikelyError as LikelyError
    from likely.errors import Unanswerable as Unanswerable
    from likely.estimate import Comparison as Comparison
    from likely.estimate import Estimate as Estimate
    from likely.estimate import Relation as Relation
    from likely.estimate import Verdict as Verdict
    from likely.evaluate.annealed import annealed as annealed
    from likely.evaluate.likelihood import bits_per_dim as bits_per_dim
    from likely.evaluate.likelihood import log_likelihood as log_likelihood
    from likely.evaluate.likelihood import nats as nats
    from likely.evaluate.semi_supervised import SemiSupervised as SemiSupervised
    from likely.files.sheets import show as show
    from likely.jobs.classify import classify as classify
    from likely.jobs.clusters import clusters as clusters
    from likely.jobs.codes.prior import with_prior as with_prior
    from likely.jobs.compare import compare as compare
    from likely.jobs.evaluate import evaluate as evaluate
    from likely.runs.saved import load as load
    from likely.settings import FitSettings as FitSettings
    from likely.training.adversarial import HingeGAN as HingeGAN
    from likely.training.adversarial import LeastSquaresGAN as LeastSquaresGAN
    from likely.training.adversarial import MinimaxGAN as MinimaxGAN
    from likely.training.adversarial import NonSaturatingGAN as NonSaturatingGAN
    from likely.training.adversarial import RelativisticGAN as RelativisticGAN
    from likely.training.adversarial import WassersteinGAN as WassersteinGAN
    from likely.training.loop import fit as fit
    from likely.training.objectives import CodeLikelihood as CodeLikelihood
    from likely.training.objectives import ContrastiveDivergence as ContrastiveDivergence
    from likely.training.objectives import ExpectationMaximization as ExpectationMaximization
    from likely.training.objectives import ImportanceWeighted as ImportanceWeighted
    from likely.training.objectives import NegativeELBO as NegativeELBO
    from likely.training.objectives import NegativeLogLikelihood as NegativeLogLikelihood
    from likely.training.objectives import OrderAgnosticLikelihood as OrderAgnosticLikelihood
    from likely.training.objectives import QuantisedBound as QuantisedBound
    from likely.training.objectives import ReconstructionError as ReconstructionError
    from likely.training.objectives import SequenceBound as SequenceBound
    from likely.training.objectives import SequenceLikelihood as SequenceLikelihood
    from likely.training.objectives import SubsampledLikelihood as SubsampledLikelihood
    from likely.training.run import Run as Run
    from likely.verify import verify as verify

__version__ = "0.1.0"

_MODULES = ("data", "mdp", "models", "runs", "sklearn", "world")
_HOME = {
    name: home
    for home, names in {
        "ask": ("Guarantee", "answers", "ask"),
        "ask.compress": ("compress", "decompress"),
        "data.spec": ("DataSpec", "Dataset"),
        "density": (
            *("ApproximateDensity", "Fittable", "GenerativeModel", "ImplicitDensity"),
            "TractableDensity",
        ),
        "errors": ("LikelyError", "Unanswerable"),
        "estimate": ("Comparison", "Estimate", "Relation", "Verdict"),
        "evaluate.annealed": ("annealed",),
        "evaluate.likelihood": ("bits_per_dim", "log_likelihood", "nats"),
        "files.sheets": ("show",),
        "evaluate.semi_supervised": ("SemiSupervised",),
        "jobs.classify": ("classify",),
        "jobs.clusters": ("clusters",),
        "jobs.compare": ("compare",),
        "jobs.evaluate": ("evaluate",),
        "jobs.codes.prior": ("with_prior",),
        "runs.saved": ("load",),
        "settings": ("FitSettings",),
        "training.adversarial": (
            *("HingeGAN", "LeastSquaresGAN", "MinimaxGAN", "NonSaturatingGAN"),
            *("RelativisticGAN", "WassersteinGAN"),
        ),
        "training.loop": ("fit",),
        "training.objectives": (
            "ExpectationMaximization",
            *("ContrastiveDivergence", "ImportanceWeighted", "NegativeELBO"),
            *("NegativeLogLikelihood", "OrderAgnosticLikelihood", "QuantisedBound"),
            "SequenceBound",
            "SequenceLikelihood",
            *("ReconstructionError", "SubsampledLikelihood", "CodeLikelihood"),
        ),
        "training.run": ("Run",),
        "verify": ("verify",),
    }.items()
    for name in names
}

__all__ = sorted([*_HOME, *_MODULES, "__version__"])


class _Package(ModuleType):
    """This package, whose functions `ask`, `evaluate` and `verify` have rooms of the same names.

    The import system sets a submodule as an attribute of its package. Here the function stays:
    `likely.verify(...)` works even if the room was imported before.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in _HOME):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"likely.{name}")
    if name in _HOME:
        value = getattr(importlib.import_module(f"likely.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'likely' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
