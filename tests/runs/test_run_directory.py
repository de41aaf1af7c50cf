"""One author of every file of a run: what Python fits, the command uses, and back."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import likely
from fit_cases import differing, end_of, files_in, fit_case, stop_at, training_data
from likely import data, models, runs
from likely.cli import main
from likely.data.spec import DataSpec
from likely.devices import environment
from likely.errors import InvalidData, InvalidSetting
from likely.evaluate.classifier import default_extractor
from likely.models.registry import MODELS, model
from likely.models.vae.vae import VAE
from likely.runs import RunDirectory
from likely.runs.checkpoint import read_tensors, write_tensors
from likely.runs.directory import STATE
from likely.training.run import Stopped
from likely.verify import weights_digest

Capture = pytest.CaptureFixture[str]
SMALL = models.VAESettings(network="dense", hidden=8, latent=3)
WORDS = "fit vae --data digits --network dense --hidden 8 --latent 3 --steps 12 --batch-size 8"


def fitted(out: Path | None, train: data.Dataset, **options: object) -> likely.Run:
    """A small fit from Python, with the settings of `WORDS`."""
    settings = MODELS["vae"].settings.preset(train.spec)
    settings = dataclasses.replace(settings, network="dense", hidden=8, latent=3)
    wanted = {"steps": 12, "batch_size": 8, "out": out, **options}
    return likely.fit(models.VAE(train.spec, settings), train, **wanted)  # type: ignore[arg-type]


# -- from Python to the command and back ---------------------------------------------------------


def test_a_run_of_python_is_a_run_of_the_command(tmp_path: Path, capsys: Capture) -> None:
    train, test = data.load("digits")
    run = fitted(tmp_path / "vae", train)
    before = files_in(tmp_path / "vae")
    out = str(tmp_path / "vae")
    assert main(["sample", out, "-n", "3"]) == 0
    assert main(["evaluate", out, "--importance-samples", "0", "--no-sample-metrics"]) == 0
    assert main(["verify", out, "--quick"]) == 0
    capsys.readouterr()
    assert main([*WORDS.split(), "--out", out]) == 0
    assert "already fitted: vae on digits" in capsys.readouterr().err
    assert {k: v for k, v in files_in(tmp_path / "vae").items() if k in before} == before
    saved = likely.load(out)
    assert saved.data == {"name": "digits"}
    assert torch.equal(saved.model.sample(3, seed=1), run.model.sample(3, seed=1))
    assert saved.train.spec == train.spec
    assert saved.test.spec == test.spec
    assert saved.metrics == run.metrics
    (nats, *_) = saved.report["test"]
    assert nats.value == pytest.approx(likely.nats(run.model, test).value)


def test_both_write_the_same_bytes(tmp_path: Path) -> None:
    assert main([*WORDS.split(), "--out", str(tmp_path / "command")]) == 0
    fitted(tmp_path / "python", data.load("digits")[0])
    here, there = files_in(tmp_path / "python"), files_in(tmp_path / "command")
    for files in (here, there):
        for name in (".lock", "timing.jsonl", STATE):  # they hold a clock
            del files[name]
    assert differing(here, there) == []
    assert differing(end_of(tmp_path / "python"), end_of(tmp_path / "command")) == []


def test_a_file_of_arrays_is_remembered_with_its_options(tmp_path: Path, capsys: Capture) -> None:
    x = np.random.default_rng(0).integers(0, 4, (60, 8, 8)).astype(np.uint8)
    np.save(tmp_path / "x.npy", x)
    train, _ = data.load(tmp_path / "x.npy", levels=4)
    fitted(tmp_path / "run", train)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"] == {"name": str(tmp_path / "x.npy"), "levels": 4}
    words = ["--importance-samples", "0", "--no-sample-metrics"]
    assert main(["evaluate", str(tmp_path / "run"), *words]) == 0


def test_other_labels_of_the_same_images_are_not_those_that_were_fitted(tmp_path: Path) -> None:
    """A likelihood given the label is about the labels, too."""
    x = np.random.default_rng(0).integers(0, 4, (60, 1, 8, 8)).astype(np.uint8)
    labels, path = np.arange(60) % 2, tmp_path / "x.npz"
    for conditional in (True, False):
        np.savez(path, x_train=x, y_train=labels)
        train, _ = data.load(path, levels=4)
        settings = models.NADESettings(hidden=2, conditional=conditional)
        run = tmp_path / str(conditional)
        likely.fit(models.NADE(train.spec, settings), train, steps=1, batch_size=8, out=run)
        assert likely.load(run).train.spec == train.spec
        np.savez(path, x_train=x, y_train=1 - labels)
        if conditional:
            with pytest.raises(InvalidData, match="with another label for each"):
                likely.load(run).datasets()
        else:
            assert likely.load(run).train.spec == train.spec


def test_data_in_memory_make_a_run_that_says_so(tmp_path: Path, capsys: Capture) -> None:
    train, test = data.train_and_test(training_data().take(slice(0, 200)))
    fitted(tmp_path / "run", train)
    out = str(tmp_path / "run")
    assert main(["sample", out, "-n", "2"]) == 0
    capsys.readouterr()
    assert main(["evaluate", out]) == 2
    line = capsys.readouterr().err
    assert "was fitted to data in memory (digits, fingerprint" in line
    assert "likely.data.load(FILE)" in line
    assert likely.nats(likely.load(out).model, test).n == len(test)
    # The same data resume it, others do not.
    assert fitted(tmp_path / "run", train).step == 12
    with pytest.raises(InvalidSetting, match="other images"):
        fitted(tmp_path / "run", test)


def test_a_run_in_memory_is_saved_and_loaded(tmp_path: Path, capsys: Capture) -> None:
    train, _ = data.load("digits")
    run = fitted(None, train)
    assert run.save(tmp_path / "saved") == tmp_path / "saved"
    saved = likely.load(tmp_path / "saved")
    assert weights_digest(saved.model) == weights_digest(run.model)
    assert saved.metrics == run.metrics
    assert main(["verify", str(tmp_path / "saved"), "--quick"]) == 0
    with pytest.raises(InvalidSetting, match="holds a run already"):
        run.save(tmp_path / "saved")
    capsys.readouterr()
    assert main([*WORDS.split(), "--out", str(tmp_path / "saved")]) == 2
    assert "--from" in capsys.readouterr().err


def test_a_gan_in_memory_is_saved_with_its_adversary(tmp_path: Path) -> None:
    run = fit_case("dcgan", None, steps=2)
    saved = likely.load(run.save(tmp_path / "gan"))
    assert run.adversary is not None
    assert saved.adversary is not None
    before, after = run.adversary.state_dict(), saved.adversary.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(saved.model.sample(2, seed=1), run.model.sample(2, seed=1))


# -- a model of one's own ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class OwnSettings(models.VAESettings):
    """Settings of a model that the package does not know."""


class Own(VAE):
    """A model that the package does not know."""


def test_a_model_that_is_not_registered_is_saved_and_named(tmp_path: Path) -> None:
    train, _ = data.load("digits")
    settings = OwnSettings(network="dense", hidden=8, latent=3)
    likely.fit(Own(train.spec, settings), train, steps=3, batch_size=8, out=tmp_path / "run")
    with pytest.raises(InvalidSetting, match=r"a run of .*:Own, which is not registered"):
        likely.load(tmp_path / "run")
    try:
        model("own", f"{__name__}:Own")(OwnSettings)
        assert likely.load(tmp_path / "run").name == "own"
    finally:
        del MODELS._entries["own"]


# -- further -------------------------------------------------------------------------------------

STEADY = {"schedule": "constant", "log_every": 2, "validate_every": 5}


@pytest.mark.parametrize("case", ["vae-dense", "dcgan"])
def test_a_finished_run_is_prolonged_bit_for_bit(case: str, tmp_path: Path) -> None:
    """10 + 10 steps end as 20 do."""
    fit_case(case, tmp_path / "whole", steps=20, **STEADY)
    fit_case(case, tmp_path / "parts", steps=10, **STEADY)
    run = fit_case(case, tmp_path / "parts", steps=20, **STEADY)
    assert run.step == 20
    assert differing(end_of(tmp_path / "whole"), end_of(tmp_path / "parts")) == []
    for name in ("fit.json", "config.json"):
        pair = [(tmp_path / folder / name).read_bytes() for folder in ("whole", "parts")]
        assert pair[0] == pair[1]


def test_the_environment_of_every_part_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def environments() -> dict[str, object]:
        return dict(json.loads((tmp_path / "environment.json").read_text()))

    fit_case("vae-dense", tmp_path, progress=stop_at(4))
    first = environments()
    fit_case("vae-dense", tmp_path, progress=stop_at(6))
    assert environments() == first
    there = {**environment(), "threads": 7, "processor": "another"}
    monkeypatch.setattr("likely.training.loop.environment", lambda: there)
    fit_case("vae-dense", tmp_path, progress=stop_at(8))
    monkeypatch.undo()
    run = fit_case("vae-dense", tmp_path)
    back = {name: first[name] for name in ("threads", "processor")}
    parts = [{"step": 6, "threads": 7, "processor": "another"}, {"step": 8, **back}]
    assert environments() == {**first, "resumed": parts}
    fit_case("vae-dense", tmp_path)
    assert run.finished
    assert RunDirectory(tmp_path).threads() == first["threads"]


def test_a_prolonged_run_has_the_weights_of_the_long_one_wherever_it_was_logged(
    tmp_path: Path,
) -> None:
    """The last record of the first part closes an interval; the next one is shorter."""
    steady = {**STEADY, "log_every": 4, "validate_every": 0}
    whole = fit_case("vae-dense", tmp_path / "whole", steps=20, **{**steady, "log_every": 1})
    fit_case("vae-dense", tmp_path / "parts", steps=10, **steady)
    # Killed in the second part, it still knows where the interval began.
    fit_case("vae-dense", tmp_path / "parts", steps=20, progress=stop_at(12), **steady)
    run = fit_case("vae-dense", tmp_path / "parts", steps=20, **steady)
    tensors = [read_tensors(tmp_path / name / STATE)[0] for name in ("whole", "parts")]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    losses = {r["step"]: r["negative_elbo"] for r in run.metrics if "negative_elbo" in r}
    each = {r["step"]: r["negative_elbo"] for r in whole.metrics}
    assert list(losses) == [4, 8, 10, 12, 16, 20]
    assert losses[12] == pytest.approx((each[11] + each[12]) / 2, rel=1e-9)


def test_a_run_is_fitted_further_in_another_directory(tmp_path: Path, capsys: Capture) -> None:
    first, second, third = (str(tmp_path / name) for name in ("a", "b", "c"))
    assert main([*WORDS.split(), "--out", first]) == 0
    before = files_in(Path(first))
    more = ["--data", "digits", "--steps", "1", "--batch-size", "8", "--learning-rate", "1e-9"]
    words = ["fit", "vae", *more, "--from", first, "--ema", "0", "--warmup", "0", "--out"]
    assert main([*words, second]) == 0
    assert files_in(Path(first)) == before
    weights = [read_tensors(Path(run) / "weights.safetensors")[0] for run in (first, second)]
    assert all(torch.allclose(weights[0][n], weights[1][n], atol=1e-6) for n in weights[0])
    record = json.loads((Path(second) / "fit.json").read_text())
    assert record["starts_from"] == f"step 12 of {first}"
    assert main([*words, second]) == 0  # and it resumes as any other
    assert json.loads((Path(second) / "fit.json").read_text()) == record
    train, _ = data.load("digits")
    likely.fit(likely.load(first).model, train, steps=1, batch_size=8, out=third)
    assert (
        json.loads((Path(third) / "fit.json").read_text())["starts_from"] == f"step 12 of {first}"
    )
    capsys.readouterr()
    assert main([*words, str(tmp_path / "d"), "--latent", "4"]) == 2
    assert "do not fit vae with these settings" in capsys.readouterr().err
    assert main(["fit", "nade", *more, "--from", first, "--out", str(tmp_path / "d")]) == 2
    assert "is a run of vae, not of nade" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_a_run_that_began_from_other_weights_is_refused(tmp_path: Path, capsys: Capture) -> None:
    """It would keep what it learned from them, and say that it is done."""
    first, other, out = (str(tmp_path / name) for name in ("a", "b", "out"))
    for directory, seed in ((first, "0"), (other, "7")):
        assert main([*WORDS.split(), "--seed", seed, "--out", directory]) == 0
    words = ["fit", "vae", "--data", "digits", "--steps", "1", "--batch-size", "8", "--out", out]
    assert main([*words, "--from", first]) == 0
    before = files_in(Path(out))
    capsys.readouterr()
    assert main([*words, "--from", other]) == 2
    said = capsys.readouterr().err
    assert f"began from step 12 of {first}, not from step 12 of {other}; give another" in said
    assert main([*words, "--latent", "3"]) == 2
    assert "not from initial weights" in capsys.readouterr().err
    train, _ = data.load("digits")
    model = likely.load(other).model
    for directory in (out, first):
        with pytest.raises(InvalidSetting, match="holds a run that began from"):
            likely.fit(model, train, steps=1, batch_size=8, out=directory)
    assert files_in(Path(out)) == before
    # The same directory with other weights in it is no longer the same beginning.
    assert main([*WORDS.split(), "--no-resume", "--seed", "7", "--out", first]) == 0
    assert main([*words, "--from", first]) == 2
    assert "whose weights were others then" in capsys.readouterr().err
    assert main([*words, "--from", first, "--no-resume"]) == 0


def test_a_fitted_model_goes_on_with_its_own_run(tmp_path: Path) -> None:
    train, _ = data.load("digits")
    fit = likely.FitSettings(batch_size=8, warmup=0, log_every=1, schedule="constant")
    run = fitted(tmp_path / "run", train, settings=fit, steps=4)
    more = likely.fit(run.model, train, settings=fit, steps=6, out=tmp_path / "run")
    assert [record["step"] for record in more.metrics] == [1, 2, 3, 4, 5, 6]
    loaded = likely.load(tmp_path / "run").model
    assert likely.fit(loaded, train, settings=fit, steps=8, out=tmp_path / "run").step == 8
    likely.fit(loaded, train, settings=fit, steps=1)
    with pytest.raises(InvalidSetting, match="not from a fit to digits"):
        likely.fit(loaded, train, settings=fit, steps=9, out=tmp_path / "run")


def test_fine_tuning_on_other_data_keeps_the_weights_and_notes_the_data(tmp_path: Path) -> None:
    train, _ = data.load("digits")
    run = fitted(None, train)
    few = train.take(slice(0, 40))
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    settings = likely.FitSettings(steps=1, batch_size=8, learning_rate=1e-9, warmup=0, ema=0.0)
    likely.fit(run.model, few, settings=settings, out=tmp_path / "run")
    after = run.model.state_dict()
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    config = RunDirectory(tmp_path / "run").config()
    assert DataSpec.from_json(config["spec"]) == few.spec


# -- what ends early -----------------------------------------------------------------------------


def test_an_interrupted_fit_in_memory_gives_the_run_so_far_with_a_warning(tmp_path: Path) -> None:
    train, _ = data.load("digits")
    with pytest.warns(Stopped, match=r"stopped by SIGINT after 10 of 40 steps.*weights so far"):
        run = fitted(None, train, steps=40, progress=stop_at(10, signal.SIGINT))
    assert (run.step, run.finished) == (10, False)
    assert run.model.sample(2).shape == (2, 1, 8, 8)
    run.save(tmp_path / "run")
    assert main(["sample", str(tmp_path / "run"), "-n", "2"]) == 0


def test_a_fit_that_diverged_does_not_end_as_finished(tmp_path: Path, capsys: Capture) -> None:
    words = "--data digits --steps 20 --batch-size 8 --channels 4 --layers 1 --head-channels 4"
    wild = "--learning-rate 1e6 --warmup 0 --clip 0"
    assert main(["fit", "gated-pixelcnn", *words.split(), *wild.split(), "--out",
                 str(tmp_path / "run")]) == 1  # fmt: skip
    told = capsys.readouterr()
    assert "the fit diverged: the best validation is" in " ".join(told.out.split())
    assert "Remedy: a lower learning_rate" in told.err
    assert json.loads((tmp_path / "run" / "health.json").read_text())[0]["severity"] == "failure"


def test_a_refused_fit_leaves_nothing_behind(tmp_path: Path) -> None:
    train, _ = data.load("digits")

    class Plain(likely.NegativeELBO):
        def loss(self, *arguments: Tensor, **named: Tensor) -> None:  # type: ignore[override]
            return None

    with pytest.raises(InvalidSetting, match="must return"):
        fitted(tmp_path / "first", train, objective=Plain())
    assert not (tmp_path / "first" / "weights.safetensors").exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("mine")
    with pytest.raises(InvalidSetting, match=r"holds other things \(thesis.tex\)"):
        fitted(tmp_path / "thesis", train)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["thesis.tex"]
    with pytest.raises(InvalidSetting, match="is not a run"):
        likely.load(tmp_path / "thesis")


def test_a_model_alone_is_saved_as_a_run(tmp_path: Path) -> None:
    train, _ = data.load("digits")
    built = runs.build("fvsbn", train.spec, {"components": 2})
    saved = runs.load(runs.save(tmp_path / "run", built, train))
    assert weights_digest(saved.model) == weights_digest(built)
    assert saved.train.spec == train.spec
    assert saved.report == {}


def test_weights_of_half_precision_are_read_in_that_of_the_model(tmp_path: Path) -> None:
    train, test = data.load("digits")
    model = runs.build("made", train.spec)
    folder = runs.save(tmp_path / "run", model, train)
    path = folder / "weights.safetensors"
    tensors, about = read_tensors(path)
    halves = {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}
    write_tensors(path, halves, about)
    rounded = runs.load(folder).model
    assert {p.dtype for p in rounded.parameters()} == {torch.float32}
    before, after = (likely.nats(m, test.take(slice(0, 50))).value for m in (model, rounded))
    assert before != after
    assert before == pytest.approx(after, rel=1e-3)


def test_python_and_the_command_measure_the_same(tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "vae"
    fitted(run, data.load("digits")[0])
    options = {"split": "validation", "importance_samples": 2, "samples": 40}
    measured = likely.evaluate(run, **options)
    assert str(measured).startswith("digits, validation split")
    bound = measured["nll"]
    assert "k = 2" in bound.about
    assert measured.per_example is not None
    assert bound.value == pytest.approx(sum(measured.per_example) / len(measured.per_example))
    report = likely.load(run).report["validation"]
    capsys.readouterr()
    words = ["--split", "validation", "--importance-samples", "2", "--samples", "40", "--json"]
    assert main(["evaluate", str(run), *words]) == 0
    told = json.loads(capsys.readouterr().out)["evaluations"]["validation"]["estimates"]
    values = {(e["quantity"], e["unit"], e["about"]): e["value"] for e in told}
    for estimate in (*measured.estimates, *report):
        if estimate.quantity != "sampling-speed":
            assert values[estimate.quantity, estimate.unit, estimate.about] == estimate.value


@pytest.mark.data
def test_the_features_of_mnist_come_with_the_package(tmp_path: Path) -> None:
    """So the committed Frechet distances are the same on every machine."""
    train, _ = data.load("mnist", binarize="static")
    extractor = default_extractor(train, cache=tmp_path)
    assert extractor.fingerprint == "aaa8ba2425ff"
    assert list(tmp_path.iterdir()) == []
