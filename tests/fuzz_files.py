"""Every kind of file that the library reads, damaged in every way we know; for tests and bench.

A case writes good files, and reads them. `damage` changes one of them: bytes (a flipped bit, a cut,
a piece lost, doubled or overwritten), words and numbers of a text, fields of JSON, arrays of an
archive, tensors of a checkpoint (with a checksum that is right, as another program might write).
`attempt` says how the reader took it.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import io
import json
import random
import re
import shutil
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from likely import data, runs, world
from likely.cli.mdp import inputs
from likely.data.made import digits
from likely.data.readers import read_idx
from likely.density import TractableDensity
from likely.errors import LikelyError
from likely.estimate import Estimate, Relation
from likely.jobs.compress import compress_file, decompress_file
from likely.mdp import POMDP, solve, worlds
from likely.mdp.files.loading import load
from likely.runs import checkpoint
from likely.runs.journal import METRICS, TIMING, read_lines
from likely.runs.saved import read_report
from likely.settings import FitSettings, read_settings_file
from likely.training.loop import fit
from likely.verify import Proofs, verify

GRID = "; maze\ndiscount: 0.9\nslip: 1/10\nC = back -9\nJ = jump b 2\n\n#S.C\n.#J.\nb..G\n"
CASSANDRA = (
    "discount: 0.9\nvalues: reward\nstates: a b\nactions: stay go\nobservations: 2\n"
    "start: 0.5 0.5\nT: stay identity\nT: go : a\n0.25 0.75\nT: go : b : a 1.0\n"
    "O: * identity\nR: * : a : * : * 1\nR: go : b : a : 1 5\n"
)
TRA = "3 4 6\n0 0 0 0.5\n0 0 1 0.5\n0 1 2 1\n1 0 1 1\n2 0 1 0.5\n2 0 2 0.5\n"
LAB = '0="init" 1="done"\n0: 0\n1: 1\n'
REWARD = "3 4 2\n0 0 1 8\n0 1 2 3\n"
YAML = "steps: 20\nlearning_rate: 0.001\nschedule: cosine\ndilations: [1, 2]\n"

# What a word, a number or a field may become.
WORDS = (
    "-1", "0", "2", "1e999", "nan", "0.-5", "3e8", "300000000", "9" * 30, "\u00b2", "1/0",
    "1e999999999", ":", "*", "T", "R:", "#", "\u2192", "=", "jump", "states: 300000000", "",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 3, 10**12, 10**30, 1e308, float("nan"), "", "x", "nan", [], [1], [[]],
    {}, {"a": 1}, [None], ["x"],
)  # fmt: skip
DTYPES = ("u1", "i8", "u8", "f4", "f8", "c16", "b1", "U3", "M8[s]", "V4")


@dataclasses.dataclass(frozen=True)
class Case:
    """A reader.

    Attributes:
        name: of the kind of file.
        files: that may be damaged.
        make: writes good files to a folder.
        read: reads them; whatever it raises is what a user would see.
    """

    name: str
    files: tuple[str, ...]
    make: Callable[[Path], None]
    read: Callable[[Path], object]


# -- damage --------------------------------------------------------------------------------------


def damage(path: Path, draw: random.Random) -> None:
    """One to three accidents."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        _KINDS.get(path.suffix, _damage_bytes)(path, draw)


def _damage_bytes(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    size = len(content)
    # Headers are short and decide most: half of the accidents are among the first bytes.
    at = draw.randrange(min(size, 200) if draw.random() < 0.5 else size) if size else 0
    stop = min(size, at + draw.choice((1, 2, 8, 100)))
    kind = draw.choice(("bit", "bytes", "cut", "lose", "double", "zero", "junk", "end", "empty"))
    if kind == "bit" and size:
        content[at] ^= 1 << draw.randrange(8)
    elif kind == "bytes":
        content[at:stop] = draw.randbytes(stop - at)
    elif kind == "cut":
        del content[at:]
    elif kind == "lose":
        del content[at:stop]
    elif kind == "double":
        content[at:at] = content[at:stop]
    elif kind == "zero":
        content[at:stop] = bytes(stop - at)
    elif kind == "junk":
        content[at:at] = draw.choice(
            (b"\xff\xfe", b"\xe9t\xe9", b"\0", b"[" * 3000, b"{", b"9" * 20)
        )
    elif kind == "end":
        content += draw.randbytes(9)
    elif kind == "empty" and draw.random() < 0.2:
        content.clear()
    path.write_bytes(content)


def _damage_text(path: Path, draw: random.Random) -> None:
    if draw.random() < 0.25:
        return _damage_bytes(path, draw)
    text = path.read_bytes().decode("utf-8", "replace")
    lines = text.splitlines() or [""]
    at = draw.randrange(len(lines))
    words = lines[at].split() or [""]
    kind = draw.choice(("drop", "double", "swap", "word", "word", "word", "lose word", "more"))
    if kind == "drop":
        del lines[at]
    elif kind == "double":
        lines.insert(draw.randrange(len(lines) + 1), lines[at])
    elif kind == "swap":
        other = draw.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    else:
        place = draw.randrange(len(words))
        if kind == "word":
            words[place] = draw.choice(WORDS)
        elif kind == "lose word":
            del words[place]
        else:
            words.insert(place, draw.choice(WORDS))
        lines[at] = " ".join(words)
    path.write_bytes(("\n".join(lines) + "\n").encode("utf-8", "replace"))
    return None


def _damage_json(path: Path, draw: random.Random) -> None:
    if draw.random() < 0.25:
        return _damage_bytes(path, draw)
    try:
        text = json.dumps(_other_field(json.loads(path.read_bytes()), draw))
    except (ValueError, RecursionError):  # an earlier accident made it no JSON, or too deep
        return _damage_bytes(path, draw)
    path.write_text(text, encoding="utf-8")
    return None


def _other_field(value: Any, draw: random.Random) -> Any:
    """The same with one field, at any depth, lost or replaced."""
    inner = isinstance(value, dict | list) and len(value) > 0
    if not inner or draw.random() < 0.1:
        return draw.choice(VALUES)
    keys: Any = list(value) if isinstance(value, dict) else range(len(value))
    key = draw.choice(keys)
    if draw.random() < 0.15:
        del value[key]
    elif draw.random() < 0.1 and isinstance(value, dict):
        value[key + "x"] = value.pop(key)
    else:
        value[key] = _other_field(value[key], draw)
    return value


def _damage_lines(path: Path, draw: random.Random) -> None:
    if draw.random() < 0.4:
        return _damage_bytes(path, draw)
    lines = path.read_bytes().decode("utf-8", "replace").splitlines() or [""]
    at = draw.randrange(len(lines))
    lines[at] = json.dumps(draw.choice((*VALUES, {"step": "x"}, {"step": None}, {"loss": 1.0})))
    path.write_text("\n".join(lines) + draw.choice(("\n", "")), encoding="utf-8")
    return None


def _damage_npy(path: Path, draw: random.Random) -> None:
    if draw.random() < 0.3:
        return _damage_bytes(path, draw)
    path.write_bytes(_other_npy(path.read_bytes(), draw))
    return None


def _other_npy(content: bytes, draw: random.Random) -> bytes:
    """An array of another type or shape, or a header that lies about them."""
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception:
        return content[: len(content) // 2]
    if array.size > 10**6:  # its header lies already
        return content
    kind = draw.choice(("type", "shape", "value", "header", "header"))
    if kind == "header":
        shape = draw.choice(((10**13,), (2**63,), (-2, -3), (0,), (3 * 10**8, 3), (), "x"))
        kind = draw.choice(("<f8", "|u1", "|O", "<U0", "|V0"))
        text = str({"descr": kind, "fortran_order": False, "shape": shape}).ljust(117) + "\n"
        return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text.encode() + array.tobytes()
    if kind == "type":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                array = array.astype(draw.choice(DTYPES))
            except Exception:
                array = np.zeros(array.shape, draw.choice(DTYPES))
    elif kind == "shape":
        array = np.atleast_1d(array)
        array = draw.choice((array[:1], array[:0], array[None], array.ravel()[:7], array[..., :1]))
    elif array.size and array.dtype.kind in "iuf":
        array = array.copy()
        where = draw.randrange(array.size)
        largest = np.iinfo(array.dtype).max if array.dtype.kind in "iu" else np.nan
        array.flat[where] = draw.choice((0, 1, 5, largest))
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _damage_npz(path: Path, draw: random.Random) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:
        return _damage_bytes(path, draw)
    if draw.random() < 0.25 or not members:
        return _damage_bytes(path, draw)
    name = draw.choice(sorted(members))
    kind = draw.choice(("lose", "rename", "npy", "npy", "npy", "header", "raw"))
    if kind == "lose":
        del members[name]
    elif kind == "rename":
        members["x" + name] = members.pop(name)
    elif kind == "raw":
        members[name] = draw.randbytes(50)
    elif kind == "header" and {"header.npy", "meta.npy"} & members.keys():
        name = "header.npy" if "header.npy" in members else "meta.npy"
        try:
            record = json.loads(bytes(np.load(io.BytesIO(members[name]))))
        except Exception:
            record = {}
        text = json.dumps(_other_field(record, draw)).encode()
        stream = io.BytesIO()
        np.save(stream, np.frombuffer(text, np.uint8))
        members[name] = stream.getvalue()
    else:
        members[name] = _other_npy(members[name], draw)
    how = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(path, "w", how) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return None


def _damage_tensors(path: Path, draw: random.Random) -> None:
    try:
        tensors, about = checkpoint.read_tensors(path)
    except LikelyError:
        return _damage_bytes(path, draw)
    if draw.random() < 0.4:
        return _damage_bytes(path, draw)
    kind = draw.choice(("lose", "rename", "type", "type", "shape", "string", "string"))
    name = draw.choice(sorted(tensors)) if tensors else ""
    if kind == "string" or not name:
        key = draw.choice(sorted(about) or ["step"])
        value = draw.choice(VALUES)
        about[key] = value if isinstance(value, str) else json.dumps(value)
        if draw.random() < 0.2:
            del about[key]
    elif kind == "lose":
        del tensors[name]
    elif kind == "rename":
        tensors[draw.choice(("x", name + "x", "optimizer.x.y.z"))] = tensors.pop(name)
    elif kind == "type":
        types = (torch.int64, torch.float64, torch.bfloat16, torch.bool, torch.uint8)
        tensors[name] = tensors[name].to(draw.choice(types))
    else:
        tensors[name] = draw.choice((tensors[name].reshape(-1)[:1], tensors[name][None]))
    checkpoint.write_tensors(path, tensors, about)
    return None


_KINDS: dict[str, Callable[[Path, random.Random], None]] = {
    ".txt": _damage_text, ".pomdp": _damage_text, ".tra": _damage_text, ".lab": _damage_text,
    ".trew": _damage_text, ".yaml": _damage_text, ".json": _damage_json, ".jsonl": _damage_lines,
    ".npy": _damage_npy, ".npz": _damage_npz, ".safetensors": _damage_tensors,
}  # fmt: skip


# -- the readers ---------------------------------------------------------------------------------


def _texts(**texts: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name, text in texts.items():
            (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")

    return make


def _solved(folder: Path) -> None:
    mdp = worlds.build("inventory").mdp
    mdp.save(folder / "m.npz")
    found = solve(mdp, tolerance=1e-3, checkpoint=folder / "c.npz")
    value, policy = np.asarray(found.value), np.asarray(found.policy)
    np.savez(folder / "s.npz", value=value, policy=policy)
    record = {"value": value.tolist(), "policy": policy.tolist()}
    (folder / "s.json").write_text(json.dumps(record), encoding="utf-8")


def _resumed_solve(folder: Path) -> object:
    return solve(worlds.build("inventory").mdp, tolerance=1e-3, checkpoint=folder / "c.npz")


def _read_solution(name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        mdp = worlds.build("inventory").mdp
        return inputs.value_of(folder / name, mdp), inputs.policy_of(str(folder / name), mdp)

    return read


def _benchmark(folder: Path) -> None:
    meta = {
        "benchmark": "coin", "rewards": {"reward0": "steps"},
        "properties": [
            {"name": "win", "formula": "Pmax=? [F w]", "target": "target0", "stay": "stay0",
             "reference": {"num": 1, "den": 2}},
            {"name": "time", "formula": "Tmin=? [F w]", "target": "target0", "reference": 2.0},
        ],
    }  # fmt: skip
    np.savez_compressed(
        folder / "b.npz", choice_ptr=[0, 2, 3], row_ptr=[0, 2, 3, 4], col=[0, 1, 1, 1],
        prob=[0.5, 0.5, 1.0, 1.0], reward0=[1.0, 1.0, 0.0], initial=[0],
        target0=np.packbits([False, True]), stay0=np.packbits([True, True]),
        meta=np.frombuffer(json.dumps(meta).encode(), np.uint8),
    )  # fmt: skip


def _images(folder: Path) -> None:
    x = np.arange(12 * 16, dtype=np.uint8).reshape(12, 4, 4)
    np.save(folder / "x.npy", x)
    np.savez_compressed(folder / "x.npz", train=x, test=x[:3], y_train=np.arange(12) % 3,
                        y_test=np.arange(3))  # fmt: skip
    header = struct.pack(">HBB3I", 0, 8, 3, 12, 4, 4)
    (folder / "x.idx").write_bytes(header + x.tobytes())
    (folder / "x.gz").write_bytes(gzip.compress(header + x.tobytes()))


SETTINGS = FitSettings(
    steps=2, batch_size=8, warmup=1, log_every=1, validate_every=1, validation_examples=4,
    checkpoint_seconds=1e9, precision="float32",
)  # fmt: skip


def _fit(folder: Path) -> object:
    train, _ = digits()
    model = runs.build("nade", train.spec, {"hidden": 2})
    return fit(model, train, settings=SETTINGS, out=folder)


def _run(folder: Path) -> None:
    train, test = data.load("digits")
    model = runs.build("nade", train.spec, {"hidden": 2})
    fit(model, train, settings=SETTINGS, out=folder)
    verify(model, test, quick=True).save(folder / "proofs.json")


def _coder() -> TractableDensity:
    torch.manual_seed(0)
    model = runs.build("nade", digits()[0].spec, {"hidden": 2})
    assert isinstance(model, TractableDensity)
    return model


def _compressed(folder: Path) -> None:
    np.save(folder / "x.npy", digits()[1].x[:6])
    compress_file(_coder(), folder / "x.npy", folder / "x.lk", block=2)


def _decompressed(folder: Path) -> object:
    with tempfile.TemporaryDirectory() as out:
        return decompress_file(_coder(), folder / "x.lk", Path(out) / "y.npy")


def _report(folder: Path) -> None:
    estimate = Estimate(80.0, "nats", Relation.EXACT, "nll", 0.5, 3, "abc")
    split = {"data": {"fingerprint": "abc"}, "estimates": [estimate.to_json()]}
    checkpoint.write_json(folder / "report.json", {"weights": "w", "evaluations": {"test": split}})


def _loaded(folder: Path) -> object:
    return runs.load(folder).datasets()


def _resumed(folder: Path) -> object:
    _fit(folder)
    return [read_lines(folder / name) for name in (METRICS, TIMING)]


def _world(name: str) -> Callable[[Path], object]:
    options: dict[str, Any] = {"underlying": True} if name.endswith(("pomdp", ".mdp")) else {}
    if name.endswith(".tra"):
        options = {"target": "done"}
    return lambda folder: load(folder / name, **options)


def _learned_world(folder: Path) -> None:
    """A log of states that shrink, fitted and planned in."""
    task, n = world.TASKS["mountaincar"], 40
    noise = np.random.default_rng(0)
    states = noise.uniform(task.low, task.high, (n, 2))
    log = world.Trajectories.from_arrays(
        states, np.arange(n) % 3, -np.ones(n), next_observation=states * 0.99,
        terminated=np.zeros(n), truncated=np.ones(n), environment="MountainCar-v0",
    )  # fmt: skip
    world.save_world(folder, log, "mountaincar", "linear", {})
    world.plan(world.load_world(folder)[0], (4, 4)).save(folder / "plan.npz")


def _planned_world(folder: Path) -> None:
    model, _, _ = world.load_world(folder)
    world.Plan.load(folder / "plan.npz", model)


CASES = (
    Case("grid", ("g.txt",), _texts(g_txt=GRID), _world("g.txt")),
    Case("cassandra", ("m.pomdp",), _texts(m_pomdp=CASSANDRA), _world("m.pomdp")),
    Case("explicit", ("m.tra", "m.lab", "m.trew"),
         _texts(m_tra=TRA, m_lab=LAB, m_trew=REWARD), _world("m.tra")),
    Case("mdp-npz", ("m.npz",), _solved, _world("m.npz")),
    Case("benchmark-npz", ("b.npz",), _benchmark, _world("b.npz")),
    Case("solution-npz", ("s.npz",), _solved, _read_solution("s.npz")),
    Case("solution-json", ("s.json",), _solved, _read_solution("s.json")),
    Case("solve-checkpoint", ("c.npz",), _solved, _resumed_solve),
    Case("pomdp", ("m.pomdp",), _texts(m_pomdp=CASSANDRA),
         lambda folder: POMDP.from_file(folder / "m.pomdp")),
    Case("world", ("config.json", "transitions.npz", "plan.npz"), _learned_world,
         _planned_world),
    Case("array-npy", ("x.npy",), _images, lambda folder: data.load(folder / "x.npy")),
    Case("array-npz", ("x.npz",), _images, lambda folder: data.load(folder / "x.npz")),
    Case("idx", ("x.idx",), _images, lambda folder: read_idx(folder / "x.idx", (None, 4, 4))),
    Case("idx-gz", ("x.gz",), _images, lambda folder: read_idx(folder / "x.gz", (None, 4, 4))),
    Case("compressed", ("x.lk",), _compressed, _decompressed),
    Case("settings", ("s.yaml",), _texts(s_yaml=YAML),
         lambda folder: read_settings_file(folder / "s.yaml")),
    Case("run", ("config.json", "weights.safetensors"), _run, _loaded),
    Case("resume", ("state.safetensors", "best.safetensors", METRICS, TIMING), _run, _resumed),
    Case("report", ("report.json",), _report,
         read_report),
    Case("proofs", ("proofs.json",), _run, lambda folder: Proofs.load(folder / "proofs.json")),
)  # fmt: skip


@functools.cache
def good(case: Case, folder: Path) -> Path:
    """The good files of a case, made once under `folder`."""
    home = folder / case.make.__name__ / case.name
    home.mkdir(parents=True)
    case.make(home)
    return home


def attempt(case: Case, home: Path, folder: Path, seed: int) -> str:
    """Damage a copy of the good files and read it.

    Returns:
        "read", "refused", or what is wrong with the answer.
    """
    shutil.copytree(home, folder)
    draw = random.Random(f"{case.name} {seed}")
    name = draw.choice(case.files)
    damage(folder / name, draw)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case.read(folder)
    except LikelyError as error:
        text = str(error)
        if "\n" in text.strip() or not text:
            return f"{name}: not one line: {text!r}"
        named = str(folder) in text
        return "refused" if named else f"{name}: names no file: {text}"
    except Exception as error:
        place = re.sub(r"\s+", " ", str(error))[:200]
        return f"{name}: {type(error).__name__}: {place}"
    finally:
        shutil.rmtree(folder)
    return "read"
