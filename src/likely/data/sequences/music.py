"""Sequences to look at and to listen to: pictures, MIDI files, and waves.

Music is a roll of binary columns called "key PITCH", or voices: categorical columns whose 0 is
silence and whose other values are semitones. A key that stays on is one long note, because the data
does not say where it is struck again.
"""

from __future__ import annotations

import io
import itertools
import struct
import wave
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from likely.data.sequences.catalogue import LOWEST_VOICE, VOICES
from likely.errors import InvalidSetting
from likely.files.figures import figure_png, new_figure

if TYPE_CHECKING:
    from likely.data.sequences.spec import SequenceSpec

Integers = npt.NDArray[Any]
TICKS = 480  # of a quarter, in MIDI
SECONDS = {"quarter": 0.5, "16th": 0.125}  # of a step; others 0.25
RATE = 22_050  # samples of a second of sound
MOST = 8  # sequences of a picture


class Note(NamedTuple):
    """A note: MIDI pitch, first step, step after the last, and its voice."""

    pitch: int
    start: int
    stop: int
    voice: int


def is_music(spec: SequenceSpec) -> bool:
    """Whether the columns are keys or voices."""
    names = tuple(column.name for column in spec.columns)
    return names == VOICES or all(name.startswith("key ") for name in names)


def notes(x: Integers, spec: SequenceSpec) -> list[Note]:
    """The notes of a sequence [T, K], by time.

    Raises:
        InvalidSetting: the columns are neither keys nor voices.
    """
    if not is_music(spec):
        raise InvalidSetting(
            f"{spec.name} is no music: its columns are neither keys (named key 60) nor the voices "
            f"{', '.join(VOICES)}"
        )
    out = []
    for k, column in enumerate(spec.columns):
        if column.kind == "binary":
            pitch = np.where(x[:, k] > 0, int(column.name.split()[1]), 0)
        else:
            pitch = np.where(x[:, k] > 0, x[:, k] + LOWEST_VOICE - 1, 0)
        edges = np.flatnonzero(np.diff(pitch, prepend=0, append=0))
        voice = k if column.kind != "binary" else 0
        out += [
            Note(int(pitch[a]), int(a), int(b), voice)
            for a, b in itertools.pairwise(edges)
            if pitch[a]
        ]
    return sorted(out, key=lambda note: (note.start, note.pitch))


def _step_seconds(spec: SequenceSpec) -> float:
    return SECONDS.get(spec.time_step, 0.25)


def midi(series: Sequence[Integers], spec: SequenceSpec) -> bytes:
    """A MIDI file of sequences one after another, two seconds between them; a track a voice."""
    ticks = round(TICKS * _step_seconds(spec) / 0.5)
    events: dict[int, list[tuple[int, int, int]]] = {}
    begin = 0
    for x in series:
        for note in notes(x, spec):
            track = events.setdefault(note.voice, [])
            track.append((begin + note.start * ticks, 1, note.pitch))
            track.append((begin + note.stop * ticks, 0, note.pitch))
        begin += len(x) * ticks + 4 * TICKS
    tracks = [b"\x00\xff\x51\x03" + (500_000).to_bytes(3, "big") + _END]  # half a second a quarter
    for voice, every in sorted(events.items()):
        data, last = b"", 0
        for tick, on, pitch in sorted(every):
            data += _varying(tick - last) + bytes([0x80 | on << 4 | voice, pitch, 64 * on])
            last = tick
        tracks.append(data + _END)
    head = b"MThd" + struct.pack(">IHHH", 6, 1, len(tracks), TICKS)
    return head + b"".join(b"MTrk" + struct.pack(">I", len(t)) + t for t in tracks)


_END = b"\x00\xff\x2f\x00"


def _varying(number: int) -> bytes:
    """A number in groups of seven bits, the highest first."""
    out = bytes([number & 127])
    while number := number >> 7:
        out = bytes([number & 127 | 128]) + out
    return out


def sound(series: Sequence[Integers], spec: SequenceSpec, rate: int = RATE) -> bytes:
    """A WAV file: every note as four fading partials; two seconds between the sequences.

    `rate` is in samples of 16 bits a second.
    """
    step = _step_seconds(spec)
    seconds = sum(len(x) * step + 2.0 for x in series) - 2.0
    total, begin = np.zeros(round(seconds * rate) + rate, np.float64), 0.0
    for x in series:
        for note in notes(x, spec):
            length = (note.stop - note.start) * step + 0.1
            t = np.arange(round(length * rate)) / rate
            envelope = (
                np.minimum(t / 0.01, 1) * np.exp(-1.5 * t) * np.minimum((length - t) / 0.1, 1)
            )
            pitch = 440.0 * 2 ** ((note.pitch - 69) / 12)
            heard = [n for n in (1, 2, 3, 4) if 2 * n * pitch < rate]
            tone = sum(np.sin(2 * np.pi * pitch * n * t) / n**1.5 for n in heard)
            first = round((begin + note.start * step) * rate)
            total[first : first + len(t)] += envelope * tone
        begin += len(x) * step + 2.0
    loudest = max(float(np.abs(total).max()), 1e-9)
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes((total / loudest * 0.8 * 32767).astype("<i2").tobytes())
    return file.getvalue()


def picture(series: Sequence[Integers], spec: SequenceSpec, caption: str = "") -> bytes:
    """A PNG of the first sequences: pitch against time for music, else a line for each column."""
    shown = list(series[:MOST])
    music = is_music(spec)
    rows = len(shown) if music else len(spec.columns[:MOST])
    figure = new_figure(8.0, 1.0 + (1.5 if music else 1.3) * rows)
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for i, axis in enumerate(axes):
        if music:
            for note in notes(shown[i], spec):
                bar, height = [(note.start, note.stop - note.start)], (note.pitch - 0.5, 1)
                axis.broken_barh(bar, height, facecolor=f"C{note.voice}")
            axis.set(ylabel="pitch", xlim=(0, max(map(len, shown))))
            continue
        column = spec.columns[i]
        for x in shown:
            axis.plot(column.numbers(x[:, i]), linewidth=1.0, drawstyle="steps-mid")
        axis.set_ylabel(column.name)
        if column.names and len(column.names) <= 8:
            axis.set_yticks(range(len(column.names)), column.names)
    axes[-1].set_xlabel(spec.time_step)
    if caption:
        figure.suptitle(caption, fontsize=9)
    return figure_png(figure)
