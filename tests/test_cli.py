"""The command: every mistake is one line and exit code 2, every example in the help runs."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import likely
from likely.cli import main
from likely.cli.fields import DATA, RUN, fields_of, objective_fields, settings_fields
from likely.cli.parser import COMMANDS, build, module_of, parse
from likely.data.spec import DataSpec
from likely.density import GenerativeModel
from likely.evaluate.few_labels import FineTuning
from likely.evaluate.quantities import QUANTITIES
from likely.files import atomic
from likely.models import MODELS, SEQUENCE_MODELS
from likely.settings import FitSettings
from sizes import COLOUR, SMALL

Capture = pytest.CaptureFixture[str]


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _options(name: str) -> str:
    """The sizes of `tests/sizes.py`, but for those that change nothing beside the others."""
    sizes = SMALL[name]
    unused = MODELS[name].settings(**sizes).without_effect
    return " ".join(f"--{k.replace('_', '-')} {_word(sizes[k])}" for k in sizes if k not in unused)


TINY = {name: _options(name) for name in SMALL}


def fit_words(name: str, out: Path, more: str = "") -> list[str]:
    words = f"fit {name} --data digits --steps 6 --batch-size 8 {TINY.get(name, '')} {more}".split()
    return [*words, "--out", str(out)]


GREY = [name for name in MODELS if name not in COLOUR]  # that take the digits
GENERATIVE = [name for name in GREY if issubclass(MODELS[name].load(), GenerativeModel)]

# One whose density is known in each of the ways that there are, and one without.
OF_EACH_KIND = ("gated-pixelcnn", "made-ensemble", "haar-pyramid", "deep-nade", "vae",
                "hierarchical-vae", "pixel-vae", "vq-vae", "rbm", "flow", "ppca",
                "dcgan")  # fmt: skip


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny run of every model; tests only read them, or write reports into them."""
    folder = tmp_path_factory.mktemp("runs")
    for name in GREY:
        assert main(fit_words(name, folder / name, "--validate-every 6")) == 0
    return {name: folder / name for name in GREY}


def complaint(capsys: Capture, *arguments: str, code: int = 2) -> str:
    """The one line that these arguments are answered with."""
    assert main(arguments) == code
    out = capsys.readouterr()
    assert out.out == ""
    lines = [line for line in out.err.splitlines() if line.startswith("likely: ")]
    assert len(lines) == 1
    return lines[0]


def document(capsys: Capture, *arguments: str, code: int = 0) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


# -- mistakes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("fot", '"fit"'),
        ("--versio", '"--version"'),
        ("fit", "gated-pixelcnn"),
        ("fit vaee --data digits --out r", '"vae"'),
        ("fit vae --dta digits --out r", '"--data"'),
        ("fit vae --data digits --out r --latnt 3", '"--latent"'),
        ("fit vae --data digits --out r extra", '"extra"'),
        ("fit vae --data digits --out", "--out"),
        ("fit vae --out r", "--data"),
        ("fit vae --data digits", "--out"),
        ("fit vae --data digit --out r", '"digits"'),
        ("fit vae --data no/such/folder --out r", "no/such/folder"),
        ("fit vae --data digits --out r --latent abc", "--latent"),
        ("fit vae --data digits --out r --latent 0", "latent"),
        ("fit vae --data digits --out r --network dense --channels 8", "it is of network=conv"),
        ("fit vae --data digits --out r --optimizer sgd --beta1 0.5", "optimizer=adam"),
        ("fit vae --data digits --out r --optimizer adm", '"adam"'),
        ("fit vae --data digits --out r --binarize statc", '"static"'),
        ("fit vae --data digits --out r --binarize static", "dynamic"),
        ("fit vae --data digits --out r --image-size 8", "folders"),
        ("fit vae --data digits --out r --image-size 8x", "48x64"),
        ("fit vae --data digits --out r --set latnt=3", '"latent"'),
        ("fit vae --data digits --out r --set latent", "name=value"),
        ("fit vae --data digits --out r --set latent=3 --latent 4", "twice"),
        ("fit vae --data digits --out r --config nowhere.yaml", "nowhere.yaml"),
        ("fit vae --data digits --out r --batch-size 5000", "5000"),
        ("fit dcgan --data digits --out r --preset papr", '"paper"'),
        ("fit vae --data digits --out r --device nonsense", "nonsense"),
        ("fit vae --data digits --out r --objective relativistic-gan", "discriminator"),
        ("fit vae --data digits --out r --objective negative-elb", '"negative-elbo"'),
        ("fit vae --data digits --out r --objective-penalty 1", "relativistic-gan"),
        ("fit vae --data digits --out r --objective negative-elbo --objective-k 3", "beta"),
        ("fit vae --data digits --out r --objective importance-weighted --objective-k 0", "k must"),
        ("fit vae --data digits --out r --head bernoulli", "17"),
        ("sample", "RUN"),
        ("sample nowhere", "nowhere"),
        ("sample nowhere -n 0", ">= 1"),
        ("sample nowhere -o a.jpg", ".png"),
        ("evaluate nowhere --split tset", '"test"'),
        ("verify nowhere", "config.json"),
        ("compare", "--data"),
        ("compare --binarize static", "--data"),
        ("data describe digts", '"digits"'),
        ("data lst", '"list"'),
        ("data report nowhere", "nowhere"),
        ("models vaee", '"vae"'),
        ("completion bsh", '"bash"'),
    ],
)
def test_a_mistake_is_one_line_that_names_what_to_do(
    words: str, named: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = complaint(capsys, *words.split())
    assert named in line
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_an_unknown_field_of_a_file_names_file_and_nearest(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("latent: 4\nlearning_rat: 0.1\n")
    line = complaint(
        capsys, "fit", "vae", "--data", "digits", "--out", str(tmp_path / "r"), "--config",
        str(path),
    )  # fmt: skip
    assert str(path) in line
    assert '"learning_rat"' in line
    assert '"learning_rate"' in line
    path.write_text("latent: many\n")
    line = complaint(
        capsys, "fit", "vae", "--data", "digits", "--out", str(tmp_path / "r"), "--config",
        str(path),
    )  # fmt: skip
    assert f"{path}: latent: expected a whole number" in line


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("lr", "learning-rate"), ("size", "image-size"), ("batch", "batch-size"),
        ("epochs", "steps"), ("wd", "weight-decay"),
    ],
)  # fmt: skip
def test_names_of_other_programs_are_answered_with_ours(
    given: str, ours: str, capsys: Capture, tmp_path: Path
) -> None:
    """As options and in --set, however near another name is spelled."""
    words = ("fit", "vae", "--data", "digits", "--out", str(tmp_path / "r"))
    assert f'did you mean "--{ours}"?' in complaint(capsys, *words, f"--{given}", "1")
    line = complaint(capsys, *words, "--set", f"{given}=1")
    assert f'did you mean "{ours.replace("-", "_")}"?' in line


def test_an_argument_that_an_unset_variable_left_empty_is_refused(capsys: Capture) -> None:
    """An empty path would be the current folder."""
    assert "--data is empty" in complaint(capsys, "fit", "vae", "--data", "")
    assert "--out is empty" in complaint(capsys, "fit", "vae", "--data", "digits", "--out=")
    assert "an argument is empty" in complaint(capsys, "sample", "")
    assert "--policy is empty" in complaint(capsys, "mdp", "evaluate", "grid", "--policy", "")


def test_the_setting_that_was_given_is_the_one_complained_of(
    capsys: Capture, tmp_path: Path
) -> None:
    """Not one that a preset derives from it."""
    words = ("fit", "vae", "--data", "digits", "--out", str(tmp_path / "r"))
    assert "steps must be positive, given -5" in complaint(capsys, *words, "--steps", "-5")


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(options: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(module_of("models"), "run", broken)
    with pytest.raises(ZeroDivisionError):
        main(["models"])


# -- settings -------------------------------------------------------------------------------


def test_options_are_stronger_than_the_file_and_the_file_than_presets(tmp_path: Path) -> None:
    path, out = tmp_path / "my.yaml", tmp_path / "run"
    path.write_text("latent: 5\nchannels: 24\nbatch-size: 8\nsteps: 3\ndata: digits\nseed: 4\n")
    words = ["--config", str(path), "--set", "latent=6", "--steps", "2", "--out", str(out)]
    assert main(["fit", "vae", *words]) == 0
    settings = json.loads((out / "config.json").read_text())["settings"]
    fit = json.loads((out / "fit.json").read_text())["fit"]
    assert settings["latent"] == 6  # --set
    assert settings["channels"] == 24  # the file
    assert (fit["steps"], fit["batch_size"], fit["seed"]) == (2, 8, 4)
    spec = likely.data.load("digits")[0].spec
    preset = dataclasses.asdict(MODELS["vae"].settings.preset(spec))
    fit_preset = dataclasses.asdict(MODELS["vae"].settings.fit_preset(spec))
    assert fit_preset != dataclasses.asdict(FitSettings())
    for found, base, given in (
        (settings, preset, {"latent", "channels"}),
        (fit, fit_preset, {"steps", "batch_size", "seed", "warmup"}),
    ):
        assert {k: v for k, v in found.items() if k not in given} == {
            k: v for k, v in base.items() if k not in given
        }


@pytest.mark.parametrize("name", MODELS)
def test_every_setting_has_one_option_with_an_explanation(name: str) -> None:
    fields = fields_of(MODELS[name])
    sections = [
        settings_fields(MODELS[name].settings, "model"), settings_fields(FitSettings, "fit"),
        DATA, RUN, objective_fields(),
    ]  # fmt: skip
    assert len(fields) == sum(map(len, sections)), "two sections share a name"
    assert not {"config", "set", "json", "choice", "help"} & set(fields)
    text = build("fit", name).format_help()
    for field in fields.values():
        assert re.search(rf"{field.option}[ ,]", text), field.name
        assert field.about, f"{field.name} is not explained by its class's docstring"


def test_an_objective_with_settings_is_the_one_that_is_minimised(tmp_path: Path) -> None:
    more = "--objective negative-elbo --objective-beta 4"
    assert main(fit_words("vae", tmp_path / "a", more)) == 0
    found = json.loads((tmp_path / "a" / "fit.json").read_text())["objective"]
    assert (found["name"], found["beta"]) == ("NegativeELBO", 4.0)


def test_a_preset_by_name_is_weaker_than_options(tmp_path: Path) -> None:
    assert main(fit_words("dcgan", tmp_path / "a", "--preset paper --channels 4 --ema 0.5")) == 0
    settings = json.loads((tmp_path / "a" / "config.json").read_text())["settings"]
    fitted = json.loads((tmp_path / "a" / "fit.json").read_text())
    assert (settings["kernel"], settings["normalize"], settings["channels"]) == (5, "batch", 4)
    assert fitted["objective"]["name"] == "NonSaturatingGAN"
    assert (fitted["fit"]["beta1"], fitted["fit"]["ema"]) == (0.5, 0.5)


# -- the directory of a run ---------------------------------------------------------------


def test_the_same_command_again_goes_on_and_other_runs_are_refused(
    tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "run"
    assert main(fit_words("vae", out)) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    capsys.readouterr()
    assert "vae on digits, not of dcgan" in complaint(capsys, *fit_words("dcgan", out))
    assert "binarize=threshold" in complaint(capsys, *fit_words("vae", out, "--binarize threshold"))
    assert "layers 1 -> 2" in complaint(capsys, *fit_words("vae", out, "--layers 2"))
    assert "objective beta 1.0 -> 2.0" in complaint(
        capsys, *fit_words("vae", out, "--objective-beta 2")
    )
    assert "learning_rate" in complaint(capsys, *fit_words("vae", out, "--learning-rate 1"))
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()} == before
    assert main(fit_words("vae", out)) == 0
    assert (out / "metrics.jsonl").read_bytes() == before["metrics.jsonl"]
    assert main(fit_words("vae", out, "--layers 2 --no-resume")) == 0
    assert json.loads((out / "config.json").read_text())["settings"]["layers"] == 2


def test_a_folder_with_other_things_is_no_place_for_a_run(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert "thesis.tex" in complaint(capsys, *fit_words("vae", tmp_path))
    assert "is a file" in complaint(capsys, *fit_words("vae", tmp_path / "thesis.tex"))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_data_that_changed_since_the_fit_is_refused(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "images.npy"
    rng = np.random.default_rng(0)
    np.save(path, rng.integers(0, 17, (60, 8, 8), dtype=np.uint8))
    words = ["--data", str(path), "--levels", "17", "--steps", "2", "--out", str(tmp_path / "r")]
    assert main(["fit", "vae", *TINY["vae"].split(), *words]) == 0  # the batch fits the data
    np.save(path, rng.integers(0, 17, (60, 8, 8), dtype=np.uint8))
    capsys.readouterr()
    assert "fingerprint" in complaint(capsys, "evaluate", str(tmp_path / "r"))


# -- questions ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", GENERATIVE)
def test_a_sheet_and_an_array_of_samples(
    name: str, fitted: dict[str, Path], tmp_path: Path, capsys: Capture
) -> None:
    capsys.readouterr()
    sheet, array = tmp_path / "deep" / "a.png", tmp_path / "a.npy"
    words = ["sample", str(fitted[name]), "-n", "5", "-o", str(sheet), "--npy", str(array)]
    record = document(capsys, *words, "--seed", "3")
    values = np.load(array, allow_pickle=False)
    assert values.shape == (5, 1, 8, 8)
    assert values.dtype == np.uint8
    assert values.max() < 17
    assert record["shape"] == [1, 8, 8]
    with Image.open(sheet) as image:
        assert image.format == "PNG"
    found = likely.runs.saved.load(fitted[name]).model.sample(5, seed=3)
    assert torch.equal(found, torch.from_numpy(values.astype(np.int64)))


def test_a_sheet_of_the_image_after_every_row(
    fitted: dict[str, Path], tmp_path: Path, capsys: Capture
) -> None:
    capsys.readouterr()
    run, rows, array = str(fitted["gated-pixelcnn"]), tmp_path / "rows.png", tmp_path / "a.npy"
    words = ["sample", run, "-n", "3", "--npy", str(array), "-o", str(tmp_path / "s.png")]
    record = document(capsys, *words, "--progressive", str(rows), "--method", "jacobi")
    assert record["progressive"] == str(rows)
    with Image.open(rows) as image:
        assert image.width > 8 * 8
    fixed_point = np.load(array)
    document(capsys, *words, "--method", "naive")
    assert np.array_equal(fixed_point, np.load(array))
    document(capsys, *words, "--temperature", "0.01")
    assert not np.array_equal(fixed_point, np.load(array))
    assert "did you mean" in complaint(capsys, *words, "--method", "jacoby")
    assert "above 0" in complaint(capsys, *words, "--temperature", "0")
    other = complaint(capsys, "sample", str(fitted["vae"]), "--temperature", "0.5")
    assert "not autoregressive" in other


def test_a_conditional_run_draws_the_class_that_is_asked_for(
    tmp_path: Path, capsys: Capture
) -> None:
    run, array = tmp_path / "run", tmp_path / "a.npy"
    assert main(fit_words("vae", run, "--conditional")) == 0
    model = likely.runs.saved.load(run).model
    capsys.readouterr()
    words = ["sample", str(run), "-n", "12", "--npy", str(array)]
    assert document(capsys, *words, "--label", "7")["labels"] == [7] * 12
    found = torch.from_numpy(np.load(array).astype(np.int64))
    assert torch.equal(found, model.sample(12, seed=0, context=7))
    assert document(capsys, *words)["labels"] == [*range(10), 0, 1]
    assert "is no class of digits" in complaint(capsys, *words, "--label", "12")


def test_a_label_is_refused_by_an_unconditional_run(
    fitted: dict[str, Path], capsys: Capture
) -> None:
    capsys.readouterr()
    line = complaint(capsys, "sample", str(fitted["vae"]), "--label", "3")
    assert "--conditional" in line


def test_evaluation_says_how_each_number_relates_to_the_truth(
    fitted: dict[str, Path], capsys: Capture
) -> None:
    capsys.readouterr()
    found = {}
    for name in OF_EACH_KIND:
        words = ["evaluate", str(fitted[name]), "--split", "validation"]
        report = document(capsys, *words, "--importance-samples", "3", "--no-sample-metrics")
        assert report == json.loads((fitted[name] / "report.json").read_text())
        found[name] = report["evaluations"]["validation"]
    exact = [e for e in found["gated-pixelcnn"]["estimates"] if e["unit"] == "nats"]
    assert [e["relation"] for e in exact] == ["="]
    bounds = [e for e in found["vae"]["estimates"] if e["quantity"] == "nll"]
    assert [(e["relation"], e["unit"]) for e in bounds] == [("<=", "nats"), ("<=", "bits/dim")] * 2
    assert bounds[2]["value"] < bounds[0]["value"]
    assert "k = 3" in bounds[2]["about"]
    assert found["dcgan"]["estimates"] == []
    assert "no density" in found["dcgan"]["unanswerable"]["nll"]
    run = likely.runs.saved.load(fitted["gated-pixelcnn"])
    train, _ = likely.data.load("digits")
    assert train.validation is not None
    assert exact[0]["value"] == pytest.approx(likely.nats(run.model, train.validation).value)
    assert exact[0]["fingerprint"] == train.validation.spec.fingerprint


@pytest.mark.parametrize("density", ["a gaussian", "an autoregressive"])
def test_a_density_of_codes_has_its_article(
    fitted: dict[str, Path], tmp_path: Path, capsys: Capture, density: str
) -> None:
    words = ["--density", density.split()[1], "--steps", "1", "--out", str(tmp_path / "run")]
    assert main(["prior", str(fitted["vae"]), *words]) == 0
    assert f" with {density} density of its codes" in capsys.readouterr().out


def test_an_annealed_bound_joins_the_report_and_stays_in_it(
    fitted: dict[str, Path], capsys: Capture
) -> None:
    capsys.readouterr()
    words = ["evaluate", str(fitted["vae"]), "--no-sample-metrics", "--importance-samples", "2"]
    less = ["--annealed", "--annealed-n", "5", "--temperatures", "3", "--chains", "2"]
    near = document(capsys, *words, *less)["evaluations"]["test"]["annealed"]
    assert [e["quantity"] for e in near["estimates"]][-2:] == ["annealing-gain", "annealing-gap"]
    assert {e["n"] for e in near["estimates"]} == {5, 100}
    last = likely.load(fitted["vae"]).report["test"][-1]
    assert last.to_json() == near["estimates"][-1]
    assert document(capsys, *words)["evaluations"]["test"]["annealed"] == near
    assert main([*words, *less]) == 0
    text = capsys.readouterr().out
    assert "of 5 of these images" in text
    assert "not a proven upper bound" in text
    line = complaint(capsys, "evaluate", str(fitted["gated-pixelcnn"]), "--annealed")
    assert "annealing goes from q(z|x)" in line
    for option in ("--annealed-n", "--temperatures", "--chains"):
        line = complaint(capsys, *words, option, "10")
        assert line.endswith(f"{option}: only with --annealed")
    line = complaint(capsys, *words[:-1], "0", "--annealed")
    assert "leave out --importance-samples 0" in line


def test_sample_metrics_join_the_report_and_stay_in_it(
    fitted: dict[str, Path], capsys: Capture
) -> None:
    capsys.readouterr()
    words = ["evaluate", str(fitted["dcgan"])]
    report = document(capsys, *words, "--samples", "40")
    quantities = {e["quantity"] for e in report["evaluations"]["test"]["estimates"]}
    assert {"frechet", "kid", "coverage", "sampling-speed"} <= quantities <= set(QUANTITIES)
    report = document(capsys, *words, "--no-sample-metrics")
    assert quantities == {e["quantity"] for e in report["evaluations"]["test"]["estimates"]}


def test_a_likelihood_whose_proof_failed_is_not_printed(tmp_path: Path, capsys: Capture) -> None:
    from likely.verify import Proof, Proofs, weights_digest

    run = tmp_path / "run"
    assert main(fit_words("vae", run)) == 0
    model = likely.runs.saved.load(run).model
    leak = Proof.at_most("no future leak", 1.0, 0.0, "planted")
    Proofs("VAE", weights_digest(model), False, 0, (leak,)).save(run / "proofs.json")
    capsys.readouterr()
    assert "no future leak" in complaint(capsys, "evaluate", str(run))
    assert not (run / "report.json").exists()


def test_verify_proves_and_keeps_the_proofs(fitted: dict[str, Path], capsys: Capture) -> None:
    capsys.readouterr()
    record = document(capsys, "verify", str(fitted["gated-pixelcnn"]), "--quick")
    assert record["passed"] is True
    assert len(record["proofs"]) >= 5
    assert main(["verify", str(fitted["gated-pixelcnn"])]) == 0
    text = capsys.readouterr().out
    assert "proofs passed" in text
    assert max(map(len, text.splitlines())) <= 100
    assert (fitted["gated-pixelcnn"] / "proofs.json").is_file()


def test_sample_draws_the_means_of_a_model_with_codes(
    fitted: dict[str, Path], tmp_path: Path, capsys: Capture
) -> None:
    sheet, array = tmp_path / "m.png", tmp_path / "m.npy"
    words = ["-n", "4", "--mean", "-o", str(sheet), "--npy", str(array)]
    assert main(["sample", str(fitted["vae"]), *words]) == 0
    assert "4 means from vae" in capsys.readouterr().out
    assert np.load(array).dtype == np.float32
    assert main(["sample", str(fitted["dcgan"]), *words]) == 2
    assert "dcgan has no decoder" in capsys.readouterr().err


def test_sample_truncates_the_codes_of_a_generator_and_says_so(
    fitted: dict[str, Path], tmp_path: Path, capsys: Capture
) -> None:
    words = ["-n", "4", "-o", str(tmp_path / "t.png"), "--truncation"]
    assert document(capsys, "sample", str(fitted["dcgan"]), *words, "0.5")["truncation"] == 0.5
    assert "in [0, 1]" in complaint(capsys, "sample", str(fitted["dcgan"]), *words, "2")
    assert "no implicit" in complaint(capsys, "sample", str(fitted["vae"]), *words, "0.5")


def test_verify_says_the_guidelines_of_a_dcgan(fitted: dict[str, Path], capsys: Capture) -> None:
    assert main(["verify", str(fitted["dcgan"]), "--quick"]) == 0
    text = capsys.readouterr().out
    assert text.count("guideline ") == 5
    assert "BREACH  guideline 2 of DCGAN: batch norm" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_sheet_of_a_conditional_run_has_a_row_for_each_class() -> None:
    from likely.cli.sample import by_class

    images = torch.arange(1, 8).reshape(7, 1, 1, 1)
    cells, columns = by_class(images, torch.arange(7) % 3)
    assert columns == 3
    assert cells.flatten().tolist() == [1, 4, 7, 2, 5, 0, 3, 6, 0]
    cells, columns = by_class(torch.ones(50, 1, 1, 1, dtype=torch.int64), torch.arange(50) % 2)
    assert (columns, len(cells)) == (20, 80)  # two rows a class


def test_verify_answers_with_exit_code_1_when_a_proof_fails(
    fitted: dict[str, Path], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from likely.verify import Proof, Proofs

    failed = Proofs("VAE", "x", True, 0, (Proof.at_most("sums", 2.0, 1.0, "planted"),))
    monkeypatch.setattr(sys.modules["likely.verify"], "verify", lambda *a, **k: failed)
    assert main(["verify", str(fitted["vae"]), "--quick"]) == 1
    assert "FAILED  sums" in capsys.readouterr().out


def test_compare_writes_the_report_of_given_runs(
    fitted: dict[str, Path], tmp_path: Path, capsys: Capture
) -> None:
    runs = [str(fitted["vae"]), str(fitted["dcgan"])]
    words = ["--samples", "40", "--importance-samples", "2", "--out", str(tmp_path / "c")]
    assert main(["compare", *runs, *words]) == 0
    text = capsys.readouterr().out
    assert "no density" in text
    for name in ("report.html", "report.json"):
        assert (tmp_path / "c" / name).is_file()


def test_a_comparison_is_told_where_it_cannot_be_kept(
    fitted: dict[str, Path], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at the very end: the table is there, the exit code says the rest."""

    def full(path: Path) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "_created", full)
    words = ["--samples", "40", "--importance-samples", "0", "--out", str(tmp_path / "c")]
    capsys.readouterr()
    assert main(["compare", str(fitted["vae"]), *words]) == 2
    told = capsys.readouterr()
    assert "more verdicts in the report" in told.out
    assert "report:" not in told.out
    assert "measured, but not kept: cannot write" in told.err
    assert "No space left on device" in told.err


# -- lists and scripts --------------------------------------------------------------------


def test_lists_and_descriptions(capsys: Capture) -> None:
    listed = {m["name"] for m in document(capsys, "models")["models"]}
    assert listed == {*MODELS, *SEQUENCE_MODELS}
    vae = document(capsys, "models", "vae")["models"][0]
    spec = likely.data.load("digits")[0].spec
    assert vae["presets"]["8x8"] == dataclasses.asdict(MODELS["vae"].settings.preset(spec))
    assert "digits" in {d["name"] for d in document(capsys, "data")["data"]}
    splits = document(capsys, "data", "describe", "digits")["splits"]
    _, test = likely.data.load("digits")
    assert splits["test"]["fingerprint"] == test.spec.fingerprint
    assert sum(splits["test"]["examples_by_class"].values()) == len(test)


def test_a_folder_report_names_every_unreadable_file(tmp_path: Path, capsys: Capture) -> None:
    for index in range(4):
        Image.new("L", (8, 8), index).save(tmp_path / f"{index}.png")
    (tmp_path / "bad.png").write_bytes(b"")
    record = document(capsys, "data", "report", str(tmp_path))
    assert (record["read"], [s["path"] for s in record["skipped"]]) == (4, ["bad.png"])
    assert main(["data", "report", str(tmp_path)]) == 0
    assert "skipped bad.png: empty file" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh"])
def test_completion_knows_commands_models_and_fields(shell: str, capsys: Capture) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("evaluate", "gated-pixelcnn", "importance-samples", "certify"):
        assert word in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("name", [*COMMANDS, ""])
def test_help_has_an_example_and_fits_the_terminal(
    name: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = [name] if name else []
    variants = [words]
    if name:
        variants += [[name, choice] for choice in module_of(name).COMMAND.choices()]
    for variant in variants:
        assert main([*variant, "--help"]) == 0
        text = capsys.readouterr().out
        assert "example" in text
        assert "  likely " in text
        assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("classify RUN --mode join", '--mode: "join" is not known: did you mean "joint"?'),
        ("clusters RUN --map pca --map tsne", '--map: "tsne" is not known: did you mean "t-sne"?'),
        ("world plan RUN --refine much", '--refine: expected a number above 0, given "much"'),
    ],
)
def test_each_word_of_an_option_that_may_be_repeated_is_checked(
    words: str, line: str, capsys: Capture
) -> None:
    assert line in complaint(capsys, *words.split())
    assert parse("world", ["plan", "RUN", "--refine", "2", "--refine", "0.5"])[1].refine == [
        2.0,
        0.5,
    ]


@pytest.mark.parametrize("command", ["classify", "clusters"])
def test_a_picture_of_another_kind_is_refused_before_the_work(
    command: str, tmp_path: Path, capsys: Capture
) -> None:
    words = [command, str(tmp_path / "no-run"), "-o", "x.txt"]
    ends = "expected a file name that ends in .png or .pdf or .svg"
    assert f"--out x.txt: {ends}" in complaint(capsys, *words)


def test_a_picture_makes_its_folder(tmp_path: Path, capsys: Capture) -> None:
    assert main(fit_words("vae", tmp_path / "vae")) == 0
    picture = tmp_path / "new" / "codes.svg"
    words = ["clusters", str(tmp_path / "vae"), "-n", "30", "--map", "pca", "-o", str(picture)]
    assert main(words) == 0
    assert picture.stat().st_size > 1000
    assert main(["fit", "var", "--data", "regimes", "--lags", "2", "--steps", "1",
                 "--out", str(tmp_path / "var")]) == 0  # fmt: skip
    plot = tmp_path / "other" / "fan.png"
    words = ["forecast", str(tmp_path / "var"), "--horizon", "3", "-n", "5", "--plot", str(plot)]
    assert main(words) == 0
    assert plot.stat().st_size > 1000


def small(command: str, line: str) -> list[str]:
    """An example of the help, on digits, with tiny models and few steps (the last option wins)."""
    words = shlex.split(line.split(" > ")[0].replace("mnist --binarize static", "digits"))[1:]
    if command == "fit":
        sizes = TINY[words[1]].split()
        if "latent=64" in words:
            place = sizes.index("--latent")
            del sizes[place : place + 2]
        words[words.index("--out") + 1] += "-again"
        return [*words, "--data", "digits", "--steps", "2", "--batch-size", "8", *sizes]
    near = "--annealed" in words
    less = {
        "compare": ["--steps", "2", "--samples", "20", "--importance-samples", "2"],
        "evaluate": [
            *("--importance-samples", "2", "--samples", "20"),
            *(["--annealed-n", "3", "--temperatures", "3", "--chains", "2"] if near else []),
        ],
        "sample": ["-n", "3"],
        "upscale": ["-n", "2", "--images", "2"],
        "colorize": ["-n", "2", "--images", "2"],
        "clusters": ["-n", "40"],
        "score": ["-n", "40"],
        "forecast": ["-n", "3", "--horizon", "3", "--at", "4"],
        "prior": ["--steps", "2"],
        "walk": ["--steps", "3", "--loops", "1"],
        "invert": ["--steps", "1", "--restarts", "1", "--number", "3"],
        "classify": ["--labels", "digits", "--seeds", "1", "--per-class", "2", "--layer", "code"],
    }
    return [*words, *less.get(command, [])]


def test_every_example_of_the_help_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    # Fits take a process each; tests/jobs/ compares all kinds.
    job = importlib.import_module("likely.jobs.compare")
    monkeypatch.setattr(job, "ONE_OF_EACH_KIND", ["vae"])
    monkeypatch.setattr(job, "verify", functools.partial(job.verify, quick=True))
    measuring = importlib.import_module("likely.jobs.evaluate")
    few = functools.partial(measuring.calibration, steps=10, draws=9)
    monkeypatch.setattr(measuring, "calibration", few)
    ahead = functools.partial(measuring.steps_ahead, origins=4, draws=8)
    monkeypatch.setattr(measuring, "steps_ahead", ahead)
    monkeypatch.setattr(FineTuning, "ends", lambda *_: [1, 2])
    (tmp_path / "vae.yaml").write_text("hidden: 16\n")
    (tmp_path / "pictures").mkdir()
    for index in range(4):
        Image.new("L", (8, 8), index).save(tmp_path / "pictures" / f"{index}.png")
    (tmp_path / "images").mkdir()
    Image.new("L", (8, 8), 255).save(tmp_path / "images" / "white.png")
    np.save(tmp_path / "array.npy", np.zeros((2, 1, 8, 8), np.uint8))
    runs = {"pixelcnn": "gated-pixelcnn", "scale": "haar-pyramid"}
    runs |= {name: name for name in ("autoencoder", "vae", "dcgan")}
    for folder, name in runs.items():
        assert main(fit_words(name, Path("runs", folder))) == 0
    assert main(fit_words("vae", Path("runs/conditional"), "--conditional")) == 0
    colours = likely.runs.build("luma-chroma", DataSpec("c", (3, 8, 8), 256), SMALL["luma-chroma"])
    likely.runs.save(Path("runs/colour"), colours)
    for name, size in (("gru", "--hidden"), ("var", "--lags")):
        words = ["fit", name, "--data", "regimes", "--out", f"runs/{name}", size, "4"]
        assert main([*words, "--steps", "1"]) == 0
    mode, level = likely.load("runs/var").model.spec.columns  # type: ignore[attr-defined]
    lines = [f"{t},{mode.names[t % 2]},{level.numbers(150 + t):.3f}" for t in range(6)]
    (tmp_path / "mine.csv").write_text("\n".join(["taken,mode,level", *lines, ""]))
    seen = 0
    for command in COMMANDS:
        if command in ("mdp", "world"):  # their own tests run their examples
            continue
        for line in module_of(command).COMMAND.example.replace("\\\n", " ").strip().splitlines():
            assert line.strip().startswith(f"likely {command}")
            assert main(small(command, line)) == 0, line
            seen += 1
    assert seen >= 14


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{0},{1},{0}", {"head": "columns of numbers", "components": "numbers or angles"}),
        ("{0},{2},{1}", {}),
    ],
)
def test_a_fit_says_which_settings_count_on_other_columns_only(
    row: str, told: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = np.random.default_rng(0).integers(2, size=(200, 2))
    rows = [row.format(a, b, 0.5 * t) for t, (a, b) in enumerate(draw)]
    (tmp_path / "log.csv").write_text("\n".join(["left,middle,right", *rows]))
    words = ["fit", "gru", "--data", str(tmp_path / "log.csv"), "--out", str(tmp_path / "run")]
    sizes = ["--hidden", "2", "--step-hidden", "2", "--steps", "1"]
    assert main([*words, *sizes, "--head", "logistic", "--components", "3"]) == 0
    said = capsys.readouterr().err
    assert said.count("changes nothing") == len(told)
    for name, columns in told.items():
        assert re.search(rf"{name}=\w+ changes nothing on this data: .*{columns}", said)


# -- the process ----------------------------------------------------------------------------


def process(*words: str) -> list[str]:
    return [sys.executable, "-m", "likely", *words]


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["fit", "vae", "--help"],
        ["models"],
        ["mdp", "--help"],
        ["world", "--help"],
        ["world", "plan", "--help"],
    ],
)
def test_answers_without_work_import_no_torch(words: list[str]) -> None:
    code = (
        "import sys\nfrom likely.cli import main\n"
        f"code = main({words!r})\n"
        "heavy = {'torch', 'numpy', 'scipy', 'rich', 'yaml'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_a_process_imports_what_it_needs_and_names_work(tmp_path: Path) -> None:
    """No torch for `import likely`; no compiler, which takes as long again, to fit and load."""
    code = (
        "import sys, likely\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
        "from likely.training.run import Run\n"  # sets the module as an attribute of the package
        "from likely.verify import Proofs\n"
        "assert all(getattr(likely, name) is not None for name in likely.__all__)\n"
        "assert callable(likely.fit) and callable(likely.verify), 'the modules hide them'\n"
        "assert likely.Run is Run and 'fit' in dir(likely)\n"
        "train, _ = likely.data.load('digits')\n"
        "likely.fit(likely.models.NADE(train.spec, hidden=1), train, steps=1, out=sys.argv[1])\n"
        "likely.load(sys.argv[1])\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "try:\n    likely.nothing\nexcept AttributeError:\n    sys.exit(0)\nsys.exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "run"], check=True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_fit_says_how_to_go_on(number: signal.Signals, code: int, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = fit_words("vae", out)
    words[words.index("--steps") + 1] = "1000000"
    running = subprocess.Popen(
        process(*words, "--log-every", "1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    until = time.monotonic() + 120
    records = out / "metrics.jsonl"
    while not (records.exists() and records.stat().st_size) and time.monotonic() < until:
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    running.send_signal(number)
    answer, errors = running.communicate(timeout=120)
    assert running.returncode == code
    assert answer == ""
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    assert (out / "state.safetensors").exists()


def test_a_closed_pipe_is_quiet() -> None:
    with subprocess.Popen(
        process("models", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as running:  # fmt: skip
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == ""
        assert running.wait(timeout=60) == 0


def in_shell(words: str, unbuffered: str = "1") -> subprocess.CompletedProcess[str]:
    """A command of a shell, where `likely` is this process's."""
    command = words.replace("likely", shlex.join(process()), 1)
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, env=environment
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["models", "mdp solve frozen-lake", "--version"])
def test_a_full_disk_under_stdout_is_one_line(words: str, unbuffered: str) -> None:
    done = in_shell(f"likely {words} > /dev/full", unbuffered)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("likely: error: cannot write the output: No sp")
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_quiet_in_tables_too() -> None:
    done = in_shell("likely mdp solve frozen-lake | true")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_stream_changes_neither_the_other_nor_the_code(tmp_path: Path) -> None:
    assert main(fit_words("vae", tmp_path / "vae")) == 0
    words = f"likely evaluate {tmp_path / 'vae'} --split validation --no-sample-metrics --json"
    no_errors = in_shell(f"{words} 2>&-")
    assert no_errors.returncode == 0
    assert json.loads(no_errors.stdout)["model"] == "vae"
    no_answer = in_shell(f"{words} >&-")
    assert (no_answer.returncode, no_answer.stdout) == (0, "")
    assert "Traceback" not in no_answer.stderr


def test_the_process_answers_a_mistake_with_exit_code_2() -> None:
    found = subprocess.run(process("fit", "vaee"), capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("likely: error: ")
