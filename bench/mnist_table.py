"""One table of all likelihoods on statically binarised MNIST, neighbours compared in pairs.

    python bench/mnist_table.py

Reads what `bench/mnist.py` left under bench/results/, and writes bench/results/mnist-static.json
and docs/mnist-table.md. Neighbours are compared image by image, because the standard error of a
paired difference is several times smaller than that of either mean.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from common import RESULTS, write_result

PAGE = Path(__file__).parent.parent / "docs" / "mnist-table.md"
PREFIX = "mnist-static-"
# Published figures that a model is held against, nats; the PixelCNN's for the gated one.
PUBLISHED = {
    "fvsbn": 97.5, "nade": 88.4, "made": 86.7, "pixelcnn": 81.3, "row-lstm": 80.6,
    "diagonal-bilstm": 79.3, "gated-pixelcnn": 81.3,
}  # fmt: skip
HEAD = """# Statically binarised MNIST: the table

Larochelle's file, 50,000 training, 10,000 validation and 10,000 test images of 784 binary pixels.
Validation made every choice; the test split was read once for each row. `=` is an exact
likelihood, `<=` a bound. The difference is to the exact row above, image by image.

| model | test nats | published | difference | weights | updates | training | on | samples/s |
|---|---|---|---|---|---|---|---|---|
"""
PROS = """
## The lecture's pros and cons, measured

Statically binarised MNIST throughout; speeds are those of one or two processor cores that were
busy with other work, and differ between machines.

| kind | the lecture says | measured here |
|---|---|---|
"""
TAIL = """
Written by `python bench/mnist_table.py` from `bench/results/`. Training is in seconds, of one core
of a processor that other trainings used too, or of a card that ten of them shared.
"""


def row_of(path: Path) -> dict[str, Any] | None:
    """What the table needs of one result; None where the model has no likelihood."""
    record = json.loads(path.read_text(encoding="utf-8"))
    estimate = record["about"].get("estimate")
    if estimate is None:
        return None
    name = path.stem.removeprefix(PREFIX)
    each = path.with_suffix("") / "test-nats.npy"
    about, figures = record["about"], record["figures"]
    return {
        "name": name, "nats": estimate["value"], "error": estimate["standard_error"],
        "relation": estimate["relation"], "each": np.load(each) if each.exists() else None,
        "parameters": about["parameters"], "steps": about.get("steps"),
        "seconds": about.get("seconds"),
        "where": "NVIDIA" if "NVIDIA" in about.get("trained on", "") else "core",
        "rate": figures.get(f"{PREFIX[:-1]}/{name}/sampling-speed"),
    }  # fmt: skip


def paired(better: dict[str, Any], worse: dict[str, Any]) -> tuple[float, float] | None:
    """Mean difference in nats of two rows over the same images, and its standard error."""
    if better["each"] is None or worse["each"] is None:
        return None
    difference = worse["each"].astype(np.float64) - better["each"]
    return float(difference.mean()), float(difference.std(ddof=1) / len(difference) ** 0.5)


def pros_and_cons(paired_nats: dict[str, float]) -> str:
    """What the lecture says of each kind, with a measured figure in the place of each adjective."""

    def of(name: str) -> dict[str, float]:
        record = json.loads((RESULTS / f"{PREFIX}{name}.json").read_text(encoding="utf-8"))
        prefix = f"{PREFIX[:-1]}/{name}/"
        return {k.removeprefix(prefix): v for k, v in record["figures"].items()}

    rnn, cnn, vae, gan = map(of, ("diagonal-bilstm", "gated-pixelcnn", "vae", "dcgan"))
    about = json.loads((RESULTS / f"{PREFIX}vae.json").read_text(encoding="utf-8"))["about"]
    gap = vae["test-elbo-nats"] - vae["test-iw500-nats"]
    near, error = min(
        (abs(paired_nats[name]), paired_nats[name.replace("/nats", "/standard-error")])
        for name in paired_nats
        if name.endswith("/nats") and "-over-" in name
    )
    floor = rnn["floor/frechet"]
    lines = [
        ("PixelRNN, PixelCNN", "+ explicit likelihood p(x)",
         f"Diagonal BiLSTM = {rnn['test-nats']:.2f}, Gated PixelCNN = {cnn['test-nats']:.2f} nats; "
         "the fitted conditionals are proven to sum to one"),
        ("", "+ a good metric to evaluate by",
         f"the closest neighbours of the table are {near:.2f} +- {error:.2f} nats apart, image by "
         "image"),
        ("", "+ good samples",
         f"Fréchet distance {rnn['frechet']:.2f} and {cnn['frechet']:.2f}; a second real set has "
         f"{floor:.2f}"),
        ("", "- generation is sequential: slow",
         f"{rnn['sampling-speed']:,.0f} and {cnn['sampling-speed']:,.0f} images/s with the "
         f"incremental sampler (VAE {vae['sampling-speed']:,.0f}, DCGAN "
         f"{gan['sampling-speed']:,.0f}); the naive one is [hundreds of times](sampling.md) "
         "slower"),
        ("VAE", "+ inference of q(z given x): features",
         f"{about['active units']} of 50 coordinates carry information"),
        ("", "- a lower bound only",
         f"<= {vae['test-elbo-nats']:.2f} nats (ELBO), <= {vae['test-iw500-nats']:.2f} with 500 "
         f"importance samples: the first bound hides at least {gap:.2f}"),
        ("", "- blurrier samples than a GAN's",
         f"Fréchet distance {vae['frechet']:.2f} against {gan['frechet']:.2f}"),
        ("GAN", "+ the best samples",
         f"Fréchet distance {gan['frechet']:.2f} (VAE {vae['frechet']:.2f}), precision "
         f"{gan['precision']:.2f} ({vae['precision']:.2f}), recall {gan['recall']:.2f} "
         f"({vae['recall']:.2f}); on these digits the PixelRNN's are the best: "
         f"{rnn['frechet']:.2f}, {rnn['precision']:.2f}, {rnn['recall']:.2f}"),
        ("", "+ one pass a sample", f"{gan['sampling-speed']:,.0f} images/s"),
        ("", "- no p(x), no p(z given x)",
         "`log_prob` does not exist: the class has no such method"),
    ]  # fmt: skip
    body = "\n".join(f"| {kind} | {claim} | {figure} |" for kind, claim, figure in lines)
    return f"{PROS}{body}\n"


def shown(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)


def main() -> None:
    found = [row_of(path) for path in sorted(RESULTS.glob(f"{PREFIX}*.json"))]
    rows = sorted((row for row in found if row is not None), key=lambda row: row["nats"])
    figures: dict[str, float] = {}
    lines = []
    for index, row in enumerate(rows):
        if row["relation"] == "=":
            figures[f"mnist-static/{row['name']}/test-nats"] = row["nats"]
        better = next((r for r in reversed(rows[:index]) if r["each"] is not None), None)
        difference = None if better is None else paired(better, row)
        apart = "" if difference is None else f"{difference[0]:+.2f} +- {difference[1]:.2f}"
        if better is not None and difference is not None:
            pair = f"mnist-static/{row['name']}-over-{better['name']}"
            figures[f"{pair}/nats"], figures[f"{pair}/standard-error"] = difference
        lines.append(
            f"| `{row['name']}` | {row['relation']} {row['nats']:.2f} +- {row['error']:.2f} | "
            f"{shown(PUBLISHED.get(row['name']), '.1f')} | {apart} | {row['parameters']:,} | "
            f"{shown(row['steps'], ',')} | {shown(row['seconds'], ',.0f')} | {row['where']} | "
            f"{shown(row['rate'], '.3g')} |"
        )
    exact = [row["nats"] for row in rows if row["relation"] == "="]
    if exact:
        figures["mnist-static/best/test-nats"] = min(exact)
    write_result("mnist-static", figures, {"published": PUBLISHED}, {})
    page = HEAD + "\n".join(lines) + "\n" + TAIL + pros_and_cons(figures)
    PAGE.write_text(page, encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
