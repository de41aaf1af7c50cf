"""What the names of folders and files say about splits. A split is kept or refused, never guessed.

The words are those of the Hugging Face Hub: train, training; validation, valid, val, dev; test,
testing, eval, evaluation; whatever their case, and with digits and words as "images" or "set"
around them (`Train`, `val2017`, `test_images`).
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from likely.data.spec import Split
from likely.errors import InvalidData

SPLIT_WORDS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_UNCLEAR = re.compile(r"(hold|held)[-_ ]?out", re.IGNORECASE)
_PLAIN = frozenset(
    (
        *("data", "dataset", "file", "files", "folder", "part", "partial", "set", "sets", "split"),
        *("image", "images", "img", "imgs", "photo", "photos", "pic", "pics"),
        *("picture", "pictures", "jpeg", "jpg", "png", "sample", "samples"),
    )
)
LEFT_OUT = frozenset(("unlabeled", "unlabelled", "unsupervised", "extra"))

Folders = tuple[str, ...]
Meaning = Split | Literal["unclear"] | None


def words_of(name: str) -> list[str]:
    """The words of a name: "TrainSet_2017" has "train" and "set", and so has "trainset"."""
    words: list[str] = []
    for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name):
        word = word.lower()
        ending = next((e for e in ("images", "set", "data") if word.endswith(e)), "")
        start = word.removesuffix(ending)
        words += [start, ending] if ending and start in SPLIT_WORDS else [word]
    return words


def split_of_file(stem: str) -> Meaning:
    """The split that a file's name has among its words, as "mnist_test" or "dev-00000-of-00001"."""
    if _UNCLEAR.search(stem):
        return "unclear"
    splits = {SPLIT_WORDS[word] for word in words_of(stem) if word in SPLIT_WORDS}
    return None if not splits else splits.pop() if len(splits) == 1 else "unclear"


def splits_of_folders(names: Iterable[str]) -> dict[str, Meaning]:
    """Those names of sibling folders that stand for splits.

    "bullet_train" alone is a class; "mnist_train" is a split where "mnist_test" lies beside it.
    """
    result: dict[str, Meaning] = {}
    alike: dict[Folders, dict[str, Split]] = {}
    for name in names:
        if _UNCLEAR.fullmatch(name):
            result[name] = "unclear"
            continue
        words = [word for word in words_of(name) if word not in _PLAIN]
        splits = [SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS]
        if len(splits) == 1 and len(words) == 1:
            result[name] = splits[0]
        elif len(splits) == 1:
            rest = tuple(word for word in words if word not in SPLIT_WORDS)
            alike.setdefault(rest, {})[name] = splits[0]
    for group in alike.values():
        if "train" in group.values() and len(set(group.values())) > 1:
            result.update(group)
    return result


def assigned(home: str, names: Mapping[str, Meaning], hint: str = "") -> dict[str, Split]:
    """Each name's split, where every split has one name and there is a training split.

    Raises:
        InvalidData: anything else; the message says what was found and what to do.
    """
    result: dict[str, Split] = {}
    for name, meaning in sorted(names.items()):
        if meaning == "unclear" or meaning is None:
            raise InvalidData(
                f"{home}: {name} may name one split or another; call it train, validation or test"
            )
        other = next((n for n, split in result.items() if split == meaning), None)
        if other is not None:
            raise InvalidData(
                f"{home}: {other} and {name} both name the {meaning} split; keep one of them, or "
                "put them together"
            )
        result[name] = meaning
    if "train" not in result.values():
        raise InvalidData(
            f"{home} has the split {_listed(names)} and no train; to read it as data in one piece, "
            f"give its own path{hint}"
        )
    return result


@dataclasses.dataclass(frozen=True)
class Arrangement:
    """What the folders of images mean.

    Attributes:
        splits: of each image; None where there are no splits.
        classes: of each image, the folders below its split (or below what holds all images).
        left_out: positions of the images that are in no split, with the reason.
        expected: the splits that must have a readable image.
    """

    splits: list[Split | None] | None
    classes: list[Folders]
    left_out: dict[int, str]
    expected: tuple[Split, ...] = ()


def arranged(
    home: str,
    folders: Sequence[Folders],
    empty: Sequence[Folders] = (),
    readable: Callable[[int], bool] = lambda position: True,
) -> Arrangement:
    """Find the splits among the folders that hold images.

    `folders` has that of each image, from `home` downwards; `empty` are those without any file;
    `readable` tells whether the image at a position is one, and is asked only before a refusal.

    Raises:
        InvalidData: there are splits, and not every image lies in one; or no training split.
    """
    pairs = _pairs(folders, empty)
    if len(pairs) > 1:
        where = _listed("/".join(pair) or "." for pair in pairs)
        raise InvalidData(
            f"{home}: found training and test folders in more than one place ({where}); put the "
            "splits first, as train/cat and test/cat, or give one of these folders"
        )
    base = pairs[0] if pairs else _shared(folders)
    children = {f[len(base)] for f in (*folders, *empty) if _below(f, base)}
    meanings = splits_of_folders(children)
    if not meanings:
        return Arrangement(None, [f[len(base) :] for f in folders], {})
    inside = home if not base else f"{home}/{'/'.join(base)}"
    splits = assigned(inside, meanings, "; where it is a class, rename it")
    named = _listed(sorted(splits))
    owners = [splits.get(f[len(base)]) if _below(f, base) else None for f in folders]
    left_out: dict[int, str] = {}
    for position, (place, owner) in enumerate(zip(folders, owners, strict=True)):
        if owner is not None:
            continue
        extra = any(word in LEFT_OUT for name in place for word in words_of(name))
        loose = place == base[: len(place)]
        if pairs and extra:
            left_out[position] = f"lies outside the splits {named}"
        elif readable(position):
            if not (pairs and loose):
                raise _outside(inside, base, splits, folders, owners)
            left_out[position] = f"lies outside the splits {named}"
    for name, split in splits.items():
        if split not in owners:
            raise InvalidData(f"{inside}: the split {name} holds no image; fill it, or remove it")
    classes = [f[len(base) + 1 :] for f in folders]
    return Arrangement(owners, classes, left_out, tuple(splits.values()))


def _outside(
    home: str,
    base: Folders,
    splits: Mapping[str, Split],
    folders: Sequence[Folders],
    owners: Sequence[Split | None],
) -> InvalidData:
    counts = Counter(owners)
    present = ", ".join(f"{name} ({counts[split]})" for name, split in sorted(splits.items()))
    others = Counter(
        "/".join(place[: len(base) + 1]) or "no folder"
        for place, owner in zip(folders, owners, strict=True)
        if owner is None
    )
    beside = ", ".join(f"{name} ({count})" for name, count in sorted(others.items())[:5])
    hint = f"; where {min(splits)} is a class, rename it" if len(splits) == 1 else ""
    return InvalidData(
        f"{home}: found images in the split {present}, and others in {beside}"
        f"{', ...' * (len(others) > 5)}; put every image into train, validation or test, or move "
        f"the others away{hint}"
    )


def _pairs(folders: Sequence[Folders], empty: Sequence[Folders]) -> list[Folders]:
    """Every folder that holds a training folder and one of another split, with images in one."""
    children: dict[Folders, set[str]] = {}
    filled: dict[Folders, set[str]] = {}
    for place in {*folders, *empty}:
        for depth in range(len(place)):
            children.setdefault(place[:depth], set()).add(place[depth])
    for place in set(folders):
        for depth in range(len(place)):
            filled.setdefault(place[:depth], set()).add(place[depth])
    pairs = []
    for place, names in sorted(children.items()):
        meanings = splits_of_folders(names)
        is_pair = "train" in meanings.values() and len(set(meanings.values())) > 1
        if is_pair and filled.get(place, set()) & meanings.keys():
            pairs.append(place)
    return pairs


def _shared(folders: Sequence[Folders]) -> Folders:
    """The folder that holds all images, at most down to one that is called like a split."""
    base: Folders = ()
    while folders and all(len(f) > len(base) for f in folders):
        heads = {f[len(base)] for f in folders}
        if len(heads) > 1 or splits_of_folders(heads):
            break
        base = (*base, heads.pop())
    return base


def _below(place: Folders, base: Folders) -> bool:
    return len(place) > len(base) and place[: len(base)] == base


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
