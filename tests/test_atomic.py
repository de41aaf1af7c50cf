"""Files written whole or not at all: what a real SIGKILL leaves, and who removes it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import likely
from likely.errors import InvalidSetting
from likely.files import atomic
from likely.mdp import grid, solve
from likely.mdp.model.problem import write_npz

# Each writes to the folder given, and stops for ever in the middle of a file.
KILLED = {
    "a checkpoint of a solve": """
import numpy as np
from likely.mdp import grid, solve
def torn(stream, **arrays):
    stream.write(b"half"); stream.flush(); stop()
np.savez = torn
solve(grid(9, 9, goals=[80], discount=0.99).stored(), checkpoint=folder / "solve.npz",
      checkpoint_seconds=0.0)
""",
    "a picture": """
from likely.files import figures
def torn(path):
    path.write_bytes(b"half"); stop()
figures.write_atomically(folder / "picture.png", torn)
""",
    "a file of a run": """
from likely import files
with files.replacing(folder / "report.json") as path:
    path.write_bytes(b"half"); stop()
""",
}
PREFIX = """
import sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def stop():
    print("writing", flush=True)
    time.sleep(600)
"""


def writer(code: str, folder: Path) -> subprocess.Popen[bytes]:
    """A process that is in the middle of a file."""
    process = subprocess.Popen(
        [sys.executable, "-c", PREFIX + code, folder], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.parametrize("what", KILLED)
def test_what_a_killed_writer_left_goes_with_the_next_write(what: str, tmp_path: Path) -> None:
    process = writer(KILLED[what], tmp_path)
    try:
        write_npz(tmp_path / "other.npz", {"a": np.zeros(1)})
        names = {path.name for path in tmp_path.iterdir()} - {"other.npz"}
        assert len(names) == 1, "the file of a live writer stays"
    finally:
        end(process)
    assert names <= {path.name for path in tmp_path.iterdir()}
    write_npz(tmp_path / "other.npz", {"a": np.zeros(1)})
    assert [path.name for path in tmp_path.iterdir()] == ["other.npz"]


def test_a_killed_solve_resumes_and_leaves_its_checkpoint_alone(tmp_path: Path) -> None:
    end(writer(KILLED["a checkpoint of a solve"], tmp_path))
    lake = grid(9, 9, goals=[80], discount=0.99).stored()
    assert solve(lake, checkpoint=tmp_path / "solve.npz").converged
    assert [path.name for path in tmp_path.iterdir()] == ["solve.npz"]


def test_files_of_others_stay(tmp_path: Path) -> None:
    kept = [".hidden.tmp", "thesis.partial", ".vim.swp"]
    for name in kept:
        (tmp_path / name).write_text("mine")
    with atomic.replacing(tmp_path / "new") as temporary:
        temporary.write_text("new")
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "new"}


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def interrupted() -> None:
        with atomic.replacing(path) as temporary:
            temporary.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InvalidSetting, match="does not exist"):
        write_npz(tmp_path / "missing" / "file.npz", {})


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic.replacing(path) as first, atomic.replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask()


def mask() -> int:
    """The mask of new files."""
    value = os.umask(0)
    os.umask(value)
    return value


def test_temporary_files_are_made_in_one_place() -> None:
    """Whoever makes one elsewhere must also say who removes it after a kill."""
    root = Path(likely.__file__).parent
    makers = re.compile(r"mkstemp|NamedTemporaryFile|\.part\"|\.partial\"|\.tmp\"")
    places = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if makers.search(path.read_text(encoding="utf-8"))
    }
    # A download that broke off goes on from its `.part`; a run directory is swept when it is held.
    assert places == {"data/download.py", "files/atomic.py", "runs/checkpoint.py"}
