"""Write docs/results.md from the JSON files under bench/results, so that no figure is typed.

python bench/tables.py
"""

from __future__ import annotations

import json
import math
import re
import shutil
import statistics
from pathlib import Path
from typing import Any

from common import RESULTS
from mnist_rows import PREFIX
from mnist_table import Row, whole_training

DOCS = Path(__file__).parent.parent / "docs"
HEAD = """# Results

Every figure below was measured by a command in this repository. `bench/results/` keeps each as JSON
with its settings, data fingerprint and environment; this page is written from there by
`python bench/tables.py`.

`=` is exact, `<=` a bound, `~` an estimate; ± is one standard error over the examples (in the
ablation, the difference between two seeds). A figure without a sign was counted or timed.
"""
TITLES = {
    "mnist-static-fvsbn": "FVSBN on statically binarised MNIST",
    "mnist-static-fvsbn-flat": "FVSBN without the prior by offset and distance",
    "mnist-static-nade": "NADE on statically binarised MNIST",
    "mnist-static-made": "MADE on statically binarised MNIST",
    "mnist-static-made-flat": "MADE without the prior by offset and distance",
    "mnist-static-made-small": "MADE small enough to keep",
    "mnist-static-deep-nade": "DeepNADE on statically binarised MNIST",
    "mnist-static-pixelcnn": "PixelCNN on statically binarised MNIST",
    "mnist-static-row-lstm": "Row LSTM on statically binarised MNIST",
    "mnist-static-row-lstm-narrow": "Row LSTM with kernels of 3, as published",
    "mnist-static-diagonal-bilstm": "Diagonal BiLSTM on statically binarised MNIST",
    "mnist-static-gated-pixelcnn": "Gated PixelCNN on statically binarised MNIST",
    "mnist-static-pixelcnn-pp": "PixelCNN++ on statically binarised MNIST",
    "mnist-static-attention": "PixelSNAIL (attention) on statically binarised MNIST",
    "mnist-static-gated-pixelcnn-ensemble": "Mixture of Gated PixelCNNs from several corners on "
    "statically binarised MNIST",
    "mnist-static-vae": "VAE on statically binarised MNIST",
    "mnist-static-dcgan": "DCGAN on statically binarised MNIST",
    "mnist-static-recheck": "The rows of the MNIST table, measured again",
    "mnist-static-samples": "Samples of the rows of the MNIST table",
    "mnist-static-rates": "Samplers of the rows of the MNIST table",
    "cifar10-pixelcnn-pp": "PixelCNN++ on CIFAR-10, minutes of a card",
    "ablation": "What each improvement of PixelCNN++ is worth on the 8x8 digits",
    "resume-kills": "Runs killed at random moments",
    "fuzz": "Damaged files of every kind",
    "throughput": "Training throughput against a plain loop, on a processor",
    "throughput-cuda": "Training throughput against a plain loop, on a card",
    "sampling-cuda-mnist-gated-pixelcnn": "Sampling on a card",
    "sampling": "Sampling",
    "recurrent": "Row LSTM and Diagonal BiLSTM against loops and a gated convolution",
    "metrics": "Known answers of the sample metrics",
    "mdp": "Markov decision processes against other solvers",
}
SMALL = (
    "A small network for 300 steps of 16 images, to see that the validation likelihood falls (the "
    "JSON keeps the curve); far from what the model can do. The test split was not read."
)
# What a result does not reach, and why; measured figures alone would not say it.
REMARKS = {
    "mnist-static-fvsbn": "Published: 97.45 nats. Fitted under the prior of `likely.nn.local`; the "
    "weights count the parts that are shared, 307,720 act.",
    "mnist-static-fvsbn-flat": "Published: 97.45 nats. Under one Gaussian for all weights. The "
    "seconds are those of a processor that many others used.",
    "mnist-static-nade": "Published: 88.33 nats.",
    "mnist-static-pixelcnn": "Published: 81.30 nats. 5,000 updates of 32 images on a card, whose "
    "clock was not kept, then a warm restart of 3,000 on one core.",
    "mnist-static-gated-pixelcnn-ensemble": "Three networks of the recipe for one. The seconds are "
    "the sum over the networks, and those of the second count twenty minutes in which it was "
    "paused.",
    "mnist-static-row-lstm": "Published: 80.54 nats (van den Oord 2016a; its width is unknown). "
    "The narrow network below, whose kernels were widened (new taps begin at zero, a wider "
    "triangle) and which went on with dropout.",
    "mnist-static-row-lstm-narrow": "Published: 80.54 nats. The best validation came at 5,000 of "
    "7,500 updates; after that it overfits.",
    "mnist-static-made": "Published: 86.64 nats with two layers of 8,000 units and 32 masks; 88.40 "
    "with one layer and one mask. This has one layer of 7,840 and one mask, fitted under the prior "
    "of `likely.nn.local`. The weights (53 MB) are not kept; their hash is.",
    "mnist-static-made-flat": "Published: 86.64 nats, see above. One layer of 8,000 units and "
    "four masks, no prior. The weights (53 MB) are not kept.",
    "mnist-static-made-small": "Published: 86.64 nats, see above. One layer of 400 units, no "
    "prior: small enough to keep its weights.",
    "mnist-static-diagonal-bilstm": "Published: 79.20 nats (van den Oord 2016a) for seven layers "
    "of 16; this has seven of 32.",
    "mnist-static-recheck": "What `likely evaluate` makes of the kept weights, and the difference "
    "to the committed figure.",
    "mnist-static-samples": "Samples of the kept weights, all measured with one extractor.",
    "mnist-static-rates": "Images a second, 64 a call, in one run on one machine.",
    "mdp": "Every solve counts up to the same true error, 1e-6. Ours runs on all cores (two "
    "here), most "
    "peers on one: `speedup` compares two threads with one, `speedup-per-core` one thread with the "
    "peer's processor time. `auto/worst-over-best` is the "
    "processor time of `auto` over that of the best other method, the worst over all shapes. "
    "`peer-seconds` is the fastest of "
    "all peers and their methods, and a peer that did not finish within its limit has no time. "
    "`bench/results/mdp.json` keeps "
    "every measurement and its command.",
    "cifar10-pixelcnn-pp": "Published: 2.92 bits/dim, after days on eight cards (53 million "
    "weights). This is eight minutes of a card that ten other trainings shared, 9.2 times the "
    "training set; validation still fell by 0.03 over the last 1,000 updates. The weights (35 MB) "
    "are not kept.",
    "ablation": "Worth is what is lost in nats on the validation split when one improvement is "
    "switched off, at equal steps (400 of 32 images); negative: the simpler variant is better "
    "here. Two seeds, their difference beside the mean: a few tenths may be noise. This is "
    "8x8 with 17 levels and few steps; the paper's own ablations are at 32x32 with 256 levels.",
    "throughput": "The figure to reach is 3; this processor has no AMX tiles. "
    "[Fitting](fitting.md) has the figures of other processors and of a card.",
    "throughput-cuda": "An update is replayed as CUDA graphs; the plain loop launches each kernel.",
}


# Commands that are ready and have not been run to their end.
TO_COME = {
    "mnist-static-fvsbn": "`python bench/mnist.py fvsbn --out DIR`: the published figure is 97.45 "
    "nats.",
    "mnist-static-nade": "`python bench/mnist.py nade --out DIR`: the published figure is 88.33 "
    "nats.",
    "mnist-static-made": "`python bench/mnist.py made --out DIR`: the published figure is 86.64 "
    "nats (two layers of 8000 units, 32 masks).",
    "mnist-static-deep-nade": "`python bench/mnist.py deep-nade --out DIR`: the published figure "
    "for one order is 89.17 nats (two layers); 128 orders 85.10.",
    "mnist-static-pixelcnn": "`python bench/mnist.py pixelcnn --out DIR`: the published figure is "
    "81.30 nats.",
    "mnist-static-gated-pixelcnn": "`python bench/mnist.py gated-pixelcnn --out DIR`: the paper "
    "prints no figure.",
    "mnist-static-row-lstm": "`python bench/mnist.py row-lstm --out DIR`: the published figure is "
    "80.54 nats. Hours on one core.",
    "mnist-static-diagonal-bilstm": "`python bench/mnist.py diagonal-bilstm --out DIR`: the "
    "published figure is 79.20 nats (seven layers of 16). Hours on one core.",
    "mnist-static-pixelcnn-pp": "`python bench/mnist.py pixelcnn-pp --out DIR`.",
    "cifar10-pixelcnn-pp": "`python bench/cifar10.py pixelcnn-pp --setting full --out DIR`: the "
    "published figure is 2.92 bits/dim. Needs an accelerator.",
    "mnist-static-vae": "`python bench/mnist.py vae --out DIR`: the figure to reach is 87 nats.",
    "mnist-static-dcgan": "`python bench/mnist.py dcgan --out DIR`: samples and their distances.",
}


# A name that holds one of these is a likelihood: `<=` where it is a bound, `=` where it is exact.
LIKELIHOODS = ("nats", "bits-per-dim")
BOUNDS = re.compile(r"elbo|-iw\d+-|/vae")
ERRORS = ("-standard-error", "/standard-error", "-spread")


def error_of(name: str, record: dict[str, Any]) -> tuple[float | None, str]:
    """The error of a figure, where the result keeps one, and the name that it stands under."""
    figures = record["figures"]
    runs, part = record["about"].get("runs", {}), name.split("/")[1]
    if name.startswith("ablation/") and "/validation-" in name and part in runs:
        nats = [run["nats"] for run in runs[part]]
        return (max(nats) - min(nats)) * figures[name] / statistics.mean(nats), ""
    if "again" in (checked := record["about"].get(part, {})) and name.endswith("/nats"):
        return checked["again"]["standard_error"], ""
    stem = name.removesuffix("/nats").removesuffix("/value")
    for key in (name + end for name in (name, stem) for end in ERRORS):
        if key in figures and key != name:
            return figures[key], key
    estimate = estimate_of(name, record["about"])
    return (None, "") if estimate is None else (estimate["standard_error"], "")


def estimate_of(name: str, about: dict[str, Any]) -> dict[str, Any] | None:
    """The estimate that a figure is the value of: of samples, or of training images."""
    of = "floor" if "/floor/" in name else "samples"
    kept = about.get(of, [])
    if "rows" in about and of == "samples":
        kept = about["rows"].get(name.split("/")[1], {}).get("samples", [])
    quantity = name.rsplit("/", 1)[-1]
    return next((e for e in kept if isinstance(e, dict) and e["quantity"] == quantity), None)


def relation_of(name: str, record: dict[str, Any]) -> str:
    """How a figure relates to the truth; nothing for what was counted or timed."""
    if name.endswith("/difference-nats"):
        return ""
    if "worth" in name:
        return "~"
    if any(word in name for word in LIKELIHOODS):
        return "<=" if BOUNDS.search(name) else "="
    if estimate_of(name, record["about"]) is not None or error_of(name, record)[0] is not None:
        return "~"
    return ""


def shown(name: str, record: dict[str, Any]) -> str:
    """A figure with its relation and its error, to the digits that the error leaves."""
    value, relation = record["figures"][name], relation_of(name, record)
    error, _ = error_of(name, record)
    if not relation:
        return f"{value:.5g}"
    if error is None:
        return f"{relation} {value:.5g} (error not kept)"
    digits = 2 if error == 0 else max(0, 1 - math.floor(math.log10(error)))
    return f"{relation} {value:.{digits}f} ± {error:.{digits}f}"


def table(record: dict[str, Any]) -> str:
    """Name and value, one a row."""
    figures = record["figures"]
    errors = {error_of(name, record)[1] for name in figures}
    # Speeds of the rows were measured on several machines; mnist-static-rates has one for all.
    names = [
        name for name in figures if name not in errors and not name.endswith("/sampling-speed")
    ]
    rows = "\n".join(f"| `{name}` | {shown(name, record)} |" for name in names)
    return f"| figure | value |\n|---|---|\n{rows}\n"


def training_of(name: str, about: dict[str, Any]) -> str:
    """Weights, and what all parts of the training took."""
    weights = f"{about['parameters']:,} parameters"
    if name.startswith(PREFIX):
        row = Row(name.removeprefix(PREFIX), about)
        steps, seconds, where = whole_training(row)
        return f"{weights}; {steps} updates, {seconds} s of training, on {where}."
    facts = [weights, f"{about['steps']:,} updates"]
    if "seconds" in about:
        facts.append(f"{about['seconds']:,.0f} s of training")
    if "NVIDIA" in about.get("trained on", ""):
        facts.append(f"trained on an {about['trained on']}")
    return ", ".join(facts) + "."


def section(path: Path) -> str:
    """One result."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    environment = record["environment"]
    title, remark = TITLES.get(path.stem, path.stem), REMARKS.get(path.stem)
    if path.stem.endswith("-small"):
        model = path.stem.removeprefix("cifar10-").removesuffix("-small")
        title, remark = f"`{model}` on CIFAR-10, small setting on a processor", SMALL
    lines = [f"## {title}\n"]
    if remark is not None:
        lines.append(remark + "\n")
    about = record["about"]
    if "parameters" in about:
        lines.append(training_of(path.stem, about) + "\n")
    lines.append(table(record))
    sheet = RESULTS / path.stem / "samples.png"
    if sheet.exists():
        lines.append(f"![samples, not chosen](pictures/{path.stem}.png)\n")
    curve = RESULTS / path.stem / "curve.png"
    if curve.exists():
        lines.append(f"![validation while it trained](pictures/{path.stem}-curve.png)\n")
    card = environment.get("cuda_device")
    lines.append(
        f"`{record['command']}`, {record['date']}: {card + ', ' if card else ''}"
        f"{environment['processor']}, "
        f"{environment['cpu_count']} cores, {environment['threads']} threads, torch "
        f"{environment['torch']}, AMX {'yes' if environment['amx'] else 'no'}.\n"
    )
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    known = [name for name in TITLES if (RESULTS / f"{name}.json").exists()]
    others = sorted(p.stem for p in RESULTS.glob("*.json") if p.stem not in TITLES)
    parts = [section(RESULTS / f"{name}.json") for name in [*known, *others]]
    missing = [text for name, text in TO_COME.items() if name not in known]
    if missing:
        parts.append("## Not measured yet\n\n" + "".join(f"- {text}\n" for text in missing))
    return "\n".join([HEAD, *parts])


def main() -> None:
    for sheet in RESULTS.glob("*/samples.png"):
        shutil.copyfile(sheet, DOCS / "pictures" / f"{sheet.parent.name}.png")
    for curve in RESULTS.glob("*/curve.png"):
        shutil.copyfile(curve, DOCS / "pictures" / f"{curve.parent.name}-curve.png")
    (DOCS / "results.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
