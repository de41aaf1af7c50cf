"""Explicit files, benchmark models and the dispatch by extension."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from mdp_reference import optimal

from likely.errors import InvalidData, InvalidSetting
from likely.mdp import MDP, answer, reach, total_reward, worlds
from likely.mdp.files.benchmarks import read_benchmark
from likely.mdp.files.loading import from_explicit, load
from likely.mdp.files.prism import read_explicit

data = pytest.mark.skipif("LIKELY_DATA" not in os.environ, reason="LIKELY_DATA is unset")

PRISM_TRA = (
    "3 4 6\n0 0 1 0.5 try\n0 0 0 0.5 try\n0 1 2 1 quit\n1 0 1 1 stay\n2 0 2 0.5\n2 0 1 0.5\n"
)
STORM_TRA = "mdp\n0 0 0 0.5\n0 0 1 0.5\n0 1 2 1\n1 0 1 1\n2 0 1 0.5\n2 0 2 0.5\n"
PRISM_LAB = '0="init" 1="deadlock" 2="done"\n0: 0\n1: 2\n'
STORM_LAB = "#DECLARATION\ninit deadlock done\n#END\n0 init\n1 done\n"


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"model.{name}").write_text(text)
    return folder / "model.tra"


@pytest.mark.parametrize("tra", [PRISM_TRA, STORM_TRA])
@pytest.mark.parametrize("lab", [PRISM_LAB, STORM_LAB])
def test_both_dialects_say_the_same(tmp_path: Path, tra: str, lab: str) -> None:
    path = write(tmp_path, tra=tra, lab=lab)
    model = read_explicit(path, tmp_path / "model.lab")
    assert model.pair_ptr.tolist() == [0, 2, 3, 4]
    assert model.indptr.tolist() == [0, 2, 3, 4, 6]
    assert model.indices.tolist() == [0, 1, 2, 1, 1, 2]
    assert model.labels["done"].tolist() == [False, True, False]
    assert model.labels["init"].tolist() == [True, False, False]


def test_a_markov_chain_has_one_choice_a_state(tmp_path: Path) -> None:
    model = read_explicit(write(tmp_path, tra="2 3\n0 0 0.5\n0 1 0.5\n1 1 1\n"))
    assert model.pair_ptr.tolist() == [0, 1, 2]
    assert model.probability.tolist() == [0.5, 0.5, 1.0]


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("srew", "# Reward structure\n3 2\n0 1.5\n2 4\n", [1.5, 1.5, 0.0, 4.0]),
        ("srew", "0 1.5\n2 4\n", [1.5, 1.5, 0.0, 4.0]),
        ("trew", "3 4 2\n0 0 1 8\n0 1 2 3\n", [4.0, 3.0, 0.0, 0.0]),
        ("trew", "3 4 2\n0 0 1 8 try\n0 1 2 3 quit\n", [4.0, 3.0, 0.0, 0.0]),
        ("rew", "0 1 7\n2 0 1\n", [0.0, 7.0, 0.0, 1.0]),
    ],
)
def test_reward_files(tmp_path: Path, kind: str, text: str, expected: list[float]) -> None:
    path = write(tmp_path, tra=PRISM_TRA, **{kind: text})
    assert read_explicit(path, None, [tmp_path / f"model.{kind}"]).reward.tolist() == expected
    assert load(path).mdp.reward.tolist() == expected  # found beside the .tra file


def test_a_target_is_a_question(tmp_path: Path) -> None:
    path = write(tmp_path, tra=PRISM_TRA, lab=PRISM_LAB, srew="0 -1\n2 -1\n", trew="0 1 2 -5\n")
    world = load(path, target="done", objective="min")
    assert world.question is not None
    assert (world.question.criterion, world.question.objective) == ("total", "min")
    assert world.question.target.tolist() == [False, True, False]
    assert world.mdp.reward.tolist() == [-1.0, -6.0, 0.0, -1.0]
    assert world.mdp.initial is not None
    assert world.mdp.initial.tolist() == [1.0, 0.0, 0.0]
    found = total_reward(world.mdp, 1e-9, target=world.question.target)
    assert found.value[0] == pytest.approx(-2.0)


def test_a_target_under_a_discount_ends_the_episode(tmp_path: Path) -> None:
    path = write(tmp_path, tra=PRISM_TRA, lab=PRISM_LAB, srew="0 -1\n2 -1\n")
    world = load(path, target="done", discount=0.5)
    assert world.question is None
    assert world.mdp.terminal.tolist() == [False, True, False]
    assert optimal(world.mdp)[0] == pytest.approx(-1 / 0.75)


def test_without_rewards_a_target_is_reached_with_a_probability(tmp_path: Path) -> None:
    tra = "0 0 1 0.25 a\n0 0 2 0.75 a\n0 1 1 0.5 b\n0 1 2 0.5 b\n1 0 1 1 a\n2 0 2 1 a\n"
    path = write(tmp_path, tra=tra, lab=PRISM_LAB)
    world = load(path, target="done")
    assert world.question is not None
    assert world.question.criterion == "reachability"
    assert world.mdp.action_names == ("a", "b")
    halved = load(path, target="done", discount=0.5).mdp
    assert optimal(halved).tolist() == [0.5, 0.0, 0.0]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tra": "0 0 1 1 a b\n"}, 'model.tra, line 1: expected "state choice successor'),
        ({"tra": "0 0 1 0.5\n0 0 x 0.5\n"}, 'line 2: expected a successor.* given "x"'),
        ({"tra": "0 0 1 half\n"}, 'line 1: expected a probability, given "half"'),
        ({"tra": "0 0 1 1.5\n"}, r"line 1: a probability must lie in \[0, 1\], given 1.5"),
        ({"tra": "2 2 2\n0 0 5 1\n1 0 1 1\n"}, "line 2: state 5 is beyond the 2 states"),
        ({"tra": "2 2 3\n0 0 1 1\n1 0 1 1\n"}, "counts 3 transitions, the file has 2"),
        ({"tra": "0 0 1 .5 a\n0 0 0 .5 b\n1 0 1 1 a\n"}, 'called "a" here and "b" before'),
        ({"tra": ""}, "the file is empty"),
        ({"tra": PRISM_TRA, "lab": "0 init\n"}, 'model.lab, line 1: expected 0="init"'),
        ({"tra": PRISM_TRA, "lab": PRISM_LAB + "7: 0\n"}, "line 4: state 7 is beyond the 3"),
        ({"tra": PRISM_TRA, "lab": PRISM_LAB + "0: 9\n"}, 'line 4: the label "9" is not declared'),
        ({"tra": PRISM_TRA, "lab": "#DECLARATION\na\n"}, "#DECLARATION has no #END"),
        ({"tra": PRISM_TRA, "srew": "0 1\n5 2\n"}, "model.srew, line 2: state 5 is beyond"),
        ({"tra": PRISM_TRA, "rew": "0 3 1\n"}, "model.rew, line 1: state 0 has no choice 3"),
        ({"tra": PRISM_TRA, "trew": "1 0 0 1\n"}, "choice 0 of state 1 does not lead to 0"),
        ({"tra": PRISM_TRA, "rew": "0 1 inf\n"}, "line 1: expected a finite reward, given inf"),
        ({"tra": PRISM_TRA}, "neither rewards nor a target"),
    ],
)
def test_mistakes_are_named_with_their_line(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    path = write(tmp_path, **files)
    with pytest.raises(InvalidData, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_rows_that_do_not_sum_to_one_name_state_and_action(tmp_path: Path) -> None:
    path = write(tmp_path, tra="0 0 0 0.5\n1 0 1 1\n", rew="0 0 1\n")
    with pytest.raises(InvalidData, match=r"state 0.*sum to 0\.5"):
        load(path)


def test_an_unknown_label_names_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, tra=PRISM_TRA, lab=PRISM_LAB)
    with pytest.raises(InvalidSetting, match='no label "don"; did you mean "done"'):
        load(path, target="don")


def test_dispatch_by_extension(tmp_path: Path) -> None:
    mdp = worlds.build("frozen-lake").mdp
    mdp.save(tmp_path / "lake.npz")
    again = load(tmp_path / "lake.npz").mdp
    assert (again.probability == mdp.probability).all()
    assert load(tmp_path / "lake.npz", discount=0.5).mdp.discount == 0.5
    (tmp_path / "grid.txt").write_text("S.G\n")
    world = load(tmp_path / "grid.txt")
    assert world.layout is not None
    assert MDP.from_file(tmp_path / "grid.txt").states == 3
    with pytest.raises(InvalidData, match=r'unknown extension "\.csv"; valid: '):
        load(tmp_path / "model.csv")
    with pytest.raises(InvalidData, match="no such file"):
        load(tmp_path / "absent.npz")
    (tmp_path / "junk.npz").write_text("junk")
    with pytest.raises(InvalidData, match="not an MDP; damaged, or no"):
        load(tmp_path / "junk.npz")


def benchmark(path: Path) -> Path:
    meta = {
        "benchmark": "coin", "rewards": {"reward0": "steps"},
        "properties": [
            {"name": "win", "formula": "Pmax=? [F win]", "type": "prob-reach",
             "target": "target0", "reference": {"approx": 0.3, "num": 1, "den": 3}},
            {"name": "time", "formula": 'R{"steps"}min=? [F end]', "type": "exp-reward",
             "target": "target1", "reference": 2},
            {"name": "safe", "formula": "Pmin=? [ok U win]", "type": "prob-reach",
             "target": "target0", "stay": "stay2", "reference": True},
        ],
    }  # fmt: skip
    np.savez(
        path, choice_ptr=[0, 2, 3, 4, 5], row_ptr=[0, 3, 4, 5, 6, 7], col=[0, 1, 2, 3, 1, 2, 0],
        prob=[1 / 3, 1 / 3, 1 / 3, 1, 1, 1, 1], initial=[0], reward0=np.ones(5),
        target0=np.packbits([0, 1, 0, 0]), target1=np.packbits([0, 1, 1, 0]),
        stay2=np.packbits([1, 1, 1, 0]),
        meta=np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8),
    )  # fmt: skip
    return path


def test_benchmark_models(tmp_path: Path) -> None:
    model = read_benchmark(benchmark(tmp_path / "coin.npz"))
    win, time, safe = model.properties
    assert (win.maximise, win.reward, win.reference) == (True, None, 1 / 3)
    assert (time.maximise, time.reward, time.reference) == (False, "steps", 2.0)
    assert (safe.maximise, safe.reference) == (False, 1.0)
    mdp, question = model.question(win)
    assert (question.criterion, question.objective) == ("reachability", "max")
    assert reach(mdp, win.target).value[0] == pytest.approx(0.5)
    mdp, question = model.question(time)
    assert (question.criterion, question.objective) == ("total", "min")
    assert question.target.tolist() == [False, True, True, False]
    assert mdp.reward.tolist() == [1.0] * 5
    question = model.question(safe)[1]
    assert question.stay is not None
    assert question.stay.tolist() == [True, True, True, False]
    with pytest.raises(InvalidSetting, match='no property "wim"; did you mean "win"'):
        model.property("wim")
    world = load(tmp_path / "coin.npz", property="time")
    assert world.question is not None
    assert world.question.objective == "min"
    with pytest.raises(InvalidSetting, match="undiscounted"):
        load(tmp_path / "coin.npz", discount=0.9)


@pytest.mark.data
@data
def test_published_benchmark_models() -> None:
    """Sizes and reference values as the data's own table states them."""
    folder = Path(os.environ["LIKELY_DATA"]) / "mdp"
    table = json.loads((folder / "reference_values.json").read_text())
    seen = 0
    for name in sorted({row["file"] for row in table}):
        model = read_benchmark(folder / name)
        for row in (r for r in table if r["file"] == name):
            asked = model.property(row["property"])
            found = (model.mdp.states, model.mdp.pairs, model.mdp.transitions)
            assert found == (row["states"], row["choices"], row["transitions"]), name
            assert asked.formula == row["formula"]
            assert asked.reward in (row["reward"], "steps"), name
            if isinstance(row["reference"], dict):
                assert asked.reference == pytest.approx(row["reference"]["approx"], rel=1e-12)
            seen += 1
    assert seen == 96


@pytest.mark.data
@data
@pytest.mark.parametrize("name", ["cdrive_2", "consensus_2_K2", "csma_2-2", "firewire_abst_delay3"])
def test_published_values_are_met(name: str) -> None:
    """Every property of four models, through the file reader and the solver."""
    model = read_benchmark(Path(os.environ["LIKELY_DATA"]) / "mdp" / "models" / f"{name}.npz")
    for asked in model.properties:
        mdp, question = model.question(asked)
        found = answer(mdp, question, 1e-7)
        assert mdp.initial is not None
        start = int(mdp.initial.argmax())
        assert asked.reference is not None
        assert found.lower[start] - 1e-9 <= asked.reference <= found.upper[start] + 1e-9


def test_repeated_successors_of_a_file_are_added_up(tmp_path: Path) -> None:
    tra = "0 0 1 0.25\n0 0 0 0.5\n0 0 1 0.25\n1 0 1 1\n"
    mdp = from_explicit(read_explicit(write(tmp_path, tra=tra)))
    assert mdp.indices.tolist() == [0, 1, 1]
    assert mdp.probability.tolist() == [0.5, 0.5, 1.0]


def test_repeated_successors_of_a_file_are_those_of_the_constructor(tmp_path: Path) -> None:
    """What adding them up rounds is paid for: 0.1 + 0.1 + 0.1 is not three tenths."""
    tra = "0 0 1 0.1\n0 0 1 0.1\n0 0 1 0.1\n0 0 0 0.7\n1 0 1 1\n"
    mdp = from_explicit(read_explicit(write(tmp_path, tra=tra)))
    same = MDP.from_pairs(
        [0, 1, 2], [0, 4, 5], [1, 1, 1, 0, 1], [0.1, 0.1, 0.1, 0.7, 1.0], [0.0, 0.0], 1.0
    )
    assert mdp.probability.tolist() == same.probability.tolist()
    assert mdp.row_defect == same.row_defect > 5 * 2.0**-53


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("width", [4, 3000])
def test_a_saved_problem_comes_back_to_the_bit(width: int, seed: int, tmp_path: Path) -> None:
    noise = np.random.default_rng(seed)
    states = max(6, width)
    rows = noise.random((states if width == 4 else 3, width))
    rows /= rows.sum(axis=1, keepdims=True) * (1.0 + noise.uniform(-9e-10, 9e-10))
    first = noise.random(states)
    indices = np.stack([noise.permutation(states)[:width] for _ in rows])
    saved = MDP.from_pairs(
        np.minimum(np.arange(states + 1), len(rows)), np.arange(len(rows) + 1) * width,
        indices.ravel(), rows.ravel(), noise.standard_normal(len(rows)), 0.9,
        successor_reward=noise.standard_normal(rows.size), initial=first / first.sum(),
        terminal=np.arange(len(rows), states),
    )  # fmt: skip
    saved.save(tmp_path / "problem.npz")
    loaded = MDP.load(tmp_path / "problem.npz")
    for field in dataclasses.fields(MDP):
        kept, back = getattr(saved, field.name), getattr(loaded, field.name)
        if isinstance(kept, np.ndarray):
            assert (kept.dtype, kept.tobytes()) == (back.dtype, back.tobytes()), field.name
        else:
            assert kept == back, field.name


def test_a_problem_is_loaded_by_whatever_names_it(tmp_path: Path) -> None:
    lake = load("frozen-lake")
    assert (lake.name, lake.mdp.discount) == ("frozen-lake", 0.99)
    assert load("slippery-grid", size=[3, 4], discount=0.5).mdp.states == 12
    frozen = load("SFFF\nFHFH\nFFFH\nHFFG")  # as Gymnasium draws its lakes
    assert frozen.mdp.terminal.tolist() == lake.mdp.terminal.tolist()
    assert frozen.layout is not None
    assert frozen.layout.symbols == ("S...", ".H.H", "...H", "H..G")
    (tmp_path / "grid.txt").write_text("S.G\n")
    assert load(str(tmp_path / "grid.txt")).name == "grid.txt"
    table = {0: {0: [(1.0, 1, 1.0, True)]}, 1: {0: [(1.0, 1, 0.0, True)]}}
    with pytest.raises(InvalidData, match="list has no transition table"):
        load([table])
    assert load(table).mdp.discount == 0.99
    with pytest.raises(InvalidSetting, match=r'"frozen-lak" is no built-in world, .*"frozen-lake"'):
        load("frozen-lak")


@pytest.mark.parametrize(
    ("source", "settings", "said"),
    [
        ("frozen-lake", {"labels": "m.lab"}, "labels: frozen-lake has no such setting"),
        ("S.G\n...", {"size": [3]}, "size: this source has no such setting"),
        ("m.tra", {"underlying": True}, "it is for partially observed problems"),
        ("m.npz", {"objective": "min"}, "it is for explicit models"),
    ],
)
def test_a_setting_that_a_source_would_not_heed_is_refused(
    source: str, settings: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidSetting, match=said):
        load(source, **settings)  # type: ignore[arg-type]
