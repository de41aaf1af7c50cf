"""What each process of `torchrun` runs in the tests of data parallel fits.

    torchrun --nproc-per-node 2 tests/team_fit.py OUT CASE ...

Fits every case into OUT/CASE; then stops a fit by a signal to the last process only; then
cannot write in the first process. With the one case "fail" it fails in the last process alone.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path

import torch

from fit_cases import fit_case
from likely.devices import Team
from likely.errors import LikelyError
from likely.training.run import Run


def last(run: Run, record: dict[str, float]) -> bool:
    return run.step == 4 and os.environ["RANK"] == "1"


def stop(run: Run, record: dict[str, float]) -> None:
    if last(run, record):
        signal.raise_signal(signal.SIGTERM)


def fail(run: Run, record: dict[str, float]) -> None:
    if last(run, record):
        raise RuntimeError("this process alone fails")


def main(out: Path, cases: list[str]) -> None:
    warnings.simplefilter("ignore")
    rank = os.environ["RANK"]
    Team.join(torch.device("cpu"))
    (out / f"joined-{rank}").write_text("")
    if cases == ["fail"]:
        # In processes of its own: a team that a failure closed is not formed again.
        return fail_alone(out, rank)
    for case in cases:
        fit_case(case, out / case)
    run = fit_case("vae-dense", out / "signal", progress=stop)
    (out / f"signal-{rank}").write_text(f"{run.step} {run.status}")
    try:
        fit_case("vae-dense", out / "file" / "run")
    except LikelyError as error:
        (out / f"disk-{rank}").write_text(f"{type(error).__name__}: {error}")
    return None


def fail_alone(out: Path, rank: str) -> None:
    try:
        fit_case("vae-dense", out / "fail", progress=fail)
    except (RuntimeError, LikelyError) as error:
        (out / f"fail-{rank}").write_text(f"{type(error).__name__}: {error}")
        raise


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
