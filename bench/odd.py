"""How well odd images are told from usual ones, beside the length of a file, which knows no model.

    LIKELY_DATA=... python bench/odd.py --out DIR           # fits three networks, twenty minutes
    LIKELY_DATA=... python bench/odd.py --out DIR fashion   # pairs of one network alone

A Gated PixelCNN of 8-bit images is fitted to Fashion-MNIST, one to MNIST, one to its digits 0
to 4; fits go on where they were stopped. Pairs: clothes against digits, both ways; digits 0 to 4
against 5 to 9; digits and clothes upright against a quarter turn. 2,000 test images of either kind
(the first of the split). The rule that counts is the first of `likely.evaluate.odd.RULE` that a
model without a second one has, and it was fixed before: bits less those of a file. Nothing is
chosen by the odd images.

Fresh examples of a network's own data come from the test split: their p-values by rank, among the
other half of the images, are held against uniform (Kolmogorov and Smirnov) over five halvings.
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
from likely.evaluate.odd import RULE, TWO_SIDED, auroc, auroc_gain, conformal, oddness, statistics
from likely.settings import FitSettings

NAME = "odd"
NETWORK = {"channels": 24, "layers": 4, "head_channels": 48, "components": 5}
FIT = FitSettings(steps=1500, batch_size=32, learning_rate=2e-3, log_every=100)
N = 2000
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


def uniformity(values: dict[str, npt.NDArray[np.float64]], rule: str) -> tuple[float, float]:
    """(share of fresh examples with p at most 5 %, median KS p-value), over five halvings."""
    from scipy.stats import kstest

    alarms, fits = [], []
    score = values[rule]
    for seed in range(HALVINGS):
        order = np.random.default_rng(seed).permutation(len(score))
        known, fresh = score[order[::2]], score[order[1::2]]
        p = conformal(known, fresh, two_sided=rule in TWO_SIDED)
        alarms.append(float((p <= LEVEL).mean()))
        fits.append(float(kstest(p, "uniform").pvalue))
    return stats.mean(alarms), stats.median(fits)


def measured(name: str, folder: Path) -> dict[str, Any]:
    """Fit a network and ask it about its pairs."""
    source, change = FITTED[name]
    train, test = data.load(source)
    fitted_to = change(train)
    if train.validation is not None:
        fitted_to.validation = change(train.validation)
    model = models.GatedPixelCNN(train.spec, **NETWORK)
    run = likely.fit(model, fitted_to, settings=FIT, out=folder / name)
    if not run.finished:
        raise SystemExit(run.status)
    usual = statistics(run.model, few(change(test)))
    rule = next(each for each in RULE if each in usual)
    alarms, uniform = uniformity(usual, rule)
    entry: dict[str, Any] = {
        "rule": rule, "nats": float(usual["nats"].mean()), "seconds": run.seconds,
        "false-alarms": alarms, "ks-p": uniform, "pairs": {},
    }  # fmt: skip
    for against, (other, changed) in PAIRS[name].items():
        odd = statistics(run.model, few(changed(data.load(other)[1])))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(FITTED)} [all]")
    parser.add_argument("--out", type=Path, required=True, help="folder of the fits")
    options = parser.parse_args()
    if unknown := sorted(set(options.networks) - set(FITTED)):
        parser.error(f"no network {', '.join(unknown)}; there are {', '.join(FITTED)}")
    torch.set_num_threads(1)
    path = RESULTS / f"{NAME}.json"
    for name in options.networks or FITTED:
        entry = measured(name, options.out)
        rows = json.loads(path.read_text())["about"]["rows"] if path.exists() else {}
        # Rows of a file that has no paired gains are measured again, or left out.
        rows = {n: r for n, r in rows.items() if all("gain" in p for p in r["pairs"].values())}
        rows[name] = entry
        figures = {}
        for network, row in rows.items():
            figures[f"odd/{network}/false-alarms-at-5-percent"] = row["false-alarms"]
            figures[f"odd/{network}/ks-p"] = row["ks-p"]
            for against, pair in row["pairs"].items():
                area, error = pair[row["rule"]]
                figures[f"odd/{network}/{against}/auroc"] = area
                figures[f"odd/{network}/{against}/auroc-standard-error"] = error
                figures[f"odd/{network}/{against}/file-length-auroc"] = pair["file-length"][0]
                figures[f"odd/{network}/{against}/gain"] = pair["gain"][0]
                figures[f"odd/{network}/{against}/gain-standard-error"] = pair["gain"][1]
        if "fashion" in rows:
            figures["odd/fashion-mnist/auroc"] = figures["odd/fashion/mnist/auroc"]
        figures["odd/false-alarms-at-5-percent"] = stats.mean(
            row["false-alarms"] for row in rows.values()
        )
        for key, value in figures.items():
            print(f"  {key}: {value:.4g}", flush=True)
        write_result(NAME, figures, {"images": N, "network": NETWORK}, {"rows": rows})


if __name__ == "__main__":
    main()
