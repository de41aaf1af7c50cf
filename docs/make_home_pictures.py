"""Draw the pictures of the documentation's home page into docs/pictures.

    python docs/make_home_pictures.py [folder]

home-sampling.gif   digits drawn row by row by the fitted Diagonal BiLSTM
home-nats.png       test nats of the fitted models, exact (=) and bounded (≤)

Both come from the committed weights and figures under bench/results.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl
from PIL import Image
from torch import Tensor

from likely import runs
from likely.density import Autoregressive
from likely.files.sheets import sample_sheet

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "bench" / "results"
EXACT, BOUND = "#2b6cb0", "#b7791f"
# What the home page compares: a result's name and what it is called there.
SHOWN = {
    "fvsbn": "FVSBN",
    "nade": "NADE",
    "made": "MADE",
    "vae": "VAE",
    "gated-pixelcnn": "Gated PixelCNN",
    "attention": "PixelSNAIL",
    "row-lstm": "Row LSTM",
    "diagonal-bilstm": "Diagonal BiLSTM",
    "diagonal-bilstm-ensemble": "Diagonal BiLSTM, four corners",
}


def sampling(folder: Path, n: int = 24, columns: int = 12) -> Path:
    """The finished images for two seconds, then as they are after every row of pixels."""
    model = runs.load(RESULTS / "mnist-static-diagonal-bilstm").model
    assert isinstance(model, Autoregressive)
    frames: list[Image.Image] = []

    def keep(row: int, images: Tensor) -> None:
        sheet = sample_sheet(images, model.spec.levels, columns=columns, scale=2)
        frames.append(sheet.convert("P", palette=Image.Palette.ADAPTIVE, colors=16))

    model.sample(n, seed=3, watch=keep)
    path = folder / "home-sampling.gif"
    frames[-1].save(
        path, save_all=True, append_images=frames[:-1], loop=0,
        duration=[2000] + [90] * (len(frames) - 1),
    )  # fmt: skip
    return path


def test_nats(name: str) -> tuple[float, bool]:
    """The test nats of a result, and whether they are exact."""
    figures = json.loads((RESULTS / f"mnist-static-{name}.json").read_text(encoding="utf-8"))
    prefix = f"mnist-static/{name}"
    exact = figures["figures"].get(f"{prefix}/test-nats")
    if exact is not None:
        return exact, True
    return figures["figures"][f"{prefix}/test-iw500-nats"], False


def nats(folder: Path) -> Path:
    """A dot for each exact value; an arrow where the truth lies at or below the bound."""
    mpl.use("Agg")
    from matplotlib import pyplot

    values = [(label, *test_nats(name)) for name, label in SHOWN.items()]
    values.sort(key=lambda item: -item[1])
    figure, axes = pyplot.subplots(figsize=(8.4, 3.4), dpi=150)
    for place, (_, value, exact) in enumerate(values):
        axes.axhline(place, color="#e2e8f0", linewidth=0.8, zorder=0)
        colour = EXACT if exact else BOUND
        axes.plot(value, place, "o" if exact else "|", color=colour, markersize=8)
        if not exact:
            arrow = {"arrowstyle": "->", "color": colour, "linewidth": 1.8}
            axes.annotate("", (value - 3, place), (value, place), arrowprops=arrow)
        axes.text(value + 0.5, place, f"{'=' if exact else '≤'} {value:.2f}", va="center",
                  fontsize=9, color=colour)  # fmt: skip
    axes.set_yticks(range(len(values)), [label for label, _, _ in values], fontsize=9)
    axes.set_xlim(76, 101)
    axes.set_xlabel("nats per image, statically binarised MNIST, test split (lower is better)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    figure.tight_layout()
    path = folder / "home-nats.png"
    figure.savefig(path)
    return path


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS / "pictures"
    for draw in (sampling, nats):
        print(draw(folder))


if __name__ == "__main__":
    main()
