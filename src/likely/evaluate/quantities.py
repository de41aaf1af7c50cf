"""What is measured: one table of names, words, units and directions, in reading order."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Quantity:
    """Something that is measured.

    Attributes:
        name: in estimates and in report.json.
        title: in words.
        short: where there is little room; the title by default.
        unit: "nats" stands for bits/dim, too; "" for a number without a unit.
        lower_is_better: None where neither more nor less is better.
        decisive: whether the verdicts on it are printed.
    """

    name: str
    title: str
    short: str = ""
    unit: str = ""
    lower_is_better: bool | None = None
    decisive: bool = False

    @property
    def label(self) -> str:
        """The short words."""
        return self.short or self.title


LIKELIHOOD = "Likelihood of test data"
SAMPLES = "Samples against test images"
COPYING = "Copying of training images"
CODES = "Codes"
ANNEALING = "Annealing"
SPEED = "Speed"
CALIBRATION = "Forecasts of the next step"
SIMULATION = "Simulated sequences"

# By heading. Density is 1 for equal distributions, and more for samples that crowd where data is
# dense.
GROUPS: dict[str, tuple[Quantity, ...]] = {
    LIKELIHOOD: (
        *(
            Quantity(
                f"nll{condition.replace(' the', '').replace(' ', '-')}",
                f"negative log-likelihood{condition}",
                f"nll{bar}",
                "nats",
                True,
                True,
            )
            for condition, bar in (
                ("", ""),
                (" given the label", " | label"),
                (" given the context", " | context"),
            )
        ),
        Quantity("nll-difference", "paired difference to the best exact model", "to best exact"),
    ),
    CODES: (
        *(
            Quantity(f"{name}{condition}", f"{title}{condition.replace('-', ' ')}", name, "nats")
            for condition in ("", "-given-label", "-given-context")
            for name, title in (("rate", "rate: KL of the codes"), ("distortion", "distortion"))
        ),
        Quantity("code-perplexity", "perplexity of the codes", "perplexity"),
    ),
    ANNEALING: tuple(
        Quantity(f"annealing-{name}{condition}", title + condition.replace("-", " "), name, "nats")
        for condition in ("", "-given-label", "-given-context")
        for name, title in (
            ("gain", "annealing: nats below the importance-weighted bound"),
            ("gap", "annealing: upper less lower bound, simulated images"),
        )
    ),
    SAMPLES: (
        Quantity("frechet", "Fréchet distance", lower_is_better=True, decisive=True),
        Quantity("kid", "kernel distance (KID)", "kernel distance", lower_is_better=True),
        Quantity("precision", "precision", lower_is_better=False),
        Quantity("recall", "recall", lower_is_better=False),
        Quantity("density", "density"),
        Quantity("coverage", "coverage", lower_is_better=False),
    ),
    COPYING: (
        Quantity("nearest-train-pixels", "nearest training image, pixels", "nearest, pixels"),
        Quantity("memorisation-ratio-pixels", "memorisation ratio, pixels", "ratio, pixels"),
        Quantity("nearest-train-features", "nearest training image, features", "nearest, features"),
        Quantity("memorisation-ratio-features", "memorisation ratio, features", "ratio, features"),
        Quantity("near-copies", "share of near copies", "near copies"),
        Quantity("duplicates", "share of exact copies", "exact copies"),
    ),
    CALIBRATION: (
        *(
            Quantity(
                f"coverage-{level}",
                f"coverage of the {level} % interval",
                f"in {level} %",
                unit="%",
            )
            for level in (50, 80, 90, 95)
        ),
        Quantity("crps", "CRPS", unit="standard deviations", lower_is_better=True),
        Quantity("energy-score", "energy score", unit="standard deviations", lower_is_better=True),
    ),
    SIMULATION: (
        Quantity(
            "window-energy", "energy distance of windows", "window energy", lower_is_better=True
        ),
        Quantity(
            "autocorrelation-error",
            "error of the autocorrelation",
            "autocorrelation",
            lower_is_better=True,
        ),
        Quantity("spectrum-error", "error of the spectrum", "spectrum", lower_is_better=True),
        Quantity(
            "run-length-error", "error of the lengths of runs", "run lengths", lower_is_better=True
        ),
        Quantity(
            "copy-ratio", "distance to training windows over that of held-out ones", "copy ratio"
        ),
    ),
    SPEED: (Quantity("sampling-speed", "sampling speed", "speed", "images/s", False),),
}
QUANTITIES = {quantity.name: quantity for group in GROUPS.values() for quantity in group}
# What a model without a density cannot have.
LIKELIHOODS = tuple(quantity.name for quantity in GROUPS[LIKELIHOOD] if quantity.decisive)


def words(name: str, short: bool = False) -> str:
    """What a quantity is called; its name where it is not in the table."""
    quantity = QUANTITIES.get(name)
    if quantity is None:
        return name
    return quantity.label if short else quantity.title
