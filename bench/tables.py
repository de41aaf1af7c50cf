"""Write docs/results.md and results-mnist.md from the JSON files under bench/results.

python bench/tables.py

So no figure is typed. Each part has a table for a person to read; all figures by their names, the
command and the machine are folded away under it.
"""

from __future__ import annotations

import math
import re
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import RESULTS
from figures import folded, grid, markdown, parts, read, shown, table
from likely.evaluate.odd import DOSE
from mnist_rows import PREFIX
from mnist_table import Row, measured, scores_of, whole_training
from planning_tables import BLOCKS

__all__ = ["main", "pages", "shown", "table"]

DOCS = Path(__file__).parent.parent / "docs"
HEAD = """# Results

A command in this repository measured every figure on this page. `bench/results/` keeps them as
JSON with their settings, data fingerprint and environment; `python bench/tables.py` writes this
page from there. The raw figures, the command and the machine are folded away under each table.

`=` is exact, `<=` a bound, `~` an estimate; ± is one standard error over the examples (in the
ablation, the difference between two seeds). A figure without a sign was counted or timed.
"""
# What was drawn of which images.
RESTORED = {
    "colorize/cifar10": "CIFAR-10, colours given luma",
    "upscale/cifar10-x2": "CIFAR-10, 16 to 32 pixels a side",
    "upscale/cifar10-x4": "CIFAR-10, 8 to 32",
    "upscale/fashion-mnist-x2": "Fashion-MNIST, 14 to 28",
    "upscale/fashion-mnist-x4": "Fashion-MNIST, 7 to 28",
}
# Sets of sequences: title, and what is published of them.
SEQUENCES = {
    "jsb": ("JSB chorales, 88 keys on quarters", "5.56, RNN-NADE"),
    "nottingham": ("Nottingham, 88 keys on quarters", "2.31, RNN-NADE"),
    "piano-midi": ("Piano-midi, 88 keys on quarters", "7.05, RNN-NADE"),
    "musedata": ("MuseData, 88 keys on quarters", "5.60, RNN-NADE"),
    "chorales": ("Chorales, four voices on 16ths", "none in this unit; counts have 2.43"),
    "etth1": ("ETTh1, 7 columns an hour", "none in this unit"),
}
# Columns of the table of arithmetic: field of an attribute, and ending of the figure of all.
FLIPS = {
    "flipped": "flip-rate", "by_chance": "flip-by-chance", "gained": "flip",
    "kept": "kept-rate", "kept_by_chance": "kept-by-chance", "spared": "kept",
}  # fmt: skip
# What is measured by draws of models of sequences, and its heading.
SIMULATED = {
    "window-energy": "window energy", "autocorrelation-error": "autocorrelation",
    "spectrum-error": "spectrum", "run-length-error": "run lengths", "copy-ratio": "copy ratio",
}  # fmt: skip
# Models fitted to statically binarised MNIST: title, and what a figure does not tell.
MNIST = {
    "fvsbn": (
        "FVSBN",
        "Published: 97.45 nats. Fitted under the prior of `likely.nn.local`. The number of "
        "weights counts the shared parts; the model itself has 307,720.",
    ),
    "fvsbn-flat": (
        "FVSBN without the prior by offset and distance",
        "Published: 97.45 nats. One Gaussian prior for all weights. Timed on a busy machine.",
    ),
    "nade": ("NADE", "Published: 88.33 nats."),
    "made": (
        "MADE",
        "Published: 86.64 nats with two layers of 8,000 units and 32 masks; 88.40 with one layer "
        "and one mask. This has one layer of 7,840 units and one mask, fitted under the prior of "
        "`likely.nn.local`. The weights (53 MB) are not kept; their hash is.",
    ),
    "made-flat": (
        "MADE without the prior by offset and distance",
        "Published: 86.64 nats, see above. One layer of 8,000 units and four masks, no prior. The "
        "weights (53 MB) are not kept.",
    ),
    "made-small": (
        "MADE with 400 units",
        "Published: 86.64 nats, see above. One layer of 400 units, no prior: small enough to keep "
        "its weights.",
    ),
    "deep-nade": ("DeepNADE", ""),
    "pixelcnn": (
        "PixelCNN",
        "Published: 81.30 nats. 5,000 updates of 32 images on a GPU, whose time was not kept, then "
        "a warm restart of 3,000 on one core.",
    ),
    "row-lstm": (
        "Row LSTM",
        "Published: 80.54 nats (van den Oord 2016a; width unknown). The narrow network below with "
        "wider kernels, whose new taps start at zero, trained further with dropout.",
    ),
    "row-lstm-narrow": (
        "Row LSTM with kernels of 3, as published",
        "Published: 80.54 nats. The best validation came at 5,000 of 7,500 updates; after that it "
        "overfits.",
    ),
    "diagonal-bilstm": (
        "Diagonal BiLSTM",
        "Published: 79.20 nats (van den Oord 2016a) for seven layers of 16; this has seven of 32.",
    ),
    "gated-pixelcnn": ("Gated PixelCNN", ""),
    "diagonal-bilstm-ensemble": (
        "Mixture of Diagonal BiLSTMs from the four corners",
        "Four networks with the recipe of the single one. The seconds are their sum; three of them "
        "shared a GPU.",
    ),
    "gated-pixelcnn-ensemble": (
        "Mixture of Gated PixelCNNs from several corners",
        "Three networks with the recipe of the single one. The seconds are the sum over the "
        "networks and include twenty minutes in which the second was paused.",
    ),
    "pixelcnn-pp": ("PixelCNN++", ""),
    "attention": ("PixelSNAIL", ""),
    "vae": ("VAE", ""),
    "vae-flow-prior": (
        "VAE with a RealNVP prior",
        "Stopped at 30,664 of 40,000 updates: the validation bound was best 4,000 before. The kept "
        "weights are those, in half precision.",
    ),
    "pixel-vae": (
        "PixelVAE",
        "A RealNVP prior over 50 numbers, and a small masked network by pixels that is told them. "
        "The kept weights are in half precision.",
    ),
    "pixel-vae-decoder": (
        "PixelCNN, the decoder of the PixelVAE alone",
        "The masked layers of the PixelVAE, which are told no code here.",
    ),
    "hierarchical-vae": (
        "Hierarchical VAE",
        "Three layers of codes, each with free nats while it is fitted.",
    ),
    "vae-dense": ("Dense VAE, fitted to the ELBO", "The network of the next row."),
    "iwae-50": ("Dense VAE, fitted to the bound of 50 importance samples (IWAE)", ""),
    "vq-vae": (
        "VQ-VAE",
        "512 codes by moving averages, a Gated PixelCNN over their map. The figure is the "
        "two-stage bound log p(c) + log p(x | c).",
    ),
    "vq-vae-rate": (
        "VQ-VAE, codes priced",
        "Codes in a grid of 8 x 8 x 8; what they cost is in the encoder's loss.",
    ),
    "rbm": (
        "RBM",
        "500 hidden units. log Z by annealing is too low on average, so the nats are: hence >=.",
    ),
    "dcgan": ("DCGAN", ""),
}
SCORES = {
    "Fréchet": "frechet", "KID": "kid", "precision": "precision", "recall": "recall",
    "coverage": "coverage", "near copies": "near-copies",
}  # fmt: skip
# Commands that are ready and have not been run to their end.
TO_COME = {
    "mnist-static-deep-nade": "`python bench/mnist.py deep-nade --out DIR`: the published figure "
    "for one order is 89.17 nats (two layers); 128 orders 85.10.",
}


def at(name: str) -> Path:
    """The file of a result."""
    return RESULTS / f"{name}.json"


def training_of(name: str, about: dict[str, Any]) -> str:
    """Weights, and what all parts of the training took."""
    weights = f"{about['parameters']:,} parameters"
    if name.startswith(PREFIX):
        steps, seconds, where = whole_training(Row(name.removeprefix(PREFIX), about))
        took = "seconds not kept" if seconds == "not kept" else f"{seconds} s of training"
        return f"{weights}; {steps} updates, {took}, on {where}."
    facts = [weights, f"{about['steps']:,} updates"]
    if "seconds" in about:
        facts.append(f"{about['seconds']:,.0f} s of training")
    if "NVIDIA" in about.get("trained on", ""):
        facts.append(f"trained on an {about['trained on']}")
    return ", ".join(facts) + "."


def fitted(name: str, title: str, remark: str) -> str:
    """A fitted model: what it took, samples, training curve."""
    told = training_of(name, read(at(name))["about"])
    level = "##" if name.startswith(PREFIX) else "###"
    lines, pictures = [f"{level} {title}", f"{remark} {told}\n".lstrip()], []
    for picture, alt in (
        ("samples", "samples, not chosen"),
        ("curve", "validation during the fit"),
    ):
        if (RESULTS / name / f"{picture}.png").exists():
            end = "" if picture == "samples" else f"-{picture}"
            pictures.append(f"![{alt}](pictures/{name}{end}.png)")
    return "\n".join([*lines, " ".join(pictures) + "\n", folded(at(name))])


def scores() -> str:
    """Sample metrics: a table per feature extractor, whose floor comes first."""
    tables: dict[str, list[list[str]]] = {}
    for name in MNIST:
        if not at(PREFIX + name).exists():
            continue
        about, scored = read(at(PREFIX + name))["about"], scores_of(name)
        if "frechet" not in scored:
            continue
        floors = {e["quantity"]: e for e in about["floor"]}
        extractor = scored["frechet"]["fingerprint"]
        if extractor not in tables:
            if floors["frechet"]["fingerprint"] != extractor:
                together = read(at(f"{PREFIX}samples"))["about"]["floor"]
                floors = {e["quantity"]: e for e in together}
            tables[extractor] = [["training images (floor)", "", *cells(floors)]]
        likelihood = about.get("estimate")
        nats = f"{likelihood['relation']} {measured(likelihood)}" if likelihood else "no density"
        tables[extractor].append([f"`{name}`", nats, *cells(scored)])
    heading = ["model", "test nats", *SCORES]
    return "\n".join(markdown(heading, rows) for rows in tables.values())


def cells(estimates: dict[str, Any]) -> list[str]:
    """Estimates of the columns of the table of samples."""
    return [
        measured(estimates[key], ".3f" if key in ("kid", "near-copies") else ".2f")
        if key in estimates
        else ""
        for key in SCORES.values()
    ]


def mnist() -> Iterator[str]:
    yield "## Statically binarised MNIST\n"
    yield (
        "Likelihoods, published figures, paired differences and rechecks: [the MNIST table]"
        "(mnist-table.md). Sample metrics of 2,000 samples against 2,000 test images "
        "([what they mean](evaluation.md)); there is a table for each feature extractor, because "
        "distances in different features do not compare:\n"
    )
    yield scores()
    yield "What each fit took, and its samples: [fits to static MNIST](results-mnist.md).\n"


def mnist_fits() -> Iterator[str]:
    """A page of its own."""
    yield (
        "# Fits to static MNIST\n\nWhat each fit of [the results](results.md) took and what it "
        "draws: samples that nobody chose. `python bench/tables.py` writes this page.\n"
    )
    for name, (title, remark) in MNIST.items():
        if at(PREFIX + name).exists():
            yield fitted(PREFIX + name, title, remark)
    yield "## Rechecks, joint sample metrics, sampling speed\n"
    yield (
        "What `likely evaluate` gives for the kept weights and its difference to the committed "
        "figure; samples measured with one extractor; images per second of all samplers in one "
        "run.\n"
    )
    for name in ("mnist-static", *(f"{PREFIX}{part}" for part in ("recheck", "samples", "rates"))):
        if at(name).exists():
            yield folded(at(name))


def cifar10() -> Iterator[str]:
    yield "## CIFAR-10\n"
    if at("cifar10-pixelcnn-pp").exists():
        yield fitted(
            "cifar10-pixelcnn-pp",
            "PixelCNN++",
            f"{shown('cifar10/pixelcnn-pp/test-bits-per-dim', read(at('cifar10-pixelcnn-pp')))} "
            "bits/dim on the test split. Published: 2.92, after days on eight GPUs (53 million "
            "weights). This is eight minutes on a GPU shared by eleven fits, 9.2 times the "
            "training set; validation still fell by 0.03 over the last 1,000 updates. The weights "
            "(35 MB) are not kept.",
        )
    small = sorted(RESULTS.glob("cifar10-*-small.json"))
    yield "### Small networks\n"
    yield (
        "300 steps of 16 images on a CPU, only to see that every model trains on colour images; "
        "far from what the models can do. The test split was not read.\n"
    )
    rows = []
    for path in small:
        record, model = read(path), path.stem.removeprefix("cifar10-").removesuffix("-small")
        about, name = record["about"], f"cifar10/{model}-small/validation-bits-per-dim"
        rows.append(
            [f"`{model}`", shown(f"{name}/first", record), shown(name, record),
             f"{about['parameters']:,}", f"{about['seconds']:,.0f}"]
        )  # fmt: skip
    yield markdown(
        ["model", "first validation, bits/dim", "last", "weights", "seconds"],
        sorted(rows, key=lambda row: row[2].split()[1]),
    )
    yield from map(folded, small)


def modes() -> Iterator[str]:
    """Modes covered by games, beside what the true law would give."""
    grid_name, stack_name = "gan-gaussians-25", "gan-stacked-mnist"
    if not (at(grid_name).exists() or at(stack_name).exists()):
        return
    yield "## Games: covered modes\n"
    if at(grid_name).exists():
        result = read(at(grid_name))
        ceilings = result["settings"]["ceilings"]
        lines = [["the true law", *(f"{value:.4g}" for value in ceilings.values()), ""]]
        for row, entry in result["about"]["rows"].items():
            medians = (statistics.median(s[key] for s in entry["seeds"]) for key in ceilings)
            lines.append([row, *(f"{value:.3g}" for value in medians), str(len(entry["seeds"]))])
        yield "25 Gaussians, 2,500 samples, medians over seeds ([protocol](games.md)):\n"
        yield markdown(["game", "modes of 25", "high quality", "KL", "seeds"], lines)
        yield folded(at(grid_name))
    if at(stack_name).exists():
        result = read(at(stack_name))
        figures, about = result["figures"], result["about"]
        floor = [figures[f"gan/stacked-mnist/floor-{key}"] for key in ("modes", "kl")]
        lines = [["real triples of the test split", f"{floor[0]:.0f}", f"{floor[1]:.4f}"]]
        lines += [[row, f"{e['modes']}", f"{e['kl']:.3f}"] for row, e in about["rows"].items()]
        lines += [
            [f"published: {row}", f"{count:.0f}", f"{kl:.2f}"]
            for row, (count, kl) in about["published"].items()
        ]
        accuracy = figures["gan/stacked-mnist/judge-accuracy"]
        yield (
            "Stacked MNIST, the protocol of VEEGAN with 26,000 samples, judged by a classifier "
            f"that reads {accuracy:.2%} of the test digits right:\n"
        )
        yield markdown(["game", "modes of 1,000", "KL"], lines)
        yield folded(at(stack_name))


def games() -> Iterator[str]:
    if not any(at(name).exists() for name in ("gan-seeds", "throughput-gan", "fashion-dcgan")):
        return
    yield "## DCGAN: Fashion-MNIST, seeds, throughput\n"
    if at("fashion-dcgan").exists():
        about = read(at("fashion-dcgan"))["about"]
        rows = (["training images (floor)", "floor"], ["`dcgan`", "samples"])
        yield markdown(
            ["Fashion-MNIST", *SCORES],
            [[label, *cells({e["quantity"]: e for e in about[key]})] for label, key in rows],
        )
        yield fitted("fashion-dcgan", "DCGAN on Fashion-MNIST", "")
    if at("gan-seeds").exists():
        seeds = read(at("gan-seeds"))
        steps = seeds["settings"]["fit"]["steps"]
        through, twice, of = (
            int(seeds["figures"][f"gan-seeds/{name}"])
            for name in ("trained-through-at-rate-1", "trained-through-at-rate-2", "seeds")
        )
        yield (
            f"Of {of} seeds, fitted on static MNIST for {steps} updates, {through} train through "
            f"by the [health monitor](fitting.md#health), and {twice} at twice the learning rate.\n"
        )
        yield folded(at("gan-seeds"))
    if at("throughput-gan").exists():
        yield "Both players, beside a plain loop over the same networks, with its peak memory:\n"
        yield grid(
            read(at("throughput-gan")), {"`dcgan`": "throughput/dcgan"},
            {"speed-up": "/speedup", "images/s": "/images-per-second",
             "memory, MB": "/peak-megabytes", "plain loop's, MB": "/plain-peak-megabytes"},
            "model",
        )  # fmt: skip
        yield folded(at("throughput-gan"))


def speed() -> Iterator[str]:
    yield "## Sampling\n"
    yield "64 images of 28x28, two levels, on two cores; [Sampling](sampling.md) explains.\n"
    record = read(at("sampling"))
    models = [m for m in parts(record, "sampling/mnist/", "/b64/incremental-seconds") if m]
    yield grid(
        record, {f"`{m}`": f"sampling/mnist/{m}/b64" for m in models},
        {"incremental, s": "/incremental-seconds", "likelihood pass, s": "/fastest-pass-seconds",
         "incremental / pass": "/incremental-per-fastest-pass",
         "naive / incremental": "/naive-over-incremental",
         "jacobi / incremental": "/jacobi-over-incremental"},
        "model",
    )  # fmt: skip
    yield folded(at("sampling"))
    yield "On a GPU, one CUDA graph per row of pixels:\n"
    gpu = read(at("sampling-cuda-mnist-gated-pixelcnn"))
    prefix = "sampling-cuda/mnist/gated-pixelcnn/"
    yield grid(
        gpu, {b.removeprefix("b"): prefix + b for b in parts(gpu, prefix, "/incremental-seconds")},
        {"incremental, s": "/incremental-seconds", "pass, float32, s": "/pass-float32-seconds",
         "pass, bfloat16, s": "/pass-bfloat16-seconds",
         "incremental / pass": "/incremental-per-pass",
         "naive / incremental": "/naive-over-incremental"},
        "images",
    )  # fmt: skip
    yield folded(at("sampling-cuda-mnist-gated-pixelcnn"))
    yield "## Training throughput\n"
    yield (
        "Speed-up over a plain loop with the same network. [Fitting](fitting.md) has the figures "
        "of other CPUs; the target is 3, and this CPU has no AMX tiles.\n"
    )
    for where, name in (("CPU", "throughput"), ("GPU", "throughput-cuda")):
        yield grid(
            read(at(name)), {f"`{m}`": f"throughput/{m}" for m in ("gated-pixelcnn", "vae")},
            {f"speed-up, {where}": "/speedup", "images/s": "/images-per-second"}, "model",
        )  # fmt: skip
        yield folded(at(name))
    yield "## Row LSTM and Diagonal BiLSTM\n"
    yield (
        "Times relative to a Gated PixelCNN with as many weights, to the same model evaluated "
        "pixel by pixel in Python, and to a backward pass recorded by autograd.\n"
    )
    yield grid(
        read(at("recurrent")),
        {f"`{m}`": f"recurrent/{m}" for m in ("row-lstm", "diagonal-bilstm")},
        {"training, images/s": "/step-images-per-second", "step / gated": "/step-over-gated",
         "loop / step": "/loop-over-step", "autograd / step": "/autograd-over-step",
         "sampling 64, images/s": "/sample-images-per-second-at-64",
         "sample / pass": "/sample-over-pass-at-64", "naive / sample": "/naive-over-sample"},
        "model",
    )  # fmt: skip
    yield folded(at("recurrent"))


def ablation() -> Iterator[str]:
    yield "## PixelCNN++: what each improvement is worth\n"
    yield (
        "Nats lost on the validation split when one improvement is switched off, after equal steps "
        "(400 of 32 images) on the 8x8 digits; negative: the simpler variant is better here. Two "
        "seeds: a few tenths may be noise. The paper's ablations are at 32x32 with 256 levels.\n"
    )
    record = read(at("ablation"))
    yield grid(
        record,
        {n: f"ablation/{n}" for n in parts(record, "ablation/", "/validation-nats")},
        {"validation nats": "/validation-nats", "worth, nats": "/worth-nats"}, "variant",
    )  # fmt: skip
    yield folded(at("ablation"))


def quantisers() -> Iterator[str]:
    if not at("quantisers").exists():
        return
    yield "## VQ-VAE: which quantiser\n"
    yield (
        "One network, 2,000 updates by the loss of the paper, four seeds: the bound of validation "
        "images of static MNIST, of which the rate is what the codes cost, how much worse it is "
        "than by moving averages, paired by seed, and how many of 512 codes an epoch of training "
        "images uses. Errors are the widths of the seeds. In nats nothing is decided; moving "
        "averages use every code with every seed, so they are the default.\n"
    )
    record = read(at("quantisers"))
    yield grid(
        record,
        {n: f"quantisers/{n}" for n in parts(record, "quantisers/", "/code-perplexity")},
        {"bound, nats": "/validation-bound-nats", "worse by": "/worse-nats",
         "rate": "/validation-rate-nats", "codes used, %": "/codes-used-percent",
         "perplexity": "/code-perplexity"}, "quantiser",
    )  # fmt: skip
    yield folded(at("quantisers"))


def few_labels() -> Iterator[str]:
    if not at("classify").exists():
        return
    yield "## Classifiers from few labels\n"
    record = read(at("classify"))
    yield accuracies(record)
    yield "![accuracy, confusion and calibration](pictures/classify-dense.png)\n"
    yield folded(at("classify"))


def steering() -> Iterator[str]:
    if not at("arithmetic").exists():
        return
    yield "## Arithmetic of codes\n"
    record = read(at("arithmetic"))
    yield "Percent of images, mean over attributes ([each of them](steering.md#arithmetic)).\n"
    yield flips(record, each=False)
    names = (f"arithmetic-shapes-{name}-0.png" for name in ("vae", "gan"))
    yield " ".join(f"![a sum of mean codes](pictures/{name})" for name in names) + "\n"
    yield folded(at("arithmetic"))


def restored(record: dict[str, Any]) -> str:
    """What draws given luma or averages are worth, beside floors without a model."""
    about, rows = record["about"], []
    tasks = {name: told for name, told in about.items() if "/" in name}
    for name, told in tasks.items():
        floor = max(
            (told[key][0], key.removeprefix("psnr-"))
            for key in told
            if key.startswith("psnr-") and key[5:] not in ("mean", "single", "best")
        )
        bits, mean, single = (told[key] for key in ("bits", "psnr-mean", "psnr-single"))
        rows.append(
            [
                RESTORED[name],
                str(told["images"]),
                f"= {bits[0]:.3f} ± {bits[1]:.3f}",
                f"{mean[0]:.2f} ± {mean[1]:.2f}",
                f"{single[0]:.2f}",
                f"{floor[0]:.2f} ({floor[1]})",
                f"{100 * told['coverage'][0]:.1f} %",
                f"{100 * told['coverage-calibrated'][0]:.1f} % ({100 * told['interval-mass']:.1f})",
                f"{told['diversity'][0]:.2f}",
                f"{told['consistency'][0]:g}",
            ]
        )
    parts = "".join(
        f"- `{name}`: = {f[f'enlarge/{name}/bits-per-dim']:.3f} bits/dim of test images, "
        f"{f[f'enlarge/{name}/bits-of-the-base']:.3f} of them the base's and "
        f"{f[f'enlarge/{name}/bits-of-the-rest']:.3f} the rest's\n"
        for f in [record["figures"]]
        for name in about
        if "/" not in name and name != "draws"
    )
    heading = ["task", "images", "bits of a missing dimension", "PSNR of the mean", "single draw",
               "best floor", "in 90 % intervals", "calibrated", "diversity",
               "consistency error"]  # fmt: skip
    return (
        f"{about['draws']} draws of each test image; dB of each image, averaged. Calibrated: what "
        "intervals hold that span another share of the draws (in brackets, %), chosen so that they "
        "held 90 % of as many validation images.\n\n"
        f"{markdown(heading, rows)}\n{parts}\n"
    )


def flips(record: dict[str, Any], *, each: bool = True) -> str:
    """How often arithmetic of codes gives an attribute and leaves the others."""
    accuracy = record["about"]["classifier"]
    read_right = ", ".join(f"{n} {100 * a['value']:.1f}" for n, a in accuracy.items())
    rows = []
    for name, title in {"vae": "VAE", "gan": "DCGAN"}.items():
        for group, attributes in record["about"].get(name, {"groups": {}})["groups"].items():
            stem = f"{name}/shapes/arithmetic" + ("" if group == "100" else f"-{group}")
            mean = [_percent(record["figures"], f"{stem}-{end}") for end in FLIPS.values()]
            rows.append([f"**{title}, groups of {group}**", *mean])
            for row in attributes if each else ():
                cells = [f"{row[key]['value']:.0f}" for key in FLIPS]
                rows.append([row["attribute"], *cells])
    heading = ["attribute", "comes", "by chance", "difference", "others stay", "by chance",
               "difference"]  # fmt: skip
    return (
        f"Test accuracy of the classifier in percent: {read_right}.\n\n{markdown(heading, rows)}\n"
    )


def _percent(figures: dict[str, float], name: str) -> str:
    return f"{figures[name]:.1f} ± {figures[f'{name}-standard-error']:.1f}"


def accuracies(record: dict[str, Any]) -> str:
    """MNIST with 10 labels a class: every method with its accuracy, and what pre-training gains."""
    figures, prefix = record["figures"], "classify/mnist-10"
    fractions = {
        name: next(part for part in about["fractions"] if part["per_class"] == 10)
        for name, about in record["about"].items()
    }
    rows = {}
    for name in ("dense", "conv"):
        for method, result in fractions.get(name, {"methods": {}})["methods"].items():
            ours = method in ("joint", "frozen", "scratch")
            label = method if name == "dense" else f"{name}-{method}"
            rows[f"{result['title']}{f', {name}' if ours else ''}"] = f"{prefix}/{label}"
    draws = len(fractions["dense"]["methods"]["joint"]["accuracies"])
    text = [
        f"MNIST, 10 labels a class, {draws} paired draws, all 10,000 test images; the encoder is a "
        "denoising autoencoder of the 50,000 training images (784-500-500-50 units). ± is over "
        "draws. Label spreading reads the test images, without their labels, when it is fitted.\n",
        grid(record, rows, {"test accuracy, %": "-accuracy"}, "method"),
    ]
    for name in ("dense", "conv"):
        if f"{prefix}/{name}-gain-points" in figures:
            points, low, high = (
                figures[f"{prefix}/{name}-gain-{e}"] for e in ("points", "low", "high")
            )
            text.append(
                f"Fine-tuned jointly against the same {name} network from scratch, "
                f"{len(fractions[name]['methods']['joint']['accuracies'])} draws: **{points:+.1f} "
                f"points**, 95 % interval of the paired difference [{low:.1f}, {high:.1f}]; the "
                f"median over draws is {_median_gain(fractions[name]):+.1f}.\n"
            )
    text += _label_curve(record)
    error = "classify/mnist-100-total/m1m2-error-percent"
    if error in figures:
        count = int(figures["classify/mnist-100-total/m1m2-draws"])
        draws_of = f"{count} draw{'s' * (count > 1)} of labels"
        fit, m2 = record["about"]["m1"]["fit"], record["about"]["m1"]["settings"]
        epochs = fit["steps"] * fit["batch_size"] / 50_000
        text.append(
            f"M1+M2 with 100 labels in all: **{shown(error, record)} % test error**, {draws_of}, "
            f"{m2['semi_supervised']['steps']:,} updates on the codes of a VAE of {epochs:.0f} "
            "epochs; published 3.33 ± 0.14 % (Kingma et al. 2014), after 3,000 epochs.\n"
        )
    return "\n".join(text)


def _label_curve(record: dict[str, Any]) -> list[str]:
    """Accuracy of the dense network by the number of labels, when more than one was measured."""
    fractions = record["about"]["dense"]["fractions"]
    if len(fractions) < 2:
        return []
    names = [f"{part['per_class']} a class" if part["per_class"] else "all" for part in fractions]
    lines = [
        f"| test accuracy, %, by labels | {' | '.join(names)} |",
        f"|{' --- |' * (len(names) + 1)}",
    ]
    for method, result in fractions[0]["methods"].items():
        cells = []
        for part in fractions:
            stem = f"classify/mnist-{part['per_class'] or 'all'}/{method}-accuracy"
            cells.append(shown(stem, record) if stem in record["figures"] else "")
        lines.append(f"| {result['title']} | {' | '.join(cells)} |")
    draws = [len(part["methods"]["joint"]["accuracies"]) for part in fractions]
    return ["\n".join(lines) + "\n", f"Draws of labels: {', '.join(map(str, draws))}.\n"]


def _median_gain(fraction: dict[str, Any]) -> float:
    """Of the draws, in points: a mean is moved by a draw in which scratch ends badly."""
    joint, scratch = (fraction["methods"][name]["accuracies"] for name in ("joint", "scratch"))
    return statistics.median(100 * (a - b) for a, b in zip(joint, scratch, strict=True))


def compression() -> Iterator[str]:
    """Files of the test images, beside those of other coders."""
    if not at("codec").exists():
        return
    yield "## Compression\n"
    record, prefix = read(at("codec")), "codec/mnist-static"
    figures = record["figures"]
    yield (
        "The 10,000 test images of static MNIST in one file, by the committed Gated PixelCNN "
        f"([how](compression.md)): {100 * figures[f'{prefix}/over-claimed']:.3f} % over its "
        f"likelihood, {figures[f'{prefix}/decode-images-per-second']:.0f} images per second read "
        f"back; {figures['codec/flips-found']:.0f} of {figures['codec/flips']:.0f} flipped bits "
        "are found. The other coders get the same images in one mosaic.\n"
    )
    columns = {"10,000 of static MNIST": coders(record, prefix)}
    if at("codec-cifar10").exists():
        columns["1,000 of CIFAR-10"] = coders(read(at("codec-cifar10")), "codec/cifar10")
    names = dict.fromkeys(name for column in columns.values() for name in column)
    lines = [
        [n, *(f"{column[n]:.4f}" if n in column else "" for column in columns.values())]
        for n in names
    ]
    yield markdown(["bits/dim", *columns], lines)
    yield (
        "CIFAR-10 by luma and chroma after a fit of ten minutes (`python bench/enlarge.py fit`), "
        "whose weights are not kept.\n"
    )
    for name in ("codec", "codec-cifar10"):
        if at(name).exists():
            yield folded(at(name))


def coders(record: dict[str, Any], prefix: str) -> dict[str, float]:
    """Bits per dimension by coder, the smallest first, after ours."""
    ending = "-bits-per-dim"
    others = {
        name.removeprefix(f"{prefix}/").removesuffix(ending): value
        for name, value in record["figures"].items()
        if name.endswith(ending) and "claimed" not in name
    }
    ours = {"`likely compress`": record["figures"][f"{prefix}/bits-per-dim"]}
    return ours | dict(sorted(others.items(), key=lambda item: item[1]))


# Networks of bench/odd.py and what they are asked about, in words.
ODD = {
    "fashion/mnist": ("Fashion-MNIST", "MNIST"),
    "mnist/fashion": ("MNIST", "Fashion-MNIST"),
    "digits-0-4/digits-5-9": ("digits 0 to 4", "digits 5 to 9"),
    "mnist/turned": ("MNIST", "a quarter turn"),
    "fashion/turned": ("Fashion-MNIST", "a quarter turn"),
}


def oddities(record: dict[str, Any]) -> str:
    """The table of pairs, and what the p-values of fresh examples are worth."""
    lines = [
        "| fitted to | odd images | AUROC by the rule | by file length alone | gain | by `dose` |",
        "|---|---|---|---|---|---|",
    ]
    rows = record["about"]["rows"]
    for key, words in ODD.items():
        network, against = key.split("/")
        if network not in rows:
            continue
        pair = rows[network]["pairs"][against]
        of_rule, of_file, of_dose = (
            f"{area:.3f} ± {error:.3f}"
            for area, error in (
                pair[rows[network]["rule"]],
                pair["file-length"],
                rows[network][DOSE]["pairs"][against],
            )
        )
        gain = f"{pair['gain'][0]:+.3f} ± {pair['gain'][1]:.3f}"
        lines.append(f"| {' | '.join(words)} | {of_rule} | {of_file} | {gain} | {of_dose} |")
    told = []
    for parts_of in (list(rows.values()), [row[DOSE] for row in rows.values()]):
        alarms = ", ".join(f"{part['false-alarms']:.1%}" for part in parts_of)
        told.append((alarms, ", ".join(f"{part['ks-p']:.2f}" for part in parts_of)))
    (alarms, fits), (of_dose, fits_of_dose) = told
    return (
        "\n".join(lines) + f"\n\nOf fresh examples of the networks' own data {alarms} have "
        f"p <= 5 % by the rule; Kolmogorov and Smirnov's test of two samples has p = {fits} "
        f"(medians of five halvings). By `dose`: {of_dose}, and p = "
        f"{fits_of_dose}.\n\n"
    )


def oddness() -> Iterator[str]:
    if not at("odd").exists():
        return
    yield "## What is odd\n"
    yield (
        "The rule was fixed before: bits under a Gated PixelCNN less those of a file. 2,000 test "
        "images of either kind ([what the statistics are](odd.md)). `dose`, the density of the "
        "statistics, came later, and is read on the second half of the test splits.\n"
    )
    yield oddities(read(at("odd")))
    yield folded(at("odd"))


def series(record: dict[str, Any]) -> str:
    """The table of all models of sequences, those that validation prefers first in each set."""
    lines = [
        "| data | model | test, nats per step | less the chosen one | updates | minutes | "
        "published |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (title, published) in SEQUENCES.items():
        measured = dict(record["about"].get(name, {}))
        chosen = measured.pop("chosen", None)
        order = sorted(measured.items(), key=lambda item: item[1].get("validation", 1e9))
        for place, (model, row) in enumerate(order):
            reached = f"{row['updates']:,} of " if "updates" in row else ""
            spent = f"{reached}{row['steps']:,} | {row['minutes']:.0f}"
            if "test" not in row:
                lines.append(f"| | `{model}` | no likelihood | | {spent} | |")
                continue
            label = f"`{model}`"
            if row["neighbours"]:
                label += f" with `--neighbours {row['neighbours']}`"
            less, error = row["less-chosen"]
            lines.append(
                f"| {title if place == 0 else ''} | {label} | {row.get('relation', '=')} "
                f"{row['test']:.3f} ± {row['standard-error']:.3f} | "
                f"{'' if model == chosen else f'{less:+.3f} ± {error:.3f}'} | "
                f"{spent} | {published if place == 0 else ''} |"
            )
    return "\n".join(lines) + "\n\n"


def simulations(record: dict[str, Any]) -> str:
    """The table of what is measured by draws of models of sequences, beside their floors."""
    head = " | ".join(SIMULATED.values())
    lines = [f"| data | drawn by | {head} | nats, test less train |", "|---" * 8 + "|"]
    for name, (title, _) in SEQUENCES.items():
        rows = {model: row for model, row in record["about"].get(name, {}).items()
                if model != "chosen" and "simulated" in row}  # fmt: skip
        order = sorted(rows.items(), key=lambda item: item[1].get("validation", 1e9))
        floors = [row["floor"] for _, row in order if "floor" in row]
        if floors:
            cells = [_estimate(floors[-1].get(quantity)) for quantity in SIMULATED]
            lines.append(f"| {title} | *training data: the floor* | {' | '.join(cells)} | |")
        for model, row in order:
            cells = [_estimate(row["simulated"].get(quantity)) for quantity in SIMULATED]
            gap = ""
            if "train" in row and "test" in row:
                error = math.hypot(row["standard-error"], row["train"][1])
                gap = f"{row['test'] - row['train'][0]:+.2f} ± {error:.2f}"
            lines.append(f"| | `{model}` | {' | '.join(cells)} | {gap} |")
    return "\n".join(lines) + "\n\n"


def sequence_speed(record: dict[str, Any]) -> str:
    """What drawing and scoring cost beside a pass."""
    names = dict.fromkeys(name.split("/")[2] for name in record["figures"])
    lines = [
        "| model | drawing 64 sequences of 256 steps, in passes | 1,024 of 64 steps | 64 of 256 "
        "without a state | scoring 10^4 and 10^5 steps, microseconds a step | its memory, MB |",
        "|---" * 6 + "|",
    ]  # fmt: skip
    for name in names:
        cell = {key.split("/")[3]: value for key, value in record["figures"].items()
                if key.split("/")[2] == name}  # fmt: skip
        lines.append(
            f"| `{name}` | {cell['draw-passes']:.1f} | {cell['draw-many-passes']:.1f} | "
            f"{cell['stateless-draw-passes']:.0f} | {cell['score-1e4-microseconds-per-step']:.0f}, "
            f"{cell['score-1e5-microseconds-per-step']:.0f} | {cell['score-1e4-memory-mb']:.0f}, "
            f"{cell['score-1e5-memory-mb']:.0f} |"
        )
    return "\n".join(lines) + (
        "\n\nA pass scores as many sequences; `python -m bench.sequence_speed` on one core.\n\n"
    )


def _estimate(kept: list[Any] | None) -> str:
    if kept is None:
        return ""
    value, error = kept[:2]
    return f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.3f}"


def sequences() -> Iterator[str]:
    if not at("sequences").exists():
        return
    record = read(at("sequences"))
    yield "## Sequences\n"
    yield (
        "Nats per step of the test part: micro average, every step scored, the first of each "
        "sequence included; the error is from whole sequences or long blocks, and differences are "
        "paired. Each model has the preset of its name but for what its command sets; validation "
        "chose its weights and the model that the others are compared with; the test part was "
        "read once. RNN-NADE: "
        "[Boulanger-Lewandowski et al. 2012](https://arxiv.org/abs/1206.6392).\n"
    )
    yield series(record)
    coverage = record["figures"].get("sequences/etth1/coverage-90")
    if coverage is not None:
        yield f"The chosen model's 90 % intervals of ETTh1's next hour hold {coverage:.1f} %.\n"
    yield folded(at("sequences"))
    for row in sorted(RESULTS.glob("sequence*-*.json")):
        yield folded(row)


def planning() -> Iterator[str]:
    yield "## Markov decision processes\n"
    yield (
        "Every solve runs to the same true error, 1e-6. The peer is the fastest of all peers and "
        "their methods; no time means that none was run or finished within its limit. Ours runs on "
        "all cores (two here), most peers on one: the speed-up compares wall-clock times, the "
        "speed-up per core one thread with the peer's CPU time. Each piece was measured on the "
        "code of its date (the JSON file names command, date and threads of each); the 1000x1000 "
        "grids, 1e7 and bandwidth came before the newest `auto` and its final check.\n"
    )
    record = read(at("mdp"))
    problems = parts(record, "mdp/", "/seconds")
    yield grid(
        record, {f"`{p}`": f"mdp/{p}" for p in problems},
        {"seconds": "/seconds", "peer, seconds": "/peer-seconds", "speed-up": "/speedup",
         "speed-up per core": "/speedup-per-core", "peak memory, GB": "/peak-gb"},
        "problem",
    )  # fmt: skip
    if "mdp/auto/worst-over-best" in record["figures"]:
        yield (
            "On the worst of all shapes, `auto` takes "
            f"{shown('mdp/auto/worst-over-best', record)} times the CPU time of the best other "
            "method.\n"
        )
    totals = record["about"]["details"].get("total-shapes", {})
    if short := {name: case["error"] for name, case in totals.items() if not case["met"]}:
        limits = ", ".join(f"`{name}` at ±{error:.2g}" for name, error in short.items())
        yield (
            f"Of {len(totals)} undiscounted sums of rewards, {len(totals) - len(short)} reach the "
            f"error; in the others rounding limits the certified bounds: {limits}.\n"
        )
    yield folded(at("mdp"))


def robustness() -> Iterator[str]:
    yield "## Robustness\n"
    kills = read(at("resume-kills"))["figures"]
    yield (
        f"Of {kills['resume/kills/n']:.0f} runs killed at random moments and resumed, "
        f"{kills['resume/kills/identical']:.0f} ended with the same bytes as an uninterrupted "
        "run.\n"
    )
    yield folded(at("resume-kills"))
    if at("fuzz").exists():
        fuzz = read(at("fuzz"))["figures"]
        yield (
            f"Of {fuzz['fuzz/files']:,.0f} damaged files of every format, "
            f"{fuzz['fuzz/foreign-exceptions']:.0f} raised anything but an error of Likely's.\n"
        )
        yield folded(at("fuzz"))
    yield "## Sample metrics with known answers\n"
    yield (
        "Both sets are drawn from one Gaussian in 1,000 dimensions, 10,000 each; the reference is "
        "the code of Naeem et al.\n"
    )
    yield grid(
        read(at("metrics")),
        {n: f"prdc/{n}" for n in ("precision", "recall", "density", "coverage")},
        {"measured": "", "reference": "/reference"}, "quantity",
    )  # fmt: skip
    yield folded(at("metrics"))


def pages() -> dict[str, str]:
    """Both pages, by the names of their files."""
    fits = "\n".join(mnist_fits())
    chapters = (
        mnist, cifar10, ablation, quantisers, few_labels, games, modes, steering, compression,
        oddness, sequences, speed, planning, robustness,
    )  # fmt: skip
    text = "\n".join(part for chapter in chapters for part in chapter())
    others = [
        p for p in sorted(RESULTS.glob("*.json")) if f"/{p.name}</summary>" not in text + fits
    ]
    if others:
        text += "\n" + "\n".join(["## Other measurements\n", *map(folded, others)])
    missing = [words for name, words in TO_COME.items() if not at(name).exists()]
    if missing:
        text += "\n## Not measured yet\n\n" + "".join(f"- {words}\n" for words in missing)
    headings = re.findall(r"^## (.*)", text, re.MULTILINE)
    links = [
        f"- [{h}](#{re.sub(r'[^a-z0-9 -]', '', h.lower()).replace(' ', '-')})" for h in headings
    ]
    return {"results": "\n".join([HEAD, *links, "", text]), "results-mnist": fits}


def main() -> None:
    for sheet in RESULTS.glob("*/samples.png"):
        shutil.copyfile(sheet, DOCS / "pictures" / f"{sheet.parent.name}.png")
    for curve in RESULTS.glob("*/curve.png"):
        shutil.copyfile(curve, DOCS / "pictures" / f"{curve.parent.name}-curve.png")
    for names in (
        "classify-*.png", "arithmetic-*-0.png", "annealed.png", "enlarge-*.png", "gan-*.png",
    ):  # fmt: skip
        for picture in RESULTS.glob(names):
            shutil.copyfile(picture, DOCS / "pictures" / picture.name)
    for page_name, block, result, table_of in (
        ("classify", "", "classify", accuracies), ("steering", "", "arithmetic", flips),
        ("split", "", "enlarge", restored), ("sequences", "", "sequences", series),
        ("sequences", "simulated", "sequences", simulations),
        ("sequences", "speed", "sequence-speed", sequence_speed),
        ("odd", "", "odd", oddities), *BLOCKS,
    ):  # fmt: skip
        if at(result).exists():
            path, mark = DOCS / f"{page_name}.md", f"results: {block}" if block else "results"
            between = re.compile(rf"(?<=<!-- {mark} -->\n\n).*?(?=<!-- end -->)", re.DOTALL)
            text = table_of(read(at(result)))
            path.write_text(between.sub(lambda _, t=text: t, path.read_text("utf-8"), 1), "utf-8")
    for name, text in pages().items():
        (DOCS / f"{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
