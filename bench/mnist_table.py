"""One table of all likelihoods on statically binarised MNIST, neighbours compared in pairs.

    python bench/mnist_table.py

Reads what `bench/mnist.py` and `bench/mnist_rows.py` left under bench/results/, and writes
bench/results/mnist-static.json and docs/mnist-table.md. Neighbours are compared image by image,
because the standard error of a paired difference is several times smaller than that of either mean.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from common import RESULTS, sha256, write_result
from mnist_rows import PREFIX, evaluation, kept, old, rows
from published import NONE, PUBLISHED

PAGE = Path(__file__).parent.parent / "docs" / "mnist-table.md"
# A warm restart from another row: that row's record says what the weights had cost before.
WENT_ON_FROM = {"row-lstm": "row-lstm-narrow"}
# A first part whose clock was not kept.
BEFORE = {"pixelcnn": {"steps": 5_000, "trained on": "NVIDIA H200"}}
# Likelihoods that were read on the test split for weights that the table no longer has, nats.
EARLIER = {
    "pixelcnn": "82.18 (24 channels, 8,000 updates of 16 images)",
    "row-lstm": "81.94 (7 layers of 16, 8,000 updates of 16 images), and 80.85, which is "
    "`row-lstm-narrow` now",
    "fvsbn": "97.85, which is `fvsbn-flat` now",
    "made": "88.77, which is `made-flat` now, and 85.08 by the same recipe on an AMD EPYC, whose "
    "weights are lost",
}
HEAD = """# Statically binarised MNIST: the table

Larochelle's binarisation: 50,000 training, 10,000 validation and 10,000 test images of 784 binary
pixels. `=` is an exact likelihood, `<=` a bound; ± is one standard error over the test images. The
difference is the paired difference to the exact row above. Published figures are quoted as printed;
their models may differ from ours ([below](#what-the-papers-print)).

| model | test nats | published | difference | weights | updates | training, s | on |
|---|---|---|---|---|---|---|---|
"""
NOTES = """
Written by `python bench/mnist_table.py` from `bench/results/`. Training times are wall-clock
seconds on one core of a busy CPU, or on a GPU shared with other fits. Where training was continued
from finished weights, all parts are listed in order.

## How often the test split was read

Recipes, sizes and stopping were chosen on the validation split. The test split was evaluated once
for the final weights of each row; [rechecks](#checking-a-row) only repeat that number. Some models
were trained again, most with another recipe, after the test figure of an earlier attempt was known:

"""
PAPERS = """
## What the papers print

| row | published nats | where | their model | differs here |
|---|---|---|---|---|
"""
CHECKS = """
## Checking a row

`likely evaluate` evaluates the committed weights on the test split. The last column is its result
(`python bench/mnist_rows.py recheck`), on another day and for most rows on another CPU model.

| row | command | committed nats | measured again |
|---|---|---|---|
"""
ANNEALED = """
## Latent-variable models, annealed

Test images, spread evenly: annealed importance sampling from the encoder with
{temperatures} temperatures, {chains} chains and {leapfrogs} leapfrog steps per move
([evaluation](evaluation.md), `python bench/mnist_rows.py anneal`). All bounds of a row are about
the same images, so the gain of annealing over $L_{{500}}$ is paired; the ± of a mean is that of
the images.

| row | images | ELBO | $L_{{500}}$ | annealed | gain | gap, simulated | accepted |
|---|---|---|---|---|---|---|---|
"""
PROS = """
## The lecture's pros and cons, measured

Statically binarised MNIST throughout. Fréchet distances are between 2,000 samples and 2,000 test
images; ± is their standard error. {extractor}

| kind | the lecture says | measured here |
|---|---|---|
"""
ONE_EXTRACTOR = "All are measured with one extractor (`python bench/mnist_rows.py samples`)."
SEVERAL = "Extractors fitted on two machines were used, so they compare only roughly."


@dataclasses.dataclass
class Row:
    """What the table needs of one result.

    Attributes:
        name: of the row.
        about: what the result says of the weights and of their training.
        each: nats of every test image, where they are exact.
    """

    name: str
    about: dict[str, Any]
    each: np.ndarray[Any, Any] | None = None

    @property
    def estimate(self) -> dict[str, Any]:
        """Nats on the test split, as `likely.Estimate` writes it."""
        estimate: dict[str, Any] = self.about["estimate"]
        return estimate

    @property
    def nats(self) -> float:
        return float(self.estimate["value"])

    @property
    def parts(self) -> list[dict[str, Any]]:
        """Updates, seconds and hardware of each part of the training."""
        before = self.about.get("before", BEFORE.get(self.name))
        if self.name in WENT_ON_FROM:
            before = record_of(WENT_ON_FROM[self.name])["about"]
        parts = [self.about]
        while before is not None:
            parts.insert(0, before)
            before = before.get("before")
        return parts


def record_of(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(
        (RESULTS / f"{PREFIX}{name}.json").read_text(encoding="utf-8")
    )
    return record


def row_of(name: str) -> Row | None:
    """A row of the table; None where the model has no likelihood, or was not measured."""
    if not (RESULTS / f"{PREFIX}{name}.json").exists():
        return None
    about = record_of(name)["about"]
    if "estimate" not in about:
        return None
    each = RESULTS / f"{PREFIX}{name}" / "test-nats.npy"
    return Row(name, about, np.load(each) if each.exists() else None)


def paired(better: Row, worse: Row) -> tuple[float, float] | None:
    """Mean difference in nats of two rows over the same images, and its standard error."""
    if better.each is None or worse.each is None:
        return None
    if any(row.about["estimate"]["relation"] == ">=" for row in (better, worse)):
        return None  # one log Z for all images: its error is no spread over images
    difference = worse.each.astype(np.float64) - better.each
    return float(difference.mean()), float(difference.std(ddof=1) / len(difference) ** 0.5)


def whole_training(row: Row) -> list[str]:
    """Updates, seconds and hardware, of all parts."""

    steps = [f"{part['steps']:,}" for part in row.parts]
    seconds = [f"{p['seconds']:,.0f}" if p.get("seconds") else "not kept" for p in row.parts]
    where = ["H200" if "H200" in p.get("trained on", "") else "one core" for p in row.parts]
    return [" + ".join(parts) for parts in (steps, seconds, where)]


def measured(estimate: dict[str, Any] | None, form: str = ".2f") -> str:
    """An estimate with its error."""
    if estimate is None:
        return "not measured"
    return f"{estimate['value']:{form}} ± {estimate['standard_error']:{form}}"


def of_papers(rows: list[Row]) -> str:
    """The published figures and their sources."""
    lines = [
        f"| `{row.name}` | {p.nats} | [{p.source}]({p.link}) | {p.theirs} | {p.ours} |"
        for row in rows
        if (p := PUBLISHED.get(row.name)) is not None
    ]
    return PAPERS + "\n".join(lines) + f"\n\n{NONE}\n"


def of_checks(rows: list[Row]) -> str:
    """Which rows can be measured again, and what came out."""
    again = old("recheck").get("about", {})
    lines, lost = [], []
    for row in rows:
        weights = kept(row.name)
        if weights is None:
            lost.append(row)
            continue
        check, came = again.get(row.name), "not yet"
        same = {"sha256": sha256(weights), "command": evaluation(row.name)}
        if check is not None and same.items() <= check.items():
            came = f"{check['again']['relation']} {check['again']['value']:.5f}"
        lines.append(
            f"| `{row.name}` | `{evaluation(row.name)}` | {row.estimate['relation']} "
            f"{row.nats:.5f} | {came} |"
        )
    text = CHECKS + "\n".join(lines) + "\n"
    for row in lost:
        whole = row.about.get("weights sha256")
        mark = (
            f"the SHA-256 of `weights.safetensors` is `{whole}`"
            if whole
            else "its hash was not kept, the digest of settings and weights begins with "
            f"`{row.about['proofs']['digest']}` (`likely.verify.weights_digest`)"
        )
        text += (
            f"\nThe weights of `{row.name}` ({row.about['parameters'] * 4 / 1e6:.0f} MB) are too "
            f"large to keep; {mark}. Training again on another CPU model sums in another order and "
            "ends at slightly different weights.\n"
        )
    return text


def of_annealed() -> str:
    """log p(x) of latent-variable models, near the truth; nothing before it was measured."""
    record = old("annealed")
    if not record:
        return ""
    s, lines = record["settings"], []
    for name, row in sorted(
        record["about"].items(), key=lambda row: row[1]["means"]["test-ais-nats"][0]
    ):
        columns = ("test-elbo-nats-of-the-same", "test-iw500-nats-of-the-same", "test-ais-nats")
        means = row["means"]
        each = [f"<= {value:.2f} ± {error:.2f}" for value, error in map(means.get, columns)]
        paired_columns = ("ais-gain-nats", "bdmc-gap-nats")
        each += [f"{value:.2f} ± {error:.2f}" for value, error in map(means.get, paired_columns)]
        lines.append(
            f"| `{name}` | {row['images']:,} | {' | '.join(each)} | {row['acceptance']:.0%} |"
        )
    return (
        ANNEALED.format(**s) + "\n".join(lines) + "\n\nThe gap is between both bounds of "
        "images that the model drew, a tenth as many, at the same settings. On real images the "
        "upper bound does not exist: what the gap says of them is not a proven upper bound.\n"
    )


def pros_and_cons(figures: dict[str, float]) -> str:
    """What the lecture says about each kind, beside measured figures."""
    rnn, cnn, vae, gan = map(scores_of, ("diagonal-bilstm", "gated-pixelcnn", "vae", "dcgan"))
    floor = {
        e["quantity"]: e for e in old("samples").get("about", record_of("vae")["about"])["floor"]
    }
    timed = old("rates").get("about", {}).get("rows", {})
    nats = {name: record_of(name)["about"]["estimate"] for name in
            ("diagonal-bilstm", "gated-pixelcnn", "vae")}  # fmt: skip
    elbo = record_of("vae")["figures"]["mnist-static/vae/test-elbo-nats"]
    others = old("recheck").get("about", {}).get("vae", {}).get("others", [])
    spread = f"± {others[0]['standard_error']:.2f}" if others else "± (not kept)"
    gap = elbo - nats["vae"]["value"]
    apart = [
        (abs(figures[name]), figures[name.replace("/nats", "/standard-error")])
        for name in figures
        if name.endswith("/nats") and "-over-" in name
    ]
    near, error = min((value, error) for value, error in apart if value > 2 * error)

    def rate(*names: str) -> str:
        speeds = [f"{timed[n]['estimate']['value']:,.0f} ({n})" for n in names if n in timed]
        return f"images/s: {', '.join(speeds)}" if speeds else "not measured in one run yet"

    def frechet(of: dict[str, Any]) -> str:
        return measured(of.get("frechet"))

    lines = [
        ("PixelRNN, PixelCNN", "+ explicit likelihood $p(x)$",
         f"Diagonal BiLSTM = {measured(nats['diagonal-bilstm'])}, Gated PixelCNN = "
         f"{measured(nats['gated-pixelcnn'])} nats; `likely verify` checks the fitted weights"),
        ("", "+ a good metric to evaluate by",
         f"neighbours of the table that are {near:.2f} ± {error:.2f} nats apart are told, image by "
         "image"),
        ("", "+ good samples",
         f"Fréchet distance {frechet(rnn)} and {frechet(cnn)}; training images score "
         f"{frechet(floor)}"),
        ("", "- generation is sequential: slow",
         f"{rate('diagonal-bilstm', 'gated-pixelcnn', 'vae', 'dcgan')}; the naive loop: "
         "[sampling](sampling.md)"),
        ("VAE", "+ inference of $q(z \\mid x)$: features",
         f"{record_of('vae')['about']['active units']} of 50 coordinates carry information"),
        ("", "- a lower bound only",
         f"ELBO: <= {elbo:.2f} {spread} nats; with 500 importance samples: <= "
         f"{measured(nats['vae'])}; so the ELBO is loose by {gap:.1f} or more"),
        ("", "- blurrier samples than a GAN's",
         f"Fréchet distance {frechet(vae)} against {frechet(gan)}"),
        ("GAN", "+ the best samples",
         f"Fréchet distance {frechet(gan)} (VAE {frechet(vae)}, Diagonal BiLSTM {frechet(rnn)}), "
         f"precision {measured(gan.get('precision'))} ({measured(vae.get('precision'))}, "
         f"{measured(rnn.get('precision'))}), recall {measured(gan.get('recall'))} "
         f"({measured(vae.get('recall'))}, {measured(rnn.get('recall'))})"),
        ("", "+ one pass per sample", rate("dcgan")),
        ("", "- no $p(x)$, no $p(z \\mid x)$",
         "`log_prob` does not exist: the class has no such method"),
    ]  # fmt: skip
    single = len({each["frechet"]["fingerprint"] for each in (rnn, cnn, vae, gan, floor)}) == 1
    about = ONE_EXTRACTOR if single else SEVERAL
    body = "\n".join(f"| {kind} | {claim} | {figure} |" for kind, claim, figure in lines)
    return PROS.format(extractor=about) + body + "\n"


def scores_of(name: str) -> dict[str, Any]:
    """What was measured of a row's samples, together with the other rows' where that was done."""
    together = old("samples").get("about", {}).get("rows", {})
    kept = together[name] if name in together else record_of(name)["about"]
    return {estimate["quantity"]: estimate for estimate in kept["samples"]}


def of_rates() -> str:
    """Speeds of all samplers, from one run on one machine; nothing before there is such a run."""
    record = old("rates")
    if not record:
        return ""
    machine = record["environment"]
    fastest = sorted(record["about"]["rows"].items(), key=lambda row: -row[1]["estimate"]["value"])
    lines = [
        f"| `{name}` | {measured(row['estimate'], '.4g')} | {row['weights'].split('.')[0]} |"
        for name, row in fastest
    ]
    return (
        "\n## Sampling\n\nImages per second, 64 per call, all in one run "
        f"(`{record['command']}`, {record['date']}, {machine['processor']}, "
        f"{record['settings']['threads']} thread). Where the weights are not kept the network has "
        "fresh ones, which take the same time.\n\n| row | images/s | weights |\n|---|---|---|\n"
        + "\n".join(lines)
        + "\n"
    )


def built() -> tuple[str, list[str], dict[str, float]]:
    """The page, the lines of its table, and the figures."""
    ranked = [row for name in rows() if (row := row_of(name)) is not None]
    ranked.sort(key=lambda row: row.nats)
    figures: dict[str, float] = {}
    lines = []
    for index, row in enumerate(ranked):
        relation = row.estimate["relation"]
        if relation == "=":
            figures[f"mnist-static/{row.name}/test-nats"] = row.nats
            figures[f"mnist-static/{row.name}/test-nats-standard-error"] = row.estimate[
                "standard_error"
            ]
        exact = [r for r in ranked[:index] if r.each is not None and r.estimate["relation"] == "="]
        better = exact[-1] if exact else None
        difference = None if better is None else paired(better, row)
        apart = "" if difference is None else f"{difference[0]:+.2f} ± {difference[1]:.2f}"
        if better is not None and difference is not None:
            pair = f"mnist-static/{row.name}-over-{better.name}"
            figures[f"{pair}/nats"], figures[f"{pair}/standard-error"] = difference
        printed = PUBLISHED[row.name].nats if row.name in PUBLISHED else ""
        lines.append(
            f"| `{row.name}` | {relation} {measured(row.estimate)} | {printed} | {apart} | "
            f"{row.about['parameters']:,} | {' | '.join(whole_training(row))} |"
        )
    earlier = [f"- `{name}`: {said}." for name, said in EARLIER.items()]
    page = [
        HEAD + "\n".join(lines) + "\n", NOTES + "\n".join(earlier) + "\n", of_papers(ranked),
        of_annealed(), of_checks(ranked), of_rates(), pros_and_cons(figures),
    ]  # fmt: skip
    return "".join(page), lines, figures


def main() -> None:
    page, lines, figures = built()
    printed = {name: published.nats for name, published in PUBLISHED.items()}
    write_result("mnist-static", figures, {"published": printed}, {})
    PAGE.write_text(page, encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
