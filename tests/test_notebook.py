"""What objects say of themselves: one line as text, a fragment of HTML in a notebook."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import likely
from fit_cases import fit_case, training_data
from likely.data.sequences import from_sequences
from likely.data.spec import Dataset, DataSpec
from likely.estimate import Estimate, Relation
from likely.files.inline import Shown
from likely.training.progress import FitProgress
from likely.training.run import Run
from likely.verify.proofs import Proof, Proofs


@pytest.fixture(scope="module")
def run() -> Run:
    return fit_case("vae-dense", None)


def nats(value: float) -> Estimate:
    return Estimate(value, "nats", Relation.UPPER, "nll", 0.5, 20, "abc", about="k < 5")


def test_what_is_printed_is_one_readable_line(run: Run) -> None:
    assert re.fullmatch(
        r"VAE on \S+: finished \d+ steps in .* s; best validation <= [\d.]+ nats", repr(run)
    )
    assert repr(nats(80.0)) == str(nats(80.0)) == "<= 80.00 +- 0.50 nats"
    assert repr(nats(80.0).versus(nats(90.0))).startswith("UNDECIDED: <= 80.00")
    proofs = Proofs("VAE", "d", True, 0, (Proof.at_most("a", 0.0, 1.0, "b"),))
    assert repr(proofs) == str(proofs)
    assert repr(proofs).startswith("VAE: all proofs passed")


def test_a_saved_run_is_shown_as_the_run_that_was_saved(run: Run, tmp_path: Path) -> None:
    saved = likely.load(run.save(tmp_path / "vae"))
    assert re.fullmatch(
        r"VAE on \S+: \d+ steps; best validation <= [\d.]+ nats; saved in \S+vae", repr(saved)
    )
    assert saved.kept_validation == run.kept_validation
    curves = [re.findall("<svg .*?</svg>", each._repr_html_(), re.DOTALL) for each in (run, saved)]
    assert curves[0] == curves[1] != []


def test_a_notebook_shows_a_fragment_that_asks_for_nothing(run: Run) -> None:
    proofs = Proofs("VAE", "d", True, 0, (Proof.at_most("<b>", 2.0, 1.0, "c"),))
    objects = [run, training_data(), nats(80.0), nats(80.0).versus(nats(1.0)), proofs]
    for shown in objects:
        html = shown._repr_html_()
        assert html.startswith('<div class="likely">')
        assert "http" not in html
        assert "<script" not in html
        assert "{" not in re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    assert "&lt;b&gt;" in proofs._repr_html_()
    assert "FAILED" in proofs._repr_html_()
    assert "k &lt; 5" in nats(80.0)._repr_html_()
    assert run._repr_html_().count("<svg class=") == len(
        re.findall("aria-label", run._repr_html_())
    )


def test_curves_are_shown_and_saved(run: Run, tmp_path: Path) -> None:
    curves = run.plot()
    assert isinstance(curves, Shown)
    assert repr(curves).startswith("curves of VAE on")
    curves.save(tmp_path / "curves.html")
    assert "<polyline" in (tmp_path / "curves.html").read_text()


def test_curves_have_the_unit_of_the_losses(run: Run) -> None:
    assert ">nats per example<" in run._repr_html_()
    steps = likely.data.load("regimes")[0]
    gru = likely.fit(likely.models.GRU(steps.spec, hidden=4), steps, steps=2)
    assert ">nats per step<" in gru._repr_html_()
    digits = training_data()
    encoder = likely.fit(likely.models.Autoencoder(digits.spec, latent=2), digits, steps=2)
    assert ">squared error per example<" in encoder._repr_html_()
    for shown in (gru, encoder):
        assert "nats per example" not in shown._repr_html_()


def test_models_of_sequences_refuse_what_is_asked_of_pixels_by_what_they_are() -> None:
    answers = likely.answers(likely.models.GRU(likely.data.load("regimes")[0].spec))
    for name in ("colorize", "upscale", "conditional", "surprise", "stream"):
        assert "sequences" in answers[name].reason


def test_images_of_any_array_are_shown(run: Run) -> None:
    data = training_data()
    drawn = run.model.sample(6, seed=0)
    shown = likely.show(drawn, data)
    assert isinstance(shown, Image.Image)
    for other in (drawn.numpy(), drawn.to(torch.uint8)):
        assert likely.show(other, data.spec).tobytes() == shown.tobytes()
        assert likely.show(other, run.model).tobytes() == shown.tobytes()
        assert likely.show(other, data.spec.levels).tobytes() == shown.tobytes()
    assert likely.show(drawn[0]).width < shown.width
    rows = torch.stack([drawn, drawn])  # [R, N, C, H, W]
    assert likely.show(rows).width > likely.show(rows).height
    assert data.show(4).size == likely.show(data[:4], data, columns=10).size


def test_vectors_have_no_sheet_of_their_own_and_no_error() -> None:
    spec = DataSpec("rows", (5,), 2, n=3)
    assert "rows" in Dataset(spec, np.zeros((3, 5), np.uint8))._repr_html_()


def test_sequences_are_shown_as_curves_or_rolls(tmp_path: Path) -> None:
    start = np.array([9.0, *range(30)])
    curves, _ = from_sequences([start] * 4, name="ramps")
    shown = curves.show(columns=1)
    assert shown._repr_html_().count("<polyline") == len(curves)
    assert shown._repr_html_().count("ramps") == 1
    top = re.search(r'points="[^,]*,([\d.]+)', shown._repr_html_())
    assert top
    assert float(top[1]) > 100  # a start of 9 lies below the middle of 0 to 29
    shown.save(tmp_path / "ramps.html")
    assert "<polyline" in (tmp_path / "ramps.html").read_text()
    keys = {f"x{k}": "binary" for k in range(8)}
    rolls, _ = from_sequences([np.eye(8, dtype=np.uint8)] * 4, kinds=keys, name="scales")
    assert rolls.show(1)._repr_html_().count("<img") == 1
    assert "<img" in rolls._repr_html_()
    assert "<polyline" in curves._repr_html_()


def test_print_as_progress_writes_a_line_a_record(capsys: pytest.CaptureFixture[str]) -> None:
    run = fit_case("vae-dense", None, progress=print)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(run.metrics)
    for text in lines:
        assert re.fullmatch(
            r"VAE on \S+: step \d+ of \d+: (-elbo [\d.]+, kl [\d.]+)?(, )?(validation <= [\d.]+)?",
            text,
        ), text


def test_progress_is_quiet_unless_somebody_looks_on(capsys: pytest.CaptureFixture[str]) -> None:
    fit_case("vae-dense", None)
    assert capsys.readouterr() == ("", "")
    fit_case("vae-dense", None, progress=True)
    assert re.search(r"^step \d+ of \d+: ", capsys.readouterr().err, re.MULTILINE)


def test_a_notebook_draws_the_bar_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    cells: list[list[str]] = []

    class Cell(list[str]):
        def update(self, shown: Shown) -> None:
            self.append(shown._repr_html_())

    def display(shown: Shown, display_id: bool) -> Cell:
        cells.append(Cell([shown._repr_html_()]))
        return cells[-1]

    class ZMQInteractiveShell:
        pass

    python = type(sys)("IPython")
    python.get_ipython = ZMQInteractiveShell
    python.display = type(sys)("IPython.display")
    python.display.display = display
    monkeypatch.setitem(sys.modules, "IPython", python)
    monkeypatch.setitem(sys.modules, "IPython.display", python.display)
    run = fit_case("vae-dense", None)
    (cell,) = cells
    assert len(cell) == len(run.metrics)
    assert f'<progress value="{run.step}" max="{run.step}"' in cell[-1]
    assert "validation &lt;= " in cell[-1]
    assert FitProgress("x", 1)._bar is None
