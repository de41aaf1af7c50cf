"""The rows of the MNIST table, from the weights that the repository keeps.

    python bench/mnist_rows.py recheck                    # all rows, or those named
    python bench/mnist_rows.py recheck fvsbn nade
    python bench/mnist_rows.py samples diagonal-bilstm vae dcgan
    python bench/mnist_rows.py rates                      # every sampler, one run
    python bench/mnist_rows.py anneal vae --cache DIR     # log p(x), near the truth

`recheck` gives a copy of each kept run to `likely evaluate --split test` and holds the result
against the committed figures: the likelihood, the Frechet distance and the other numbers about
samples. `samples` measures samples of the rows with one extractor, so that
their distances share a column; a row measured with another extractor is dropped. Both may be
run in parts. `rates` times all samplers in one run on one machine, and only as a whole.

Results: bench/results/mnist-static-{recheck,samples,rates}.json; `bench/mnist_table.py` reads them.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import RESULTS, sha256, write_result
from likely import data, runs
from likely.data.spec import DataSpec
from likely.density import GenerativeModel, LatentVariable
from likely.devices import choose_device, environment, place
from likely.evaluate.annealed import AnnealedSettings, annealed
from likely.evaluate.classifier import default_extractor
from likely.evaluate.samples import SampleReference, samples_per_second
from likely.models import MODELS
from likely.runs.checkpoint import read_json, write_json
from likely.settings import from_mapping
from recipes import ON_A_GPU, RECIPES

PREFIX = "mnist-static-"
WEIGHTS = "weights.safetensors"
IMAGES = 2_000  # of each side of the distances
SECONDS = 4.0  # of timed calls of each sampler, after one that is not counted
LATENT = ("vae", "pixel-vae", "hierarchical-vae")  # models whose bounds tighten with samples
PARTS = ("recheck", "samples", "rates", "anneal")
ANNEALED = AnnealedSettings(
    n=1_000, temperatures=50, chains=4, leapfrogs=5, simulated=100, importance_samples=500
)
BLOCK = 50  # images, one block after the other; the model draws a tenth as many


def rows() -> list[str]:
    """Names of the rows whose run is kept, with its weights or without."""
    folders = [path for path in RESULTS.glob(f"{PREFIX}*") if (path / "config.json").exists()]
    return sorted(path.name.removeprefix(PREFIX) for path in folders)


def kept(name: str) -> Path | None:
    """The weights of a row, where the repository has them."""
    path = RESULTS / f"{PREFIX}{name}" / WEIGHTS
    return path if path.exists() else None


def evaluation(name: str) -> str:
    """The command that measures a row again."""
    recipe = (RECIPES | ON_A_GPU).get(name)
    samples = 0 if recipe is None else recipe.importance_samples
    latent = recipe is not None and recipe.model in LATENT
    bound = f" --importance-samples {samples}" if latent else ""
    return f"likely evaluate bench/results/{PREFIX}{name} --split test{bound}"


def rechecked(name: str) -> dict[str, Any] | None:
    """The committed figures of a row and what its kept weights give; None where they are not kept.

    The run is copied, because `likely evaluate` writes its report into it.
    """
    weights = kept(name)
    if weights is None:
        return None
    record = json.loads((RESULTS / f"{PREFIX}{name}.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / weights.parent.name
        shutil.copytree(weights.parent, copy)
        words = evaluation(name).replace(f"bench/results/{PREFIX}{name}", str(copy)).split()[1:]
        done = subprocess.run(
            [sys.executable, "-m", "likely", *words, "--json"],
            stdout=subprocess.PIPE, check=True, text=True,
        )  # fmt: skip
    estimates = json.loads(done.stdout)["evaluations"]["test"]["estimates"]
    checked: dict[str, Any] = {
        "command": evaluation(name), "sha256": sha256(weights), "environment": environment(),
        "samples": compared(record["about"]["samples"], estimates),
    }  # fmt: skip
    committed = record["about"].get("estimate")
    if committed is not None:
        nats = [e for e in estimates if e["quantity"] == "nll" and e["unit"] == "nats"]
        (again,) = (e for e in nats if e["about"] == committed["about"])
        assert again["fingerprint"] == committed["fingerprint"], "the test images are others"
        checked |= {
            "committed": committed, "again": again, "others": [e for e in nats if e is not again]
        }  # fmt: skip
    return checked


def compared(
    committed: list[dict[str, Any]], again: list[dict[str, Any]]
) -> dict[str, list[float]]:
    """Quantity to its committed value and the new one, where both have the same reference."""
    now = {(e["quantity"], e["fingerprint"]): e["value"] for e in again}
    return {
        e["quantity"]: [e["value"], now[e["quantity"], e["fingerprint"]]]
        for e in committed
        if (e["quantity"], e["fingerprint"]) in now
    }


def recheck(names: list[str]) -> None:
    about = old("recheck").get("about", {})
    for name in names:
        checked = rechecked(name)
        if checked is None:
            print(f"{name}: its weights are not kept")
            continue
        about[name] = checked
        if "again" in checked:
            committed, again = checked["committed"]["value"], checked["again"]["value"]
            print(f"{name}: committed {committed:.6f}, again {again:.6f} nats", flush=True)
        for quantity, values in checked["samples"].items():
            print(f"{name}: {quantity} committed {values[0]:.6f}, again {values[1]:.6f}")
        figures = {}
        for row, each in sorted(about.items()):
            if "again" in each:
                figures[f"mnist-static-recheck/{row}/nats"] = each["again"]["value"]
                figures[f"mnist-static-recheck/{row}/difference-nats"] = (
                    each["again"]["value"] - each["committed"]["value"]
                )
            for quantity, (before, now) in each.get("samples", {}).items():
                figures[f"mnist-static-recheck/{row}/difference-{quantity}"] = now - before
        write_result(f"{PREFIX}recheck", figures, {}, about)


def samples(names: list[str]) -> None:
    train, test = data.load("mnist", binarize="static")
    extractor = default_extractor(train)
    reference = SampleReference(train, test, extractor, n=IMAGES)
    about = old("samples").get("about", {})
    if about.get("fingerprint") != reference.fingerprint:
        about = {"rows": {}}
    about |= {
        "fingerprint": reference.fingerprint, "extractor": extractor.description,
        "floor": [estimate.to_json() for estimate in reference.floor],
    }  # fmt: skip
    for name in names:
        weights = kept(name)
        if weights is None:
            print(f"{name}: its weights are not kept")
            continue
        drawn = runs.load(weights.parent).model.sample(reference.n, seed=0)
        estimates = reference.metrics(drawn)
        about["rows"][name] = {
            "samples": [estimate.to_json() for estimate in estimates],
            "sha256": sha256(weights), "environment": environment(),
        }  # fmt: skip
        print(f"{name}: Frechet distance {estimates[0]}", flush=True)
        figures = {
            f"mnist-static-samples/{row}/{e['quantity']}": e["value"]
            for row, each in sorted(about["rows"].items())
            for e in each["samples"]
        }
        write_result(f"{PREFIX}samples", figures, {"images": IMAGES}, about)


def rates() -> None:
    figures, about = {}, {}
    for name in rows():
        speed = samples_per_second(sampler(name), seconds=SECONDS)
        figures[f"mnist-static-rates/{name}/images-per-second"] = speed.value
        about[name] = {"estimate": speed.to_json(), "weights": WEIGHTS if kept(name) else "fresh"}
        print(f"{name}: {speed}", flush=True)
    settings = {"seconds": SECONDS, "threads": torch.get_num_threads()}
    print(write_result(f"{PREFIX}rates", figures, settings, {"rows": about}))


def anneal(names: list[str], cache: Path | None, images: int) -> None:
    _, test = data.load("mnist", binarize="static")
    about = old("annealed").get("about", {})
    for name in names:
        weights = kept(name)
        if weights is None:
            print(f"{name}: its weights are not kept")
            continue
        model = runs.load(weights.parent).model
        if not isinstance(model, LatentVariable):
            print(f"{name}: {type(model).__name__} has no latent variables")
            continue
        place(model, choose_device("cpu"))
        digest = sha256(weights)
        asked = dataclasses.replace(ANNEALED, n=images, simulated=images // 10)
        settings = hashlib.sha256(repr(asked).encode()).hexdigest()
        count = images // BLOCK
        blocks = []
        for number in range(count):
            path = (
                None
                if cache is None
                else cache / f"{name}-{digest[:9]}-{settings[:9]}-{number}.json"
            )
            if path is None or not path.exists():
                block = annealed_block(model, test, number, asked)
                if path is not None:
                    write_json(path, block)
            else:
                block = read_json(path)
            blocks.append(block)
            done = np.concatenate([each["annealed"] for each in blocks]).mean()
            print(f"{name}: block {number + 1} of {count}, {done:.3f} nats so far", flush=True)
        about[name] = of_blocks(blocks, digest)
        figures: dict[str, float] = {}
        for row, each in sorted(about.items()):
            for figure, (value, error) in each["means"].items():
                figures[f"mnist-static/{row}/{figure}"] = value
                figures[f"mnist-static/{row}/{figure}-standard-error"] = error
            gap, error = each["means"]["bdmc-gap-nats"]
            figures |= {f"bdmc/{row}/gap-nats": gap, f"bdmc/{row}/gap-nats-standard-error": error}
        write_result(f"{PREFIX}annealed", figures, dataclasses.asdict(ANNEALED), about)


def annealed_block(
    model: LatentVariable, test: data.Dataset, number: int, asked: AnnealedSettings
) -> dict[str, Any]:
    """Bounds of every image of a block, nats, and the gap on simulated ones."""
    picked = np.linspace(0, len(test) - 1, asked.n).round().astype(np.int64)
    rows = np.array_split(picked, asked.n // BLOCK)[number]
    each = dataclasses.replace(asked, n=len(rows), simulated=BLOCK // 10)
    measured = annealed(model, test.take(rows), each, seed=number)
    assert measured.gap is not None
    elbo, weighted, near = (bound.values.tolist() for bound in measured.bounds[:3])
    return {
        "elbo": elbo, "importance": weighted, "annealed": near, "gap": measured.gap.value,
        "acceptance": measured.acceptance, "effective": measured.effective,
        "seconds": measured.seconds, "simulated": each.simulated,
    }  # fmt: skip


def of_blocks(blocks: list[dict[str, Any]], digest: str) -> dict[str, Any]:
    """Means over all blocks with their standard errors; the gain is paired by image."""
    every = {
        name: np.concatenate([block[name] for block in blocks])
        for name in ("elbo", "importance", "annealed")
    }
    values = {
        "test-ais-nats": every["annealed"],
        "test-iw500-nats-of-the-same": every["importance"],
        "test-elbo-nats-of-the-same": every["elbo"],
        "ais-gain-nats": every["importance"] - every["annealed"],
        "bdmc-gap-nats": np.array([block["gap"] for block in blocks]),
    }
    return {
        "means": {
            name: (float(each.mean()), float(each.std(ddof=1) / np.sqrt(len(each))))
            for name, each in values.items()
        },
        "acceptance": float(np.mean([block["acceptance"] for block in blocks])),
        "effective": float(np.mean([block["effective"] for block in blocks])),
        "seconds": round(sum(block["seconds"] for block in blocks), 1),
        "images": len(values["test-ais-nats"]),
        "simulated": sum(block["simulated"] for block in blocks),
        "sha256": digest,
        "environment": environment(),
    }


def sampler(name: str) -> GenerativeModel:
    """The model of a row; fresh weights, which cost the same, where its own are not kept."""
    folder = RESULTS / f"{PREFIX}{name}"
    if kept(name):
        return runs.load(folder).model
    config = read_json(folder / "config.json")
    entry = MODELS[config["model"]]
    # As `runs.load` reads it: a setting that an older run did not know has its default.
    settings = from_mapping(entry.settings, config["settings"])
    model: GenerativeModel = entry.load()(DataSpec.from_json(config["spec"]), settings)
    return model.eval()


def old(part: str) -> dict[str, Any]:
    """What was measured before."""
    path = RESULTS / f"{PREFIX}{part}.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("rows", nargs="*", help="names of rows [all]; not for rates")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="directory of the blocks that are annealed")
    parser.add_argument(
        "--images", type=int, default=ANNEALED.n, help="that are annealed [%(default)s]"
    )
    options = parser.parse_args()
    if options.images < BLOCK or options.images % BLOCK:
        parser.error(f"--images must be a multiple of {BLOCK}")
    unknown = set(options.rows) - set(rows())
    if unknown or (options.rows and options.part == "rates"):
        parser.error(f"rates takes no rows; the rows are {', '.join(rows())}")
    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    if options.part == "rates":
        rates()
    elif options.part == "anneal":
        if options.cache is not None:
            options.cache.mkdir(parents=True, exist_ok=True)
        anneal(options.rows or rows(), options.cache, options.images)
    else:
        {"recheck": recheck, "samples": samples}[options.part](options.rows or rows())


if __name__ == "__main__":
    main()
