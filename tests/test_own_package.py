"""A package outside Likely: docs/own-model.md, run line by line in a folder of its own."""

from __future__ import annotations

import contextlib
import json
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import likely
from likely import runs
from likely.cli import main
from likely.data.spec import DataSpec
from likely.heads import head_for
from likely.settings import HEADS, MODELS, OBJECTIVES

PAGE = (Path(__file__).parent.parent / "docs" / "own-model.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|console)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {
    named[1]: code
    for kind, code in BLOCKS
    if kind == "python" and (named := re.match(r"# (\w+\.py)\n", code))
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The page's files in a folder on the path, and every block of the page run there."""
    folder = tmp_path_factory.mktemp("own")
    for name, code in FILES.items():
        (folder / name).write_text(code)
    registries = (MODELS, OBJECTIVES, HEADS)
    before = [dict(registry._entries) for registry in registries]
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.syspath_prepend(str(folder))
        for kind, code in BLOCKS:
            if kind == "python" and not code.startswith("# "):
                (folder / "block.py").write_text(code)
                runpy.run_path(str(folder / "block.py"))
            for line in re.findall(r"^\$ (.*)$", code.replace("\\\n", ""), re.MULTILINE):
                words = shlex.split(line)
                if words[0] == "likely":
                    assert main(words[1:]) == 0, line
                elif words[0] == "python":
                    runpy.run_path(words[1])
        yield folder
    for registry, entries in zip(registries, before, strict=True):
        registry._entries = entries
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def test_the_page_runs_and_its_files_are_its_own(folder: Path) -> None:
    assert {"last_pixels.py", "sparse.py", "binomial.py"} <= set(FILES)
    assert {path.name for path in (folder / "runs").iterdir()} == {
        "last", "sparse", "binomial", "vae", "mine"
    }  # fmt: skip
    assert (folder / "samples.png").is_file()


def test_a_run_names_the_module_and_another_process_finds_it(folder: Path) -> None:
    config = json.loads((folder / "runs" / "last" / "config.json").read_text())
    assert config["model"] == "last_pixels:last-pixels"
    assert config["settings"]["pixels"] == 10
    assert (
        json.loads((folder / "runs" / "binomial" / "config.json").read_text())["settings"]["head"]
        == "binomial:binomial"
    )
    words = [sys.executable, "-m", "likely", "sample", "runs/last", "-n", "2", "--npy", "a.npy"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    words[4] = str(folder / "runs" / "last")
    done = subprocess.run(words, cwd=elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert 'there is no module "last_pixels"' in done.stderr
    assert "PYTHONPATH" in done.stderr


def test_its_likelihood_is_verified_and_its_head_is_a_distribution(folder: Path) -> None:
    report = json.loads((folder / "runs" / "last" / "report.json").read_text())
    (nats,) = [e for e in report["evaluations"]["validation"]["estimates"] if e["unit"] == "nats"]
    assert nats["relation"] == "="
    proofs = (folder / "runs" / "last" / "proofs.json").read_text()
    assert "no future leak" in proofs
    head = head_for("binomial", DataSpec("t", (2, 1, 3), 5))
    parameters = torch.randn(4, 2, 1, 3, dtype=torch.float64)
    x = torch.randint(5, (4, 2, 1, 3))
    for channel in range(2):
        table = head.log_table(parameters, x, channel)
        assert torch.allclose(table.exp().sum(1), torch.ones(4, 1, 3, dtype=torch.float64))
        chosen = table.gather(1, x[:, channel, None]).squeeze(1)
        assert torch.allclose(chosen, head.log_prob(parameters, x)[:, channel])
    fitted = runs.load(folder / "runs" / "vae").model
    assert type(fitted.head).__name__ == "Binomial"


def test_the_objective_is_the_one_that_was_minimised(folder: Path) -> None:
    about = json.loads((folder / "runs" / "sparse" / "fit.json").read_text())["objective"]
    assert about == {"name": "SparseLikelihood", "strength": 0.1}


def test_the_model_needs_no_registration_in_python(folder: Path) -> None:
    class Coin(MODELS["last-pixels"].load()):  # type: ignore[misc]
        """No settings of its own."""

    train, test = likely.data.load("digits")
    model = Coin(train.spec)
    likely.fit(model, train, steps=3)
    assert likely.nats(model, test).relation.value == "="
