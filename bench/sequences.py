"""Nats per step of models of sequences on public sets, every step scored.

python -m bench.sequences fit jsb gru [--work DIR]        one row; resumes; --set and --fit change
                                                          settings of the model and of the fit
python -m bench.sequences simulate jsb gru [--work DIR]   what an older row lacks: its draws
python -m bench.sequences stopped jsb gru [--work DIR]    the row of a fit that was stopped
python -m bench.sequences table                           all rows, with paired differences

Each row is a fit by the preset of the model for the data (validation chooses the weights), whose
validation and test are then read once: `results/sequences-DATA-MODEL.json`. The figure of a data
set is the test of the model that validation chooses, in `results/sequences.json`. Of a model with
latents it is a bound, FIVO, and the ELBO stands beside it; a recurrent GAN has no likelihood, and
its row holds the numbers of simulated sequences beside their floors, as those of all models do.

`stopped` takes the weights that validation has chosen so far. `simulate` takes the run of a row, or
fits it again, and adds what draws measure (simulations, calibration) and the nats of training
sequences, a copy test; it refuses a run whose nats of validation are not those of the row, and
leaves the likelihood of the test part as it is.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
from bench.common import RESULTS, this_command, write_result

from likely import data as data_room
from likely import fit, runs
from likely.data.sequences import Sequences
from likely.data.spec import Dataset
from likely.density import Continues, LatentSequence, SequenceDensity, SequenceModel
from likely.errors import InvalidData
from likely.estimate import Relation
from likely.evaluate.sequences.calibration import calibration
from likely.evaluate.sequences.nats import StepNats, step_nats, step_rate
from likely.evaluate.sequences.simulated import simulated, simulation_floor
from likely.models import SEQUENCE_MODELS
from likely.runs.checkpoint import write_json
from likely.runs.directory import BEST
from likely.runs.saved import load
from likely.training.presets import fit_settings
from likely.training.run import Run

PARTICLES = 128  # of FIVO
TRAINING = 100  # training sequences that are scored beside the test part
# Names of the figures: of the data set, and of a step.
FIGURES = {
    "jsb": "sequences/jsb/test-nats-per-step",
    "nottingham": "sequences/nottingham/test-nats-per-step",
    "piano-midi": "sequences/piano/test-nats-per-step",
    "musedata": "sequences/muse/test-nats-per-step",
    "chorales": "sequences/chorales16/test-nats-per-step",
    "etth1": "sequences/etth1/test-nats-per-hour",
    "regimes": "sequences/regimes/test-nats-per-step",
}


def fitted(name: str, model: str, work: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """Fit (or resume), score validation and test, and write the row."""
    train, test = data_room.load(name)
    assert isinstance(train, Sequences)
    run, settings = the_run(name, model, work, changes, train)
    density = cast(SequenceModel, run.model.eval())
    return written(name, model, density, train, test, settings, {"fit-seconds": run.seconds})


def stopped(name: str, model: str, work: Path) -> dict[str, Any]:
    """The row of a run that was stopped: what validation has chosen so far."""
    train, test = data_room.load(name)
    assert isinstance(train, Sequences)
    run = load(work / f"{name}-{model}")
    weights, chosen = run.files.weights(BEST)
    run.model.load_state_dict({name: weights[name] for name in run.model.state_dict()})
    settings = {"fit": run.files.fit()["fit"], "model": run.config["settings"]}
    last = json.loads((run.directory / "timing.jsonl").read_text().splitlines()[-1])
    cost = {"fit-seconds": last["seconds"], "updates": int(chosen["step"])}
    return written(name, model, cast(SequenceModel, run.model), train, test, settings, cost)


def written(
    name: str,
    model: str,
    density: SequenceModel,
    train: Sequences,
    test: Dataset,
    settings: dict[str, Any],
    cost: dict[str, Any],
) -> dict[str, Any]:
    """Score validation and test, draw, and write the row."""
    began = time.monotonic()
    figures, about = likelihood(density, train, test, prefix_of(name, model))
    by_draws(density, train, test, prefix_of(name, model), figures, about)
    about |= {
        "data": name, "model": model, "fingerprint": test.spec.fingerprint,
        "parameters": sum(p.numel() for p in density.parameters()),
        "score-seconds": time.monotonic() - began, **cost,
    }  # fmt: skip
    write_result(f"sequences-{name}-{model}", figures, settings, about)
    for figure, value in figures.items():
        print(f"{figure} {value:.4f}")
    return about


def the_run(
    name: str, model: str, work: Path, changes: dict[str, Any], train: Sequences
) -> tuple[Run, dict[str, Any]]:
    """The finished run of a row, and its settings."""
    sizes = changes.pop("model", {})
    settings = fit_settings(SEQUENCE_MODELS[model].settings, train, changes)
    network = runs.build(model, train.spec, sizes, seed=settings.seed)
    run = fit(network, train, settings=settings, out=work / f"{name}-{model}", progress=True)
    if not run.finished:
        raise SystemExit(run.status)
    kept = {"fit": vars(settings), "model": vars(network.settings)}
    return run, json.loads(json.dumps(kept))


def prefix_of(name: str, model: str) -> str:
    """How the figures of a row begin."""
    return f"{FIGURES.get(name, f'sequences/{name}/test').rsplit('/', 1)[0]}/{model}"


def simulate(name: str, model: str, work: Path) -> None:
    """Add to a row what is measured by draws."""
    path = RESULTS / f"sequences-{name}-{model}.json"
    row = json.loads(path.read_text(encoding="utf-8"))
    about, figures = row["about"], row["figures"]
    train, test = data_room.load(name)
    assert isinstance(train, Sequences)
    changes = {**row["settings"]["fit"], "model": row["settings"]["model"]}
    run, _ = the_run(name, model, work, changes, train)
    density = cast(SequenceModel, run.model.eval())
    if "validation-blocks" in about:
        assert isinstance(density, SequenceDensity | LatentSequence)
        held_out = train.validation
        assert isinstance(held_out, Sequences)
        particles = PARTICLES if isinstance(density, LatentSequence) else None
        again = step_nats(density, held_out, particles=particles).value
        if not math.isclose(again, blocks_of(row, "validation").value, abs_tol=1e-3):
            raise SystemExit(f"another run: {again:.4f} nats of validation, not those of {path}")
    by_draws(density, train, test, prefix_of(name, model), figures, about)
    row["parts"] = {"simulated": this_command()}
    write_json(path, row)


def by_draws(
    density: SequenceModel,
    train: Sequences,
    test: Dataset,
    prefix: str,
    figures: dict[str, float],
    about: dict[str, Any],
) -> None:
    """What is measured by draws, and nats of training sequences; added to a row."""
    if (
        "calibration" not in about
        and isinstance(density, Continues)
        and any(column.kind in ("lattice", "continuous") for column in test.spec.columns)
    ):
        measured = calibration(density, test, train, steps=1000)
        figures |= {f"{prefix}/test-{e.quantity}": e.value for e in measured.estimates}
        about["calibration"] = {
            e.quantity: [e.value, e.standard_error] for e in measured.estimates
        } | {"pit": measured.uniformity()}
    try:
        simulations = simulated(density, test, train)
        figures |= {f"{prefix}/test-{e.quantity}": e.value for e in simulations}
        about["simulated"] = {e.quantity: [e.value, e.standard_error, e.about] for e in simulations}
        floor = simulation_floor(test, train)
        about["floor"] = {
            e.quantity: [e.value, e.standard_error if math.isfinite(e.standard_error) else None]
            for e in floor
        }
    except InvalidData as error:
        about["simulated"] = str(error)
    if isinstance(density, SequenceDensity):
        few = train.take(np.arange(0, len(train), max(1, len(train) // TRAINING)))
        known = step_nats(density, few)
        figures[f"{prefix}/train-nats-per-step"] = known.value
        about["train"] = [known.value, known.standard_error]


def likelihood(
    density: SequenceModel, train: Sequences, test: Dataset, prefix: str
) -> tuple[dict[str, float], dict[str, Any]]:
    """Nats of validation and test, exact or a bound, with their blocks; none without a density."""
    if not isinstance(density, SequenceDensity | LatentSequence):
        return {}, {}
    held_out = train.validation
    assert isinstance(held_out, Sequences)
    particles = PARTICLES if isinstance(density, LatentSequence) else None
    validation = step_nats(density, held_out, particles=particles)
    scored = step_nats(density, test, particles=particles)
    figures = {
        f"{prefix}/validation-nats-per-step": validation.value,
        f"{prefix}/test-nats-per-step": scored.value,
        f"{prefix}/test-nats-per-step-standard-error": scored.standard_error,
    }
    if isinstance(density, LatentSequence):
        figures |= {
            f"{prefix}/validation-elbo": step_nats(density, held_out).value,
            f"{prefix}/test-elbo": step_nats(density, test).value,
            f"{prefix}/test-rate": step_rate(density, test).value,
        }
    return figures, {
        "validation-blocks": [validation.nats.tolist(), validation.steps.tolist()],
        "test-blocks": [scored.nats.tolist(), scored.steps.tolist()],
        "blocks": scored.blocks,
        "relation": scored.relation.value, "how": scored.how,
        "average": "micro: all steps of all sequences, the first of each included",
    }  # fmt: skip


def rows(name: str) -> dict[str, dict[str, Any]]:
    """The rows of a data set that there are, by model."""
    out = {}
    for model in SEQUENCE_MODELS:
        path = RESULTS / f"sequences-{name}-{model}.json"
        if path.exists():
            out[model] = json.loads(path.read_text(encoding="utf-8"))
    return out


def blocks_of(row: dict[str, Any], split: str) -> StepNats:
    """The blocks that a row keeps."""
    about = row["about"]
    nats, steps = (np.array(side) for side in about[f"{split}-blocks"])
    return StepNats(
        nats, steps, 1, about["fingerprint"], about["blocks"],
        Relation(about.get("relation", "=")),
    )  # fmt: skip


def table() -> dict[str, float]:
    """The figures of every data set that has rows; printed with paired differences."""
    figures: dict[str, float] = {}
    about: dict[str, Any] = {}
    for name, figure in FIGURES.items():
        every = rows(name)
        for row in every.values():  # too short for windows: a sentence
            if isinstance(row["about"].get("simulated"), str):
                del row["about"]["simulated"]
        measured = {m: row for m, row in every.items() if "test-blocks" in row["about"]}
        if not measured:
            continue
        validation = {m: blocks_of(row, "validation").value for m, row in measured.items()}
        best = min(validation, key=lambda m: validation[m])
        chosen = blocks_of(measured[best], "test")
        figures[figure] = chosen.value
        figures[f"{figure}-standard-error"] = chosen.standard_error
        about[name] = {"chosen": best}
        coverage = measured[best]["about"].get("calibration", {}).get("coverage-90")
        if coverage is not None:
            figures[f"{figure.rsplit('/', 1)[0]}/coverage-90"] = coverage[0]
        print(f"\n{name}, test, nats per step, micro average; validation chooses {best}")
        for model, row in sorted(measured.items(), key=lambda item: validation[item[0]]):
            scored = blocks_of(row, "test")
            less, error = scored.less(chosen)
            about[name][model] = {
                "test": scored.value, "standard-error": scored.standard_error,
                "validation": validation[model], "less-chosen": [less, error],
                "minutes": row["about"]["fit-seconds"] / 60, "relation": scored.relation.value,
            }  # fmt: skip
            minutes = row["about"]["fit-seconds"] / 60
            difference = f"{less:+.3f} ± {error:.3f}"
            sign = scored.relation.value
            number = f"{sign:>2} {scored.value:7.3f} ± {scored.standard_error:.3f}"
            print(f"  {model:12} {number}   {difference}   {minutes:.0f} min")
        for model, row in every.items():
            kept = about[name].setdefault(model, {"minutes": row["about"]["fit-seconds"] / 60})
            kept["steps"] = row["settings"]["fit"]["steps"]
            if "updates" in row["about"]:  # stopped
                kept["updates"] = row["about"]["updates"]
            kept["neighbours"] = row["settings"]["model"].get("neighbours", 0)
            for key in ("simulated", "floor", "train"):
                if key in row["about"]:
                    kept[key] = row["about"][key]
            shown = "; ".join(f"{q} {v[0]:.3f}" for q, v in kept.get("simulated", {}).items())
            print(f"  {model:12} {shown or 'no simulations'}")
    write_result("sequences", figures, {}, about)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    actions = parser.add_subparsers(dest="action", required=True)
    fit_row = actions.add_parser("fit")
    fit_row.add_argument("data")
    fit_row.add_argument("model", choices=list(SEQUENCE_MODELS))
    fit_row.add_argument("--steps", type=int)
    fit_row.add_argument("--set", action="append", default=[], help="NAME=VALUE, of the model")
    fit_row.add_argument("--fit", action="append", default=[], help="NAME=VALUE, of the fit")
    simulate_row = actions.add_parser("simulate")
    simulate_row.add_argument("data")
    simulate_row.add_argument("model", choices=list(SEQUENCE_MODELS))
    stopped_row = actions.add_parser("stopped")
    stopped_row.add_argument("data")
    stopped_row.add_argument("model", choices=list(SEQUENCE_MODELS))
    for action in (fit_row, simulate_row, stopped_row):
        action.add_argument(
            "--work", type=Path, default=Path(tempfile.gettempdir()) / "likely-sequences"
        )
    actions.add_parser("table")
    options = parser.parse_args()
    if options.action == "table":
        table()
        return
    if options.action in ("simulate", "stopped"):
        {"simulate": simulate, "stopped": stopped}[options.action](
            options.data, options.model, options.work
        )
        return
    changes: dict[str, Any] = dict(word.split("=", 1) for word in options.fit)
    if options.steps is not None:
        changes["steps"] = options.steps
    changes["model"] = dict(word.split("=", 1) for word in options.set)
    fitted(options.data, options.model, options.work, changes)


if __name__ == "__main__":
    main()
