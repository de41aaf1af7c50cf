"""A run is used as it was written, or not at all: checksums, lost files, foreign lines, signals."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from fit_cases import differing, end_of, files_in, fit_case, model_of, stop_at, training_data
from likely import data, models, runs
from likely.cli import main
from likely.errors import InvalidData, InvalidSetting
from likely.files import atomic
from likely.mdp import MDP
from likely.runs import checkpoint, saved
from likely.runs.checkpoint import CheckpointError, read_tensors
from likely.runs.journal import METRICS, TIMING
from likely.settings import FitSettings
from likely.training.loop import fit
from likely.training.objectives import Loss, Objective, Step
from likely.training.stopping import exit_code

Capture = pytest.CaptureFixture[str]
WORDS = ["fit", "nade", "--data", "digits", "--steps", "6", "--batch-size", "8", "--hidden", "2"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests work on copies."""
    folder = tmp_path_factory.mktemp("runs") / "nade"
    assert main([*WORDS, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def refusal(capsys: Capture, *words: str, code: int = 2) -> str:
    """What the command says on stderr as it refuses."""
    capsys.readouterr()
    assert main(words) == code
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = [line for line in told.err.splitlines() if line.startswith("likely: error")]
    return line


def flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 4
    path.write_bytes(content)


# -- checksums ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weights", "best", "state"])
def test_no_flipped_bit_is_used(name: str, run: Path) -> None:
    """At a hundred places of the file, its header and its numbers alike."""
    path = run / f"{name}.safetensors"
    tensors, about = read_tensors(path)
    good = path.read_bytes()
    for place in range(100):
        path.write_bytes(good)
        flip(path, place / 99)
        with contextlib.suppress(CheckpointError):
            found, strings = read_tensors(path)
            # Only what says nothing (the padding of the header) may have changed.
            assert strings == about
            assert all(torch.equal(found[key], tensor) for key, tensor in tensors.items())
        if place >= 50:  # among the numbers
            with pytest.raises(CheckpointError, match=rf"{name}\.safetensors: damaged"):
                read_tensors(path)


def test_weights_that_are_not_numbers_are_no_run(tmp_path: Path, capsys: Capture) -> None:
    train, _ = data.load("digits")
    model = runs.build("vae", train.spec, {"network": "dense", "hidden": 4, "layers": 1})
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = float("nan")
    runs.save(tmp_path / "run", model)
    for verb in ("sample", "clusters", "verify"):
        line = refusal(capsys, verb, str(tmp_path / "run"))
        assert "weights.safetensors: weights are NaN (" in line


def test_damaged_files_say_what_to_do(run: Path, capsys: Capture) -> None:
    words = [*WORDS, "--out", str(run)]
    flip(run / "weights.safetensors", 0.9)
    line = refusal(capsys, "sample", str(run))
    assert "weights.safetensors: damaged" in line
    assert "run the same `likely fit` command again" in line
    assert main(words) == 0  # which is what helps
    assert main(["sample", str(run), "-n", "1"]) == 0
    for name in ("best", "state"):
        flip(run / f"{name}.safetensors", 0.9)
        before = files_in(run)
        line = refusal(capsys, *words)
        assert f"{name}.safetensors: damaged" in line
        assert "--no-resume" in line
        assert files_in(run) == before
    assert main([*words, "--no-resume"]) == 0


def test_runs_of_before_the_checksums_still_load(run: Path) -> None:
    for name in ("weights", "best", "state"):
        path = run / f"{name}.safetensors"
        tensors, about = read_tensors(path)
        safetensors.torch.save_file(tensors, path, about)
        assert read_tensors(path)[1] == about
    runs.load(run)
    assert main([*WORDS, "--out", str(run)]) == 0


def test_weights_of_another_type_or_shape_are_not_taken(run: Path) -> None:
    path = run / "weights.safetensors"
    tensors, about = read_tensors(path)
    name = sorted(tensors)[0]
    for wrong in (tensors[name].long(), tensors[name][None]):
        checkpoint.write_tensors(path, {**tensors, name: wrong}, about)
        with pytest.raises(CheckpointError, match=rf"does not fit the settings .*: {name} differs"):
            runs.load(run)


def test_settings_of_a_vast_network_take_no_memory(tmp_path: Path) -> None:
    """Two hidden layers have a square of weights: 400 MB, told before they are made."""
    train, _ = data.load("digits")
    runs.save(tmp_path / "run", models.MADE(train.spec, hidden=8, layers=2))
    config = tmp_path / "run" / "config.json"
    record = json.loads(config.read_text())
    record["settings"]["hidden"] = 10_000
    config.write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="far beyond the weights"):
        runs.load(tmp_path / "run")


FAR = 2**50


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(FAR),
        lambda: torch.zeros((FAR, 2)),
        lambda: torch.full((FAR,), 1.0),
        lambda: torch.arange(FAR),
        lambda: torch.eye(2**30),
        lambda: torch.tril_indices(2**30, 2**30),
        lambda: torch.zeros(2**20, 1) + torch.zeros(2**20),
        lambda: torch.zeros(1).expand(FAR).clone(),
    ],
)
def test_a_vast_tensor_is_refused_before_there_is_memory_for_it(make: Any) -> None:
    with saved._Bounded({}), pytest.raises(InvalidData, match="far beyond the weights"):
        make()


def test_a_state_of_other_types_is_no_state(run: Path, capsys: Capture) -> None:
    path = run / "state.safetensors"
    tensors, about = read_tensors(path)
    for name in tensors:
        checkpoint.write_tensors(path, {**tensors, name: tensors[name].bool()}, about)
        assert "state.safetensors: no state of a fit" in refusal(capsys, *WORDS, "--out", str(run))
    for key in about:
        for text in ("", "[]", "null", "x"):
            checkpoint.write_tensors(path, tensors, {**about, key: text})
            assert main([*WORDS, "--out", str(run)]) in (0, 2)


# -- lost files --------------------------------------------------------------------------------


def test_a_lost_state_is_no_reason_to_overwrite_the_weights(run: Path, capsys: Capture) -> None:
    words = [*WORDS, "--out", str(run)]
    (run / "state.safetensors").unlink()
    before = files_in(run)
    line = refusal(capsys, *words)
    assert "no state.safetensors" in line
    assert "--no-resume" in line
    assert files_in(run) == before
    assert main([*words, "--no-resume"]) == 0


def test_the_same_holds_in_python(tmp_path: Path) -> None:
    fit_case("vae-dense", tmp_path)
    (tmp_path / "state.safetensors").unlink()
    before = files_in(tmp_path)
    with pytest.raises(InvalidSetting, match=r"cannot be resumed.*resume=False"):
        fit_case("vae-dense", tmp_path)
    assert {**files_in(tmp_path), ".lock": b""} == {**before, ".lock": b""}
    assert fit_case("vae-dense", tmp_path, resume=False).finished


def test_a_run_begun_anew_and_killed_at_once_can_be_resumed(tmp_path: Path) -> None:
    """Weights of the older run must not look like those of a run whose state is lost."""
    fit_case("vae-dense", tmp_path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_case("vae-dense", tmp_path, resume=False, progress=killed)
    assert fit_case("vae-dense", tmp_path).finished


def test_missing_files_are_missing_and_not_broken(run: Path, capsys: Capture) -> None:
    (run / "weights.safetensors").unlink()
    line = refusal(capsys, "sample", str(run))
    assert "weights.safetensors: no such file; restore it from a copy, or run the same" in line
    assert main([*WORDS, "--out", str(run)]) == 0
    (run / "best.safetensors").unlink()
    line = refusal(capsys, *WORDS, "--out", str(run))
    assert "best.safetensors: no such file; restore it from a copy, or start from scratch" in line


# -- what other hands wrote --------------------------------------------------------------------


@pytest.mark.parametrize("name", [METRICS, TIMING])
@pytest.mark.parametrize(
    "line", [b"\xff\xfe garbage", b"[1]", b"{}", b'{"step": "x"}', b"null", b'{"step": 1, "a": []}']
)
def test_a_foreign_line_does_not_stop_a_resume(name: str, line: bytes, tmp_path: Path) -> None:
    fit_case("vae-dense", tmp_path / "whole")
    fit_case("vae-dense", tmp_path / "parts", progress=stop_at(4))
    path = tmp_path / "parts" / name
    path.write_bytes(line + b"\n" + path.read_bytes())
    with pytest.warns(UserWarning, match=rf"{name}, line 1: no record of a fit; left out"):
        fit_case("vae-dense", tmp_path / "parts")
    assert differing(end_of(tmp_path / "whole"), end_of(tmp_path / "parts")) == []


@pytest.mark.parametrize(
    ("record", "named"),
    [
        ([], "given a list"),
        ({"model": "nade"}, '"settings" is missing'),
        ({"spec": None}, "spec: expected an object"),
        ({"model": "nede"}, 'did you mean "nade"'),
        ({"settings": {"hidden": 10**9}}, "settings: hidden is 1000000000"),
        ({"settings": {"hiden": 2}}, "settings: .*hiden"),
        ({"data": {"name": "digits", "levls": 2}}, 'data: there is no option "levls".*"levels"'),
        ({"data": {"name": 3}}, "data: expected a name"),
    ],
)
def test_a_damaged_config_is_named_with_its_field(record: Any, named: str, run: Path) -> None:
    path = run / "config.json"
    whole = json.loads(path.read_text())
    both = isinstance(record, dict) and record != {"model": "nade"}
    path.write_text(json.dumps({**whole, **record} if both else record))
    with pytest.raises(CheckpointError, match=rf"config\.json.*{named}"):
        runs.load(run).datasets()


def test_another_model_on_the_same_images_is_only_another_model(run: Path, capsys: Capture) -> None:
    line = refusal(capsys, *["fvsbn" if word == "nade" else word for word in WORDS[:-2]],
                   "--out", str(run))  # fmt: skip
    assert "holds a run of nade on digits, not of fvsbn on digits; give another" in line


def test_nothing_is_announced_that_is_then_refused(run: Path, capsys: Capture) -> None:
    capsys.readouterr()
    assert main([*WORDS, "--learning-rate", "1", "--out", str(run)]) == 2
    assert "resuming" not in capsys.readouterr().err
    assert main([*WORDS, "--out", str(run)]) == 0
    assert "already fitted: nade on digits" in capsys.readouterr().err


# -- signals -----------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the system has no SIGHUP")
def test_a_hangup_saves_like_a_termination(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    try:
        hung_up(tmp_path)
    finally:
        signal.signal(signal.SIGHUP, before)


def hung_up(tmp_path: Path) -> None:
    fit_case("vae-dense", tmp_path / "whole")
    stopped = fit_case("vae-dense", tmp_path / "parts", progress=stop_at(4, signal.SIGHUP))
    assert (stopped.step, stopped.finished) == (4, False)
    assert "stopped by SIGHUP after 4 of 10 steps" in stopped.status
    assert exit_code(stopped.status) == 129
    fit_case("vae-dense", tmp_path / "parts")
    assert differing(end_of(tmp_path / "whole"), end_of(tmp_path / "parts")) == []
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the system has no SIGHUP")
def test_under_nohup_a_hangup_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert fit_case("vae-dense", None, progress=stop_at(4, signal.SIGHUP)).finished
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a terminal of its own")
def test_a_closed_terminal_saves_the_run(tmp_path: Path) -> None:
    """The bar cannot be drawn any more then; that must not come before the checkpoint."""
    import pty
    import time

    out = tmp_path / "run"
    words = [*WORDS, "--log-every", "1", "--out", str(out)]
    words[words.index("--steps") + 1] = "1000000"
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which tests under nohup ignore
        os.execv(sys.executable, [sys.executable, "-m", "likely", *words])
    until = time.monotonic() + 120
    records = out / METRICS
    os.set_blocking(terminal, False)
    while not (records.exists() and records.stat().st_size) and time.monotonic() < until:
        with contextlib.suppress(OSError):
            os.read(terminal, 1 << 16)
        time.sleep(0.05)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 129
    assert (out / "state.safetensors").exists()


# -- numbers -----------------------------------------------------------------------------------


def test_the_last_record_is_the_mean_of_what_is_left(tmp_path: Path) -> None:
    """Ten steps in intervals of four: four, four, and two."""
    each = fit_case("vae-dense", None, log_every=1).metrics
    found = fit_case("vae-dense", None, log_every=4).metrics
    intervals = [(record["step"], record) for record in found if "negative_elbo" in record]
    assert [step for step, _ in intervals] == [4, 8, 10]
    start = 0
    for step, record in intervals:
        part = each[start : int(step)]
        for name in ("negative_elbo", "gradient_norm_model"):
            mean = sum(one[name] for one in part) / len(part)
            assert record[name] == pytest.approx(mean, rel=1e-9)
        start = int(step)


def test_the_report_never_keeps_numbers_of_other_weights(run: Path) -> None:
    """Whether the run was trained further or its weights were put there by hand."""

    def evaluate(split: str) -> dict[str, Any]:
        assert main(["evaluate", str(run), "--split", split, "--no-sample-metrics"]) == 0
        report: dict[str, Any] = json.loads((run / "report.json").read_text())
        return report

    evaluate("validation")
    before = evaluate("test")
    assert set(before["evaluations"]) == {"validation", "test"}
    path = run / "weights.safetensors"
    tensors, about = read_tensors(path)
    checkpoint.write_tensors(path, {k: 1.01 * t for k, t in tensors.items()}, about)
    after = evaluate("test")
    assert set(after["evaluations"]) == {"test"}
    assert after["weights"] != before["weights"]
    old, new = (report["evaluations"]["test"]["estimates"] for report in (before, after))
    assert [estimate["quantity"] for estimate in new] == ["nll", "nll"]
    assert not {e["value"] for e in old} & {e["value"] for e in new}


@pytest.mark.parametrize("name", ["report.json", "proofs.json"])
def test_damaged_records_are_named_before_anything_is_measured(
    name: str, run: Path, capsys: Capture
) -> None:
    for text in ("[]", '{"evaluations": [], "proofs": 3}', "{", "\xff"):
        (run / name).write_text(text)
        line = refusal(capsys, "evaluate", str(run), "--no-sample-metrics")
        assert f"{name}: " in line
        assert "delete it" in line


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"resumed": 3}', '{"resumed": [[1]]}'])
@pytest.mark.parametrize("steps", ["6", "7"])
def test_a_damaged_environment_can_be_deleted_and_the_run_goes_on(
    text: str, steps: str, tmp_path: Path, capsys: Capture
) -> None:
    """Finished or prolonged; nothing of the run is touched before."""
    words = [*WORDS, "--schedule", "constant", "--warmup", "1", "--out", str(tmp_path)]
    assert main(words) == 0
    environment, before = tmp_path / "environment.json", (tmp_path / "fit.json").read_bytes()
    environment.write_text(text)
    words[words.index("6")] = steps
    line = refusal(capsys, *words)
    assert "environment.json: " in line
    assert "delete it: the run then resumes" in line
    assert (tmp_path / "fit.json").read_bytes() == before
    environment.unlink()
    assert main(words) == 0
    if steps == "7":
        (part,) = json.loads(environment.read_text())["resumed"]
        assert part["step"] == 6
        assert part["threads"] == torch.get_num_threads()


@pytest.mark.parametrize("words", [["evaluate", "--no-sample-metrics"], ["verify"]])
@pytest.mark.parametrize("as_json", [False, True])
def test_what_was_measured_is_told_where_it_cannot_be_kept(
    words: list[str], as_json: bool, run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> Any:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(atomic, "_created", refuse)
    before = files_in(run)
    capsys.readouterr()
    more = ["--json"] if as_json else []
    assert main([words[0], str(run), *words[1:], *more]) == 2
    told = capsys.readouterr()
    assert "measured, but not kept: cannot write" in told.err
    assert "Read-only file system" in told.err
    if as_json:
        assert json.loads(told.out)["run"] == str(run)
    else:
        assert "nats" in told.out or "proofs passed" in told.out
    assert files_in(run) == before


# -- objectives, data, environments of one's own -----------------------------------------------


class Plain(Objective):
    """An objective of one's own that is no dataclass."""

    def loss(self, step: Step) -> Loss:
        return Loss(-step.model.log_prob(step.x), {})


@dataclasses.dataclass(frozen=True)
class Returns(Plain):
    """An objective that returns what is no loss."""

    what: str = "tensor"

    def loss(self, step: Step) -> Any:
        loss = super().loss(step).value
        made = {
            "tensor": loss,
            "mean": Loss(loss.mean(), {}),
            "term": Loss(loss, {"a": loss.sum()}),
            "detached": Loss(loss.detach(), {}),
        }
        return made[self.what]


SETTINGS = FitSettings(steps=2, batch_size=8, warmup=0)


def test_an_objective_of_ones_own_is_a_dataclass_where_the_run_is_kept(tmp_path: Path) -> None:
    model = runs.build("nade", training_data().spec, {"hidden": 2})
    assert fit(model, training_data(), Plain(), SETTINGS).finished
    with pytest.raises(InvalidSetting, match=r"Plain is no dataclass .*frozen=True"):
        fit(model, training_data(), Plain(), SETTINGS, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("tensor", r"must return likely.training.objectives.Loss\(value, terms\), given Tensor"),
        ("mean", r"value must be a tensor of one number an example, \[8\], given \(\)"),
        ("term", r"a must be a tensor of one number an example"),
        ("detached", r"Returns.loss: value has no gradient"),
    ],
)
def test_an_objective_gives_a_number_an_example(what: str, said: str) -> None:
    model = runs.build("nade", training_data().spec, {"hidden": 2})
    with pytest.raises(InvalidSetting, match=said):
        fit(model, training_data(), Returns(what), SETTINGS)


@pytest.mark.parametrize("what", [Plain, "nll", object()])
def test_what_is_no_objective_is_refused(what: Any) -> None:
    model = runs.build("nade", training_data().spec, {"hidden": 2})
    with pytest.raises(
        InvalidSetting, match=r"expected an objective, as .*, given (the class Pl|'n|<)"
    ):
        fit(model, training_data(), what, SETTINGS)


@pytest.mark.parametrize(
    "options",
    [{"binarize": True}, {"levels": "2"}, {"levels": 2.0}, {"seed": None}, {"strict": "no"}],
)
def test_settings_of_data_are_of_their_type(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting, match=next(iter(options))):
        data.load("digits", **options)


def test_a_context_that_is_no_number_is_refused() -> None:
    model = model_of("pixelcnn")
    with pytest.raises(InvalidSetting, match=r'given "3"; the class "3" has the number 3'):
        model.sample(2, context="3")  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match="context: expected labels"):
        model.sample(2, context={"a": 1})  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match="n must be a number"):
        model.sample("2", context=1)  # type: ignore[arg-type]


def test_an_environment_needs_no_more_than_its_table() -> None:
    class Env:
        def __init__(self) -> None:
            self.P = {0: {0: [(1.0, 1, 2.0, True)]}, 1: {0: [(1.0, 1, 0.0, True)]}}

    assert MDP.from_gymnasium(Env(), 0.9).states == 2
    from likely.errors import InvalidData

    with pytest.raises(InvalidData, match="int has no transition table"):
        MDP.from_gymnasium(3, 0.9)
