"""Files that are whole or not there; a lock that a dead process cannot hold."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from likely.runs import checkpoint
from likely.runs.checkpoint import CheckpointError, Occupied
from likely.runs.journal import Journal, read_lines


def test_tensors_come_back_bit_for_bit_in_any_memory_order(tmp_path: Path) -> None:
    noise = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    tensors = {
        "plain": noise,
        "last": noise.to(memory_format=torch.channels_last),
        "turned": noise.transpose(0, 3),
        "count": torch.tensor(7),
        "odd": torch.tensor([float("nan"), float("inf"), -0.0]),
    }
    checkpoint.write_tensors(tmp_path / "a", tensors, {"b": "2", "a": "ünï\"cödé'"})
    found, about = checkpoint.read_tensors(tmp_path / "a")
    assert about == {"a": "ünï\"cödé'", "b": "2"}
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        bits = torch.int64 if tensor.dtype == torch.int64 else torch.int32
        assert torch.equal(found[name].view(bits), tensor.contiguous().view(bits))


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    about = {f"key{i}": str(i) for i in range(20)}
    for name in "ab":
        checkpoint.write_tensors(tmp_path / name, {"x": torch.arange(3)}, about)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_tensors_do_not_depend_on_the_file_after_reading(tmp_path: Path) -> None:
    checkpoint.write_tensors(tmp_path / "a", {"x": torch.arange(10_000)}, {})
    tensors, _ = checkpoint.read_tensors(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"")
    assert torch.equal(tensors["x"], torch.arange(10_000))


@pytest.mark.parametrize("call", ["write_bytes", "fsync", "replace"])
def test_no_space_at_any_point_keeps_what_was_there(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    checkpoint.write_bytes(path, b"before")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os if call == "fsync" else Path, call, full)
    with pytest.raises(CheckpointError, match=r"cannot write .*file: No space left.*kept"):
        checkpoint.write_bytes(path, b"after")
    monkeypatch.undo()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read .*absent"):
        checkpoint.read_tensors(tmp_path / "absent")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"cannot read .*broken\.json"):
        checkpoint.read_json(tmp_path / "broken.json")
    with pytest.raises(ValueError, match="not JSON compliant"):
        checkpoint.write_json(tmp_path / "nan.json", {"x": float("nan")})
    assert not (tmp_path / "nan.json").exists()


def test_groups_are_flattened_and_back() -> None:
    groups = {"model": {"a.b": torch.ones(1), "c": torch.zeros(1)}, "sums": {"x": torch.ones(2)}}
    back = checkpoint.unflatten(checkpoint.flatten(groups))
    assert {g: set(named) for g, named in back.items()} == {"model": {"a.b", "c"}, "sums": {"x"}}


def test_a_lock_keeps_others_out_and_ends_with_the_block(tmp_path: Path) -> None:
    with (
        checkpoint.sole_writer(tmp_path),
        pytest.raises(Occupied, match=f"process {os.getpid()}"),
        checkpoint.sole_writer(tmp_path),
    ):
        pass
    with checkpoint.sole_writer(tmp_path):
        pass


def test_a_killed_process_holds_no_lock_and_leaves_no_rubbish(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with checkpoint.sole_writer(tmp_path):
            (tmp_path / ".state.safetensors.1.tmp").write_text("half")
            os.write(writing, b"held")
            signal.pause()
        os._exit(0)
    try:
        assert os.read(reading, 4) == b"held"
        with pytest.raises(Occupied, match=f"process {child}"), checkpoint.sole_writer(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
    with checkpoint.sole_writer(tmp_path):
        assert list(tmp_path.glob(".*.tmp")) == []


def test_a_journal_drops_what_will_be_done_again_and_torn_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path, writes=True, tensorboard=False)
    journal.start()
    for step in (1.0, 2.0, 3.0):
        journal.write({"step": step, "loss": 1.0 / step}, 0.5)
    lines = (tmp_path / "metrics.jsonl").read_bytes()
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 2.0, "lo')
    again = Journal(tmp_path, writes=True, tensorboard=False)
    again.resume(2)
    assert [record["step"] for record in again.records] == [1.0, 2.0]
    again.write({"step": 3.0, "loss": 1.0 / 3.0}, 0.7)
    assert (tmp_path / "metrics.jsonl").read_bytes() == lines
    assert read_lines(tmp_path / "timing.jsonl", 9)[-1] == {"step": 3, "seconds": 0.7}


def test_a_journal_that_does_not_write_only_remembers(tmp_path: Path) -> None:
    journal = Journal(tmp_path, writes=False, tensorboard=False)
    journal.start()
    journal.write({"step": 1.0}, 0.1)
    assert journal.records == [{"step": 1.0}]
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_events_are_written(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    first = Journal(tmp_path, writes=True, tensorboard=True)
    first.start()
    for step in (1.0, 2.0, 3.0):
        first.write({"step": step, "loss": 10.0 * step}, 0.1)
    first.close()
    time.sleep(1.1)  # event files are ordered by the second in their names
    second = Journal(tmp_path, writes=True, tensorboard=True)
    second.resume(2)
    second.write({"step": 3.0, "loss": 99.0}, 0.1)
    second.close()
    events = reader.EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [(1, 10.0), (2, 20.0), (3, 99.0)]
