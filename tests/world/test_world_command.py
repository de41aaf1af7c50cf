"""`likely world fit | plan | act | list`: the answers, as text and as JSON, and one-line errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from likely.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def test_from_a_task_of_ones_own_to_an_animation(tmp_path: Path, capsys: Capture) -> None:
    out = str(tmp_path / "rail")
    assert main(["world", "fit", "toy_rail:TASK", "--transitions", "120", "--out", out]) == 0
    text = capsys.readouterr().out
    assert "120 transitions" in text
    assert "null model" in text
    assert main(["world", "plan", out, "--grid", "17", "--episodes", "5"]) == 0
    text = capsys.readouterr().out
    for word in ("planning", "discretisation", "model", "declared, not learned"):
        assert word in text
    assert main(["world", "act", out, "--episodes", "5", "--gif"]) == 0
    assert "mean return" in capsys.readouterr().out
    with Image.open(tmp_path / "rail" / "act.gif") as picture:
        assert picture.n_frames > 3


def test_json_holds_the_three_errors(tmp_path: Path, capsys: Capture) -> None:
    out = str(tmp_path / "rail")
    assert (
        main(["world", "fit", "toy_rail:TASK", "--transitions", "120", "--out", out, "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["transitions"] == 120
    assert main(["world", "plan", out, "--json", "--episodes", "3"]) == 0
    errors = json.loads(capsys.readouterr().out)["errors"]
    assert set(errors) == {"planning", "discretisation", "model"}
    assert main(["world", "act", out, "--json", "--policy", "random", "--episodes", "3"]) == 0
    assert len(json.loads(capsys.readouterr().out)["returns"]) == 3
    words = ["fit", "toy_rail:TASK", "--undeclared", "--hold", "6", "--out", out, "--json"]
    assert main(["world", *words]) == 0
    assert json.loads(capsys.readouterr().out)["declared"] == []
    assert main(["world", "plan", out, "--json", "--episodes", "3"]) == 0
    learned = json.loads(capsys.readouterr().out)["errors"]["model"]
    assert learned["declared"] == []
    assert abs(learned["difference"]) < 2.0
    assert main(["world", "plan", out, "--codes", "40", "--episodes", "2"]) == 0
    assert "40 codes, 41 states" in capsys.readouterr().out
    assert main(["world", "plan", out, "--codes", "40", "--grid", "9"]) == 2
    assert "one of --grid, --codes and --neighbours" in capsys.readouterr().err
    assert main(["world", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"][0]["name"] == "cartpole"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "cartpol"], 'did you mean "cartpole"'),
        (["fit", "cartpole", "--transitions", "0"], "whole number >= 1"),
        (["fit", "cartpole", "--log", "nowhere.npz"], "nowhere.npz"),
        (["plan", "nowhere"], "no config.json there"),
        (["plan", "nowhere", "--grid", "11by11"], "91x61"),
        (["act", "nowhere", "--gif", "a.png"], "is a .gif"),
        (["fit", "toy_rail:NOTHING"], "cannot be imported"),
        (["fit", "no_such_module:TASK"], "must be on PYTHONPATH"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["world", *words]) == 2
    text = capsys.readouterr().err
    assert message in text
    assert len(text.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
