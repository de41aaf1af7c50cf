"""What a file may ask for is bounded by what it holds; what cannot be written is one line."""

from __future__ import annotations

import errno
import io
import os
import struct
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from likely import data, files
from likely.cli import main
from likely.cli.mdp import inputs
from likely.errors import InvalidData
from likely.files import CheckpointError, TooLarge
from likely.mdp import MDP, solve, worlds
from likely.mdp.files.loading import load

HUGE = "300000000"
PREAMBLE = "discount: 0.9\nvalues: reward\nactions: 2\n"


def npy(shape: tuple[int, ...], kind: str = "<f8", content: bytes = b"") -> bytes:
    """An .npy whose header announces this."""
    stream = io.BytesIO()
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + content


def archive(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(f"{name}.npy", content)


def world(name: str, text: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        (folder / name).write_text(text)
        return load(folder / name, **({"target": "x"} if name.endswith(".tra") else {}))

    return read


def terabytes(folder: Path) -> object:
    archive(folder / "m.npz", header=npy((10**12,)))
    return MDP.load(folder / "m.npz")


def solution(folder: Path) -> object:
    archive(folder / "s.npz", value=npy((10**12,)))
    return inputs.arrays_of(folder / "s.npz")


def solve_checkpoint(folder: Path) -> object:
    archive(folder / "c.npz", header=npy((10**12,)))
    return solve(worlds.build("inventory").mdp, checkpoint=folder / "c.npz")


def images(folder: Path) -> object:
    archive(folder / "x.npz", images=npy((10**12, 3), "|u1"))
    return data.load(folder / "x.npz")


def expanding(read: Callable[[Path], object], name: str, key: str) -> Callable[[Path], object]:
    def bomb(folder: Path) -> object:
        size = 40 << 20
        archive(folder / name, **{key: npy((size // 8,), "<f8", bytes(size))})
        return read(folder / name)

    return bomb


@pytest.mark.parametrize(
    "read",
    [
        world("m.tra", f"{HUGE} 1\n0 0 1\n"),
        world("m.tra", f"0 0 {HUGE} 1\n"),
        world("m.pomdp", f"{PREAMBLE}states: {HUGE}\nT: * identity\n"),
        world("m.pomdp", f"{PREAMBLE}states: 4000\nT: * uniform\n"),
        world("m.pomdp", f"{PREAMBLE}states: 4000\nT: * : * : * 0.00025\n"),
        world("m.pomdp", f"{PREAMBLE}states: 90\nobservations: 99999999\nT: * identity\nO: 0\n"),
        world("m.txt", "S\n" + "\n" * 30_000 + "x" * 30_000 + "\nG"),
        terabytes,
        solution,
        solve_checkpoint,
        images,
        expanding(MDP.load, "m.npz", "header"),
        expanding(inputs.arrays_of, "s.npz", "value"),
        expanding(data.load, "x.npz", "images"),
    ],
)
def test_a_small_file_takes_little_memory_whatever_it_announces(
    read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One limit, one error: here 16 MiB and a hundred times the file."""
    monkeypatch.setattr(files, "ALWAYS", 16 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge) as caught:
            read(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100 << 20
    assert str(tmp_path) in str(caught.value)


def test_a_number_of_a_grid_is_no_way_to_fill_the_memory(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"line 1: expected a number or a fraction"):
        world("g.txt", "step: 1e999999999\n\nS.G")(tmp_path)


def test_the_limit_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ALWAYS", 1 << 10)
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((2000, 8, 8), np.uint8))
    with pytest.raises(TooLarge, match=r"allow more by LIKELY_FILE_LIMIT=1G"):
        data.load(tmp_path / "x.npz")
    monkeypatch.setenv("LIKELY_FILE_LIMIT", "1G")
    assert len(data.load(tmp_path / "x.npz")[1]) > 0
    monkeypatch.setenv("LIKELY_FILE_LIMIT", "much")
    with pytest.raises(InvalidData, match=r'LIKELY_FILE_LIMIT="much"'):
        data.load(tmp_path / "x.npz")


def test_an_archive_whose_directory_lies_is_refused(tmp_path: Path) -> None:
    archive(tmp_path / "m.npz", header=npy((4,), "|u1", b"1234"))
    content = bytearray((tmp_path / "m.npz").read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 20 : at + 28] = struct.pack("<II", 1 << 30, 1 << 31)
    (tmp_path / "m.npz").write_bytes(content)
    with pytest.raises(TooLarge, match=r"m\.npz: header\.npy announces 1073741824 bytes in a file"):
        MDP.load(tmp_path / "m.npz")


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("m.lab", '0="init" 1="café"\n0: 0\n'.encode("latin-1"), "line 1: is not a text file"),
        ("m.rew", b"0 0 1\n0\n", "line 2: expected 2 to 5 columns, given 1"),
        ("m.rew", b"\xff\n", "line 1: is not a text file"),
        ("m.lab", b'0="init"\n:\n', "line 2: expected a state"),
    ],
)
def test_files_beside_a_model_are_named_with_the_line(
    name: str, content: bytes, line: str, tmp_path: Path
) -> None:
    (tmp_path / "m.tra").write_text("1 1 1\n0 0 0 1\n")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidData, match=rf"{name}, {line}"):
        load(tmp_path / "m.tra")


def test_a_number_that_is_none_is_named_with_its_line() -> None:
    from likely.mdp.files.cassandra import parse_cassandra

    with pytest.raises(InvalidData, match=r'line 5: expected a probability .* given "0\.-5"'):
        parse_cassandra(f"{PREAMBLE}states: 2\nstart: 0.-5 0.5\nT: * identity\n")


def test_states_are_not_redefined_under_their_table() -> None:
    from likely.mdp.files.cassandra import parse_cassandra

    with pytest.raises(InvalidData, match=r'"states:" must come before the first statement'):
        parse_cassandra(f"{PREAMBLE}states: 2\nT: * identity\nstates: 9\n")


# -- writing -----------------------------------------------------------------------------------


def refusing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Every new file is refused, as on a read-only or a full disk (root ignores permissions)."""
    system = os.open

    def refuse(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & (os.O_CREAT | getattr(os, "O_TMPFILE", 0)) and flags & os.O_RDWR:
            raise OSError(number, os.strerror(number))
        return system(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)


@pytest.mark.parametrize("kind", [".npz", ".json"])
def test_a_target_that_cannot_be_written_is_refused_before_the_solve(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refusing(monkeypatch, errno.EROFS)
    assert main(["mdp", "solve", "small-gridworld", "--out", str(tmp_path / f"s{kind}")]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert f"cannot write {tmp_path / f's{kind}'}: Read-only file system" in told.err
    assert told.err.count("\n") == 1


@pytest.mark.parametrize("kind", [".npz", ".json", ".png"])
def test_what_was_solved_is_told_before_a_full_disk_loses_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refusing(monkeypatch, errno.ENOSPC)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: io.BytesIO())
    option = "--plot" if kind == ".png" else "--out"
    assert main(["mdp", "solve", "small-gridworld", option, str(tmp_path / f"s{kind}")]) == 2
    told = capsys.readouterr()
    assert "converged" in told.out
    assert "No space left on device" in told.err
    assert "Traceback" not in told.err
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_costs_the_checkpoint_and_not_the_solve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, errno.ENOSPC)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: io.BytesIO())
    with pytest.warns(
        UserWarning, match=r"cannot write .*c\.npz: No space left.*the solve continues"
    ):
        found = solve(worlds.build("inventory").mdp, checkpoint=tmp_path / "c.npz")
    assert found.converged


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="it is a folder"):
        files.refuse_unwritable(tmp_path)
