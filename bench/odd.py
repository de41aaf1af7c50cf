"""How well odd images are told from usual ones, beside the length of a file, which knows no model.

    LIKELY_DATA=... python bench/odd.py --out DIR           # fits three networks, an hour
    LIKELY_DATA=... python bench/odd.py --out DIR fashion   # pairs of one network alone
    LIKELY_DATA=... python bench/odd.py --out DIR --only dose   # its part of the rows

A Gated PixelCNN of 8-bit images is fitted to Fashion-MNIST, one to MNIST, one to its digits 0
to 4; fits go on where they were stopped. Size and updates were chosen by the nats of validation
images of Fashion-MNIST. Pairs: clothes against digits, both ways; digits 0 to 4 against 5 to 9;
digits and clothes upright against a quarter turn. 2,000 test images of either kind (the first of
the split). The rule that counts is the first of `likely.evaluate.odd.RULE` that a model without a
second one has, and it was fixed before: bits less those of a file. Nothing is chosen by the odd
images. The density of the statistics, `dose`, was added when that rule had been read on these
images, and chosen among other ways to combine them on training images of both sets. So it is read
on the second half of the test splits; its density is that of the first half of the network's own.
`odd/fashion-mnist/auroc` is its worse way of the two between clothes and digits.

Fresh examples of a network's own data come from the test split: their p-values by rank, among the
other half of the images, are held against uniform over five halvings. The ranks are those among a
sample, so Kolmogorov and Smirnov's test is that of two samples.
Writes bench/results/odd.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics as stats
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import likely
from common import RESULTS, write_result
from likely import data, models
from likely.data.spec import Dataset, digest_of
from likely.evaluate.odd import (
    DOSE,
    RULE,
    TWO_SIDED,
    Asked,
    auroc,
    auroc_gain,
    conformal,
    dose,
    oddness,
    statistics,
)
from likely.training.run import Run
from recipes import MUON

NAME = "odd"
NETWORK = {"channels": 32, "layers": 6, "head_channels": 48, "components": 5}
FIT = dataclasses.replace(MUON, steps=6000, log_every=100)
N = 2000
ASKED = Asked(surprise=False)  # no figure is of it
HALVINGS = 5
LEVEL = 0.05


def classes(part: Dataset, wanted: range) -> Dataset:
    """The examples of some classes."""
    assert part.labels is not None
    return part.take(np.flatnonzero(np.isin(part.labels, wanted)))


def turned(part: Dataset) -> Dataset:
    """Every image a quarter turn to the left."""
    values = np.ascontiguousarray(np.rot90(part.values, axes=(2, 3)))
    spec = dataclasses.replace(part.spec, digest=digest_of(values))
    return dataclasses.replace(part, values=values, spec=spec, validation=None)


def few(part: Dataset) -> Dataset:
    """The first test images."""
    return part.take(slice(0, N))


def halves(part: Dataset) -> tuple[Dataset, Dataset]:
    """The first half of a split, and the second."""
    middle = len(part) // 2
    return part.take(slice(0, middle)), part.take(slice(middle, len(part)))


def low_digits(part: Dataset) -> Dataset:
    return classes(part, range(5))


def same(part: Dataset) -> Dataset:
    return part


# What each network is fitted to, and the pairs it is asked about: name -> (data, change).
FITTED: dict[str, tuple[str, Callable[[Dataset], Dataset]]] = {
    "fashion": ("fashion-mnist", same),
    "mnist": ("mnist", same),
    "digits-0-4": ("mnist", low_digits),
}
PAIRS: dict[str, dict[str, tuple[str, Callable[[Dataset], Dataset]]]] = {
    "fashion": {"mnist": ("mnist", same), "turned": ("fashion-mnist", turned)},
    "mnist": {"fashion": ("fashion-mnist", same), "turned": ("mnist", turned)},
    "digits-0-4": {"digits-5-9": ("mnist", lambda part: classes(part, range(5, 10)))},
}


def uniformity(score: npt.NDArray[np.float64], rule: str) -> tuple[float, float]:
    """(share of fresh examples with p at most 5 %, median KS p-value), over five halvings."""
    from scipy.stats import ks_2samp

    alarms, fits = [], []
    for seed in range(HALVINGS):
        order = np.random.default_rng(seed).permutation(len(score))
        known, fresh = score[order[::2]], score[order[1::2]]
        p = conformal(known, fresh, two_sided=rule in TWO_SIDED)
        alarms.append(float((p <= LEVEL).mean()))
        # Against ranks of the known ones: the reference is a sample, too, with noise of its own.
        fits.append(float(ks_2samp(p, conformal(known, known, two_sided=rule in TWO_SIDED)).pvalue))
    return stats.mean(alarms), stats.median(fits)


def network(name: str, folder: Path) -> Run:
    """The network of a row, fitted or read."""
    source, change = FITTED[name]
    train, _ = data.load(source)
    fitted_to = change(train)
    if train.validation is not None:
        fitted_to.validation = change(train.validation)
    model = models.GatedPixelCNN(train.spec, **NETWORK)
    run = likely.fit(model, fitted_to, settings=FIT, out=folder / name)
    if not run.finished:
        raise SystemExit(run.status)
    return run


def combined(name: str, run: Run) -> dict[str, Any]:
    """What the density of the statistics tells on images that the rule is not read on."""

    def of(part: Dataset) -> Any:
        return statistics(run.model, part, ASKED)

    source, change = FITTED[name]
    known, fresh = halves(change(data.load(source)[1]))
    density = of(known)
    usual = dose(density, of(fresh))
    assert usual is not None
    alarms, uniform = uniformity(usual, DOSE)
    entry: dict[str, Any] = {"false-alarms": alarms, "ks-p": uniform, "pairs": {}}
    for against, (other, changed) in PAIRS[name].items():
        _, further = halves(changed(data.load(other)[1]))
        odd = dose(density, of(further))
        assert odd is not None
        entry["pairs"][against] = auroc(usual, odd)
        print(name, against, DOSE, entry["pairs"][against], flush=True)
    return entry


def measured(name: str, run: Run) -> dict[str, Any]:
    """Ask a network about its pairs."""
    source, change = FITTED[name]
    _, test = data.load(source)
    usual = statistics(run.model, few(change(test)), ASKED)
    rule = next(each for each in RULE if each in usual)
    alarms, uniform = uniformity(usual[rule], rule)
    entry: dict[str, Any] = {
        "rule": rule, "nats": float(usual["nats"].mean()), "seconds": run.seconds,
        "false-alarms": alarms, "ks-p": uniform, "pairs": {},
    }  # fmt: skip
    for against, (other, changed) in PAIRS[name].items():
        odd = statistics(run.model, few(changed(data.load(other)[1])), ASKED)
        known = {key: values[::2] for key, values in usual.items()}
        fresh = {key: values[1::2] for key, values in usual.items()}
        scored = {
            key: (oddness(key, known[key], fresh[key]), oddness(key, known[key], odd[key]))
            for key in odd
        }
        pair: dict[str, Any] = {key: auroc(*both) for key, both in scored.items()}
        usuals, odds = zip(scored["file-length"], scored[rule], strict=True)
        pair["gain"] = auroc_gain(usuals, odds)
        entry["pairs"][against] = pair
        print(name, against, pair, flush=True)
    return entry


def figures_of(rows: dict[str, Any]) -> dict[str, float]:
    """Figures of all rows."""
    figures = {}
    for network_of, row in rows.items():
        parts = {"": row} | ({f"{DOSE}-": row[DOSE]} if DOSE in row else {})
        for start, part in parts.items():
            for key in ("false-alarms-at-5-percent", "ks-p"):
                figures[f"odd/{network_of}/{start}{key}"] = part[key.removesuffix("-at-5-percent")]
        for against, pair in row["pairs"].items():
            stem = f"odd/{network_of}/{against}"
            areas = {"auroc": pair[row["rule"]], "gain": pair["gain"]}
            if DOSE in row:
                areas[f"{DOSE}-auroc"] = row[DOSE]["pairs"][against]
            for key, (area, error) in areas.items():
                figures[f"{stem}/{key}"], figures[f"{stem}/{key}-standard-error"] = area, error
            figures[f"{stem}/file-length-auroc"] = pair["file-length"][0]
    both = [figures.get(f"odd/{way}/{DOSE}-auroc") for way in ("fashion/mnist", "mnist/fashion")]
    if None not in both:
        figures["odd/fashion-mnist/auroc"] = min(both)
    alarms = [row["false-alarms"] for row in rows.values()]
    figures["odd/false-alarms-at-5-percent"] = stats.mean(alarms)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(FITTED)} [all]")
    parser.add_argument("--out", type=Path, required=True, help="folder of the fits")
    parser.add_argument("--only", choices=("rule", "dose"), help="the other part stays")
    options = parser.parse_args()
    if unknown := sorted(set(options.networks) - set(FITTED)):
        parser.error(f"no network {', '.join(unknown)}; there are {', '.join(FITTED)}")
    torch.set_num_threads(1)
    path = RESULTS / f"{NAME}.json"
    for name in options.networks or FITTED:
        rows = json.loads(path.read_text())["about"]["rows"] if path.exists() else {}
        run = network(name, options.out)
        if options.only != "dose":
            before = rows.get(name, {})
            rows[name] = measured(name, run) | {k: before[k] for k in (DOSE,) if k in before}
        if options.only != "rule":
            rows[name][DOSE] = combined(name, run)
        figures = figures_of(rows)
        for key, value in figures.items():
            print(f"  {key}: {value:.4g}", flush=True)
        write_result(NAME, figures, {"images": N, "network": NETWORK}, {"rows": rows})


if __name__ == "__main__":
    main()
