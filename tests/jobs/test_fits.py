"""Fits side by side: each ends where it would have ended alone, and none outlives its command."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from likely import runs
from likely.data import load
from likely.errors import InvalidSetting, LikelyError
from likely.jobs import fits as job
from likely.jobs.fits import FitStopped, Order, SideBySide, room_for
from likely.runs.checkpoint import Occupied, read_strings, read_tensors, sole_writer
from likely.training.loop import fit

DIGITS = {"name": "digits"}
THREADS = torch.get_num_threads()


def order(name: str, folder: Path, steps: int, **settings: object) -> Order:
    return Order(name, DIGITS, str(folder / name), {"steps": steps, **settings})


def test_fits_side_by_side_end_where_they_end_alone(tmp_path: Path) -> None:
    names, told = ("vae", "dcgan"), set[str]()
    orders = [order(name, tmp_path, 12, seed=3) for name in names]
    with SideBySide(orders, 2, THREADS, lambda name, step, steps: told.add(name)) as fits:
        assert {done.name for done in fits} == set(names) == told
    train, _ = load("digits")
    for name in names:
        alone = fit(runs.build(name, train.spec, seed=3), train, steps=12, seed=3).model
        weights, _ = read_tensors(tmp_path / name / "weights.safetensors")
        for key, value in alone.state_dict().items():
            assert torch.equal(weights[key], value), f"{name}: {key}"


def test_every_error_comes_through_as_its_text() -> None:
    """A fit in a process of its own tells the name of its error and the text."""
    kinds = job._kinds(LikelyError)
    assert len(kinds) > 10
    for name, kind in kinds.items():
        assert str(kind("the text")) == "the text", name


def test_there_is_room_for_one_at_a_time_and_a_refusal_comes_through(
    tmp_path: Path,
) -> None:
    finished: list[str] = []

    def progress(name: str, step: float, steps: float) -> None:
        assert name == ("vae" if not finished else "fvsbn")

    orders = [order("vae", tmp_path, 2), order("fvsbn", tmp_path, 2)]
    with SideBySide(orders, 1, 1, progress) as fits:
        for done in fits:
            finished.append(done.name)
    assert finished == ["vae", "fvsbn"]
    assert room_for(3, "cpu")[0] <= 3
    assert min(room_for(3, "cpu")) >= 1
    with (
        pytest.raises(InvalidSetting, match="cannot be prolonged"),
        SideBySide([order("vae", tmp_path, 3)], 1, 1, lambda *_: None) as fits,
    ):
        list(fits)


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGTERM, FitStopped), (signal.SIGKILL, LikelyError)]
)
def test_a_fit_that_somebody_ends_is_told(
    number: signal.Signals, kind: type[Exception], tmp_path: Path
) -> None:
    with SideBySide([order("vae", tmp_path, 10_000)], 1, 1, lambda *_: None) as fits:
        ((_, process),) = fits._running.values()
        path = tmp_path / "vae" / "metrics.jsonl"
        wait_for(lambda: path.exists() and path.stat().st_size > 0)
        process.send_signal(number)
        with pytest.raises(kind, match="run the same command again"):
            list(fits)


def test_a_fit_ends_with_a_command_that_is_killed(tmp_path: Path) -> None:
    """Its state is saved, its lock is free, and it is not finished."""
    script = (
        "from likely.jobs.fits import Order, SideBySide\n"
        f"o = Order('vae', {DIGITS}, {str(tmp_path / 'vae')!r}, {{'steps': 10_000}})\n"
        "with SideBySide([o], 1, 1, lambda *a: print(*a, flush=True)) as fits: list(fits)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline()
    parent.kill()
    parent.wait()
    state = tmp_path / "vae" / "state.safetensors"
    wait_for(state.exists)

    def free() -> bool:
        try:
            with sole_writer(tmp_path / "vae"):
                return True
        except Occupied:
            return False

    wait_for(free)
    assert 10 <= int(read_strings(state, "")["step"]) < 10_000


def wait_for(what: object) -> None:
    assert callable(what)
    until = time.monotonic() + 60.0
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)
