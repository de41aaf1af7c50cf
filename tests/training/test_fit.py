"""The fit loop: resumes where it was stopped, loses nothing, and refuses what does not fit."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from fit_cases import (
    SETTINGS,
    differing,
    end_of,
    files_in,
    fit_case,
    model_of,
    stop_at,
    training_data,
)
from likely import runs
from likely.errors import Diverged, InvalidSetting
from likely.runs.checkpoint import CheckpointError, Occupied, read_tensors, write_tensors
from likely.training.loop import fit
from likely.training.objectives import Loss, NegativeELBO, Objective, Step
from likely.training.optimizers import AveragedWeights
from likely.training.run import Run

# -- stopping and resuming -------------------------------------------------------------------


@pytest.mark.parametrize("case", ["pixelcnn", "vae", "vae-dense", "dcgan", "dcgan-r1"])
@pytest.mark.parametrize(("step", "precision"), [(4, "float32"), (6, "float32"), (4, "bfloat16")])
def test_ten_steps_are_so_many_and_the_rest(
    case: str, step: int, precision: str, tmp_path: Path
) -> None:
    fit_case(case, tmp_path / "whole", precision=precision)
    stopped = fit_case(case, tmp_path / "parts", progress=stop_at(step), precision=precision)
    assert (stopped.step, stopped.finished) == (step, False)
    resumed = fit_case(case, tmp_path / "parts", precision=precision)
    assert resumed.finished
    assert differing(end_of(tmp_path / "whole"), end_of(tmp_path / "parts")) == []
    assert [r["step"] for r in resumed.metrics] == [2, 4, 6, 8, 10]


def test_a_run_stopped_between_two_records_keeps_its_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Terms summed since the last record are part of the state."""
    fit_case("vae-dense", tmp_path / "whole", log_every=4)
    update = AveragedWeights.update

    def stop_at_six(self: AveragedWeights, step: int) -> None:
        update(self, step)
        if step == 6:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(AveragedWeights, "update", stop_at_six)
        assert fit_case("vae-dense", tmp_path / "parts", log_every=4).step == 6
    fit_case("vae-dense", tmp_path / "parts", log_every=4)
    assert differing(end_of(tmp_path / "whole"), end_of(tmp_path / "parts")) == []


def test_a_stop_says_so_and_another_seed_ends_elsewhere(tmp_path: Path) -> None:
    run = fit_case("vae-dense", tmp_path / "a", progress=stop_at(2, signal.SIGINT))
    assert "stopped by SIGINT after 2 of 10 steps" in run.status
    assert str(tmp_path / "a") in run.status
    fit_case("vae-dense", tmp_path / "a")
    fit_case("vae-dense", tmp_path / "b", seed=1)
    assert "model.output_bias" in differing(end_of(tmp_path / "a"), end_of(tmp_path / "b"))


def test_signals_are_handled_only_during_the_fit() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    assert before[0] is not signal.SIG_DFL  # Python's: it raises KeyboardInterrupt
    fit_case("vae-dense", None, steps=2)
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    def twice(run: Run, record: dict[str, float]) -> None:
        if run.step == 6:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit_case("vae-dense", tmp_path / "a", progress=twice, checkpoint_seconds=0.0)
    assert fit_case("vae-dense", tmp_path / "a").finished
    fit_case("vae-dense", tmp_path / "b")
    assert differing(end_of(tmp_path / "a"), end_of(tmp_path / "b")) == []


def test_only_an_interrupt_after_an_interrupt_does_not_wait(tmp_path: Path) -> None:
    """A supervisor may send SIGTERM again and again; the checkpoint is written all the same."""

    def again(run: Run, record: dict[str, float]) -> None:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)

    run = fit_case("vae-dense", tmp_path, progress=again)
    assert "stopped by SIGINT after 2 of 10 steps" in run.status
    assert read_tensors(tmp_path / "state.safetensors")[1]["step"] == "2"


def test_a_fit_in_a_thread_runs_without_signals() -> None:
    runs_done: list[Run] = []
    thread = threading.Thread(target=lambda: runs_done.append(fit_case("vae-dense", None, steps=2)))
    thread.start()
    thread.join()
    assert runs_done[0].finished


class _Killed(BaseException):
    """Ends a fit at a point where no handler of ours may run on."""


def test_a_run_killed_at_any_file_operation_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill before and after each flush and each rename, and at each temporary file."""
    settings = {"steps": 3, "checkpoint_seconds": 0.0, "log_every": 1, "validate_every": 2}
    fit_case("vae-dense", tmp_path / "whole", **settings)
    whole = end_of(tmp_path / "whole")
    calls = {"left": 10**9, "seen": 0}
    flush, rename = os.fsync, Path.replace

    def counted() -> None:
        calls["seen"] += 1
        calls["left"] -= 1
        if calls["left"] < 0:
            raise _Killed

    def fsync(handle: int) -> None:
        counted()
        flush(handle)

    def replace(self: Path, target: Path) -> Path:
        counted()
        done = rename(self, target)
        counted()
        return done

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    fit_case("vae-dense", tmp_path / "counted", **settings)
    total = calls["seen"]
    assert total > 30
    for moment in range(0, total, 4):
        calls["left"] = moment
        with pytest.raises(_Killed):
            fit_case("vae-dense", tmp_path / str(moment), **settings)
        calls["left"] = 10**9
        fit_case("vae-dense", tmp_path / str(moment), **settings)
        assert differing(whole, end_of(tmp_path / str(moment))) == [], moment


def test_a_finished_run_is_not_fitted_again(tmp_path: Path) -> None:
    fit_case("vae-dense", tmp_path)
    before = files_in(tmp_path)
    run = fit_case("vae-dense", tmp_path)
    assert run.finished
    assert run.step == 10
    assert differing(before, files_in(tmp_path)) in ([], [".lock"])


def test_starting_anew_drops_the_older_run(tmp_path: Path) -> None:
    fit_case("vae-dense", tmp_path, progress=stop_at(6))
    fit_case("vae-dense", tmp_path, seed=3, resume=False)
    fit_case("vae-dense", tmp_path / "b", seed=3)
    assert differing(end_of(tmp_path), end_of(tmp_path / "b")) == []


def test_an_older_state_is_never_taken_for_the_run_begun_over_it(tmp_path: Path) -> None:
    """Killed right after it started over: no state of the older settings is left to resume."""

    def killed(run: Run, record: dict[str, float]) -> None:
        raise _Killed

    fit_case("vae-dense", tmp_path, progress=stop_at(6))
    with pytest.raises(_Killed):
        fit_case("vae-dense", tmp_path, seed=3, resume=False, progress=killed)
    fit_case("vae-dense", tmp_path, seed=3)
    fit_case("vae-dense", tmp_path / "b", seed=3)
    assert differing(end_of(tmp_path), end_of(tmp_path / "b")) == []


def test_a_state_without_its_settings_is_compared_with_fit_json(tmp_path: Path) -> None:
    fit_case("vae-dense", tmp_path, progress=stop_at(6))
    tensors, about = read_tensors(tmp_path / "state.safetensors")
    del about["about"]
    write_tensors(tmp_path / "state.safetensors", tensors, about)
    with pytest.raises(InvalidSetting, match=r"ema 0\.9 -> 0\.5"):
        fit_case("vae-dense", tmp_path, ema=0.5)
    assert fit_case("vae-dense", tmp_path).finished


# -- nothing is lost -------------------------------------------------------------------------


def test_a_full_disk_is_one_error_and_the_run_goes_on(tmp_path: Path) -> None:
    fit_case("vae-dense", tmp_path / "whole")
    fit_case("vae-dense", tmp_path / "run", progress=stop_at(4))
    before = files_in(tmp_path / "run")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(CheckpointError, match="what was there before is kept"):
            fit_case("vae-dense", tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    after = files_in(tmp_path / "run")
    assert after["state.safetensors"] == before["state.safetensors"]
    assert after["weights.safetensors"] == before["weights.safetensors"]
    assert [name for name in after if name.endswith(".tmp")] == []
    fit_case("vae-dense", tmp_path / "run")
    assert differing(end_of(tmp_path / "whole"), end_of(tmp_path / "run")) == []


def test_a_directory_that_cannot_be_written_stops_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    seen: list[int] = []
    with pytest.raises(CheckpointError, match=r"cannot write to .*file/run.*can be written"):
        fit_case("vae-dense", tmp_path / "file" / "run", progress=lambda r, _: seen.append(r.step))
    assert seen == []
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_directory_keeps_what_is_in_it(tmp_path: Path) -> None:
    fit_case("vae-dense", tmp_path, progress=stop_at(4))
    before = files_in(tmp_path)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CheckpointError):
            fit_case("vae-dense", tmp_path)
    finally:
        tmp_path.chmod(0o700)
    assert differing(before, files_in(tmp_path)) in ([], [".lock"])


def test_two_fits_do_not_share_a_directory(tmp_path: Path) -> None:
    refused: list[str] = []

    def second(run: Run, record: dict[str, float]) -> None:
        with pytest.raises(Occupied) as error:
            fit_case("vae-dense", tmp_path / "a")
        refused.append(str(error.value))

    run = fit_case("vae-dense", tmp_path / "a", progress=second)
    assert run.finished
    assert len(refused) == 5
    assert f"process {os.getpid()}" in refused[0]
    fit_case("vae-dense", tmp_path / "b")
    assert differing(end_of(tmp_path / "a"), end_of(tmp_path / "b")) == []


# -- divergence ------------------------------------------------------------------------------


def test_a_non_finite_loss_stops_with_step_batch_and_remedy(tmp_path: Path) -> None:
    changes = {"learning_rate": 1e18, "warmup": 0, "clip": 0.0, "checkpoint_seconds": 0.0}
    with pytest.raises(Diverged, match=r"not finite at step \d+ \(examples \d+, ") as error:
        fit_case("vae-dense", tmp_path, **changes)
    for part in (str(tmp_path), "learning_rate than 1e+18", "clip=1"):
        assert part in str(error.value)


@dataclasses.dataclass(frozen=True)
class _Poisoned(Objective):
    """The ELBO until step `bad`, then a finite loss with a gradient that is not."""

    bad: int

    def loss(self, step: Step) -> Loss:
        loss = NegativeELBO().loss(step)
        if step.number < self.bad:
            return loss
        zero = next(step.model.parameters()).sum() * 0.0
        return Loss(loss.value + zero.abs().sqrt(), loss.terms)


def test_a_finite_loss_with_a_non_finite_gradient_moves_nothing() -> None:
    model = model_of("vae-dense")
    objective = _Poisoned(6)
    with pytest.raises(Diverged, match="gradient of model is not finite at step 6"):
        fit(model, training_data(), objective, SETTINGS)
    assert all(bool(p.isfinite().all()) and p.requires_grad for p in model.parameters())


def test_the_last_good_checkpoint_outlives_a_divergence(tmp_path: Path) -> None:
    objective = _Poisoned(6)
    settings = dataclasses.replace(SETTINGS, checkpoint_seconds=0.0)
    model = model_of("vae-dense")
    with pytest.raises(Diverged, match="kept in"):
        fit(model, training_data(), objective, settings, out=tmp_path)
    tensors, about = read_tensors(tmp_path / "state.safetensors")
    assert about["step"] == "6"
    assert all(bool(t.isfinite().all()) for t in tensors.values())
    assert runs.load(tmp_path).name == "vae"


# -- what does not belong together -----------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 0.5, "clip": 2.0}, r"learning_rate 0\.002 -> 0\.5; clip 1\.0 -> 2\.0"),
        ({"batch_size": 8}, "batch_size"),
        ({"steps": 20}, "steps 10 -> 20.*cosine schedule .*from step 5 on"),
        ({"steps": 5}, "has done 6 steps, more than 5"),
        ({"precision": "bfloat16"}, "precision"),
    ],
)
def test_other_settings_are_refused(changes: dict[str, object], named: str, tmp_path: Path) -> None:
    fit_case("vae-dense", tmp_path, progress=stop_at(6))
    before = files_in(tmp_path)
    with pytest.raises(InvalidSetting, match=named):
        fit_case("vae-dense", tmp_path, **changes)
    assert differing(before, files_in(tmp_path)) in ([], [".lock"])


def test_another_model_data_or_objective_is_refused(tmp_path: Path) -> None:
    train = training_data()
    fit_case("vae-dense", tmp_path, progress=stop_at(4))
    before = files_in(tmp_path)
    wider = runs.build("vae", train.spec, {"latent": 3, "network": "dense", "hidden": 9}, 0)
    fewer = train.take(slice(0, 500))
    tries = [
        ("hidden 8 -> 9", wider, train, None),
        ("holds a run of vae on .*, not of gated-pixelcnn", model_of("pixelcnn"), train, None),
        (r"objective beta 1\.0 -> 2\.0", model_of("vae-dense"), train, NegativeELBO(beta=2.0)),
        ("the same name, other images", model_of("vae-dense"), fewer, None),
    ]
    for message, model, data, objective in tries:
        weights = [p.detach().clone() for p in model.parameters()]
        with pytest.raises(InvalidSetting, match=message):
            fit(model, data, objective, SETTINGS, out=tmp_path)
        assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert differing(before, files_in(tmp_path)) in ([], [".lock"])


def test_settings_that_change_nothing_may_differ(tmp_path: Path) -> None:
    fit_case("vae-dense", tmp_path, progress=stop_at(4))
    run = fit_case("vae-dense", tmp_path, checkpoint_seconds=5.0, device="cpu")
    assert run.finished


def test_a_broken_state_is_named(tmp_path: Path) -> None:
    fit_case("vae-dense", tmp_path, progress=stop_at(4))
    state = tmp_path / "state.safetensors"
    whole = state.read_bytes()
    tensors, about = read_tensors(state)
    for broken in (whole[: len(whole) // 2], b"", b"\xff" * 100):
        state.write_bytes(broken)
        with pytest.raises(CheckpointError, match=r"state.safetensors.*start from scratch"):
            fit_case("vae-dense", tmp_path)
        assert state.read_bytes() == broken
    less = {name: t for name, t in tensors.items() if name != "model.output_bias"}
    write_tensors(state, less, about)
    with pytest.raises(CheckpointError, match=r"no state of a fit.*output_bias"):
        fit_case("vae-dense", tmp_path)
    write_tensors(state, tensors, {k: v for k, v in about.items() if k != "step"})
    with pytest.raises(CheckpointError, match="no state of a fit"):
        fit_case("vae-dense", tmp_path)


def test_batches_that_do_not_divide_or_exceed_the_data_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="fewer than batch_size=2000"):
        fit_case("vae-dense", None, batch_size=2000)
    with pytest.raises(InvalidSetting, match="does not divide"):
        fit_case("vae-dense", None, batch_size=16, micro_batches=3)


def test_fit_json_says_what_was_fitted(tmp_path: Path) -> None:
    fit_case("dcgan-r1", tmp_path, steps=2)
    record = json.loads((tmp_path / "fit.json").read_text())
    assert record["fit"]["steps"] == 2
    assert record["objective"]["name"] == "NonSaturatingGAN"
    assert record["objective"]["penalty"] == 1.0
    assert record["training_fingerprint"] == training_data().spec.fingerprint
    assert record["model"]["channels"] == 4


def test_processes_killed_at_random_moments_end_the_same(tmp_path: Path) -> None:
    """The small version of bench/kills.py: real signals to a real process."""
    result = tmp_path / "result.json"
    script = Path(__file__).parents[2] / "bench" / "kills.py"
    command = [sys.executable, str(script), "--kills", "2", "--seed", "1", "--out", str(result)]
    subprocess.run(command, check=True, timeout=300, stdout=subprocess.DEVNULL)
    figures = json.loads(result.read_text())["figures"]
    assert figures == {"resume/kills/identical": 2.0, "resume/kills/n": 2.0}
