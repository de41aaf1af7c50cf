"""Music to listen to on the page of sequences: docs/static/chorales-*.wav and .mid, and a roll.

    python docs/make_listening.py RUN     a run on `chorales`, as `likely fit gru --data chorales`

The first bars of one chorale of the test part, of the model's continuation of its first two bars,
and of a draw from nothing: seed 0, not chosen. The WAV files have 8,000 samples a second.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

import torch

from likely import data, runs
from likely.data.sequences import Sequences, music
from likely.density import SequenceDensity

DOCS = Path(__file__).parent
STEPS, KNOWN, RATE = 80, 32, 8000  # 16ths, of which given; samples a second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--series", type=int, default=0, help="of the test part")
    options = parser.parse_args()
    model = cast(SequenceDensity, runs.load(options.run).model.eval())
    test = cast(Sequences, data.load("chorales")[1])
    bach = test[options.series][:STEPS]
    known = torch.from_numpy(bach[:KNOWN])[None]
    start = int(test.start[options.series])
    rest = model.forecast(known, STEPS - KNOWN, start=start)[0]
    pieces = {
        "bach": bach,
        "continued": torch.cat([known, rest], 1)[0].numpy(),
        "drawn": model.sample(1, steps=STEPS)[0].numpy(),
    }
    for name, x in pieces.items():
        stem = DOCS / "static" / f"chorales-{name}"
        stem.with_suffix(".wav").write_bytes(music.sound([x], test.spec, RATE))
        stem.with_suffix(".mid").write_bytes(music.midi([x], test.spec))
    picture = music.picture(list(pieces.values()), test.spec)
    (DOCS / "pictures" / "chorales-listening.png").write_bytes(picture)


if __name__ == "__main__":
    main()
