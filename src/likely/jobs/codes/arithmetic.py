"""Groups for arithmetic of codes, chosen by their attributes or by hand, and the sheet of a sum.

A group is chosen by a text: numbers of samples, "3,17,40", as the sheet of samples shows them; or
what its images are, all of it: "triangle, size", "not Smiling, Male". What an image is are the
attributes of the data, its classes by name, and its factors: `size` alone is above the middle of
its values, `size > 0.2`, `size < 0.2` and `kind = 2` are what they say. `class=7` is the class of
that name, for names that look like numbers of samples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from likely.data.spec import Dataset
from likely.density import Arithmetic, Decoder, EncoderDecoder
from likely.errors import InvalidSetting, nearest
from likely.jobs.codes.steering import AttributeClassifier, attributes_of, decoded, labelled_codes

# Samples that are labelled for groups, members of a group at most, and those that a sheet shows.
LABELLED, MOST, SHOWN = 2000, 10, 3

Bools = npt.NDArray[np.bool_]


def numbers_of(text: str) -> list[int] | None:
    """The numbers of "3,17,40"; None for a text that names attributes."""
    words = [word.strip() for word in text.split(",")]
    return [int(word) for word in words] if all(word.isdecimal() for word in words) else None


def satisfying(
    text: str, columns: Mapping[str, Bools], factors: Mapping[str, npt.NDArray[np.float64]]
) -> Bools:
    """Which examples are all that a text says, bool [N].

    Args:
        text: see the module.
        columns: what each example is, by name.
        factors: numbers of each example, by name.

    Raises:
        InvalidSetting: there is no attribute of a name, or a comparison with no number.
    """
    chosen = np.ones(len(next(iter(columns.values()))), np.bool_)
    for term in text.split(","):
        compared = re.fullmatch(r"\s*(\w[\w .-]*?)\s*(=|<|>)\s*(\S+)\s*", term)
        if compared:
            name, sign, value = compared.groups()
            if (name, sign) == ("class", "=") and value in columns:
                chosen &= columns[value]
                continue
            if name not in factors:
                known = nearest(name, factors) if factors else "the data has none"
                raise InvalidSetting(f'"{term.strip()}": there is no factor "{name}": {known}')
            try:
                number = float(value)
            except ValueError:
                raise InvalidSetting(f'"{term.strip()}": "{value}" is no number') from None
            column = factors[name]
            chosen &= {"=": np.isclose(column, number), "<": column < number,
                       ">": column > number}[sign]  # fmt: skip
            continue
        name = term.strip()
        negated = name.startswith("not ")
        name = name.removeprefix("not ").strip()
        if name not in columns:
            raise InvalidSetting(f'there is no attribute "{name}": {nearest(name, columns)}')
        chosen &= ~columns[name] if negated else columns[name]
    return chosen


def chosen_groups(
    model: Decoder,
    texts: Sequence[str],
    data: Dataset | None,
    classify: Callable[[], AttributeClassifier] | None = None,
    *,
    samples: int = 64,
    seed: int = 0,
) -> tuple[list[Tensor], str]:
    """The groups of texts, for `arithmetic`: codes, or examples that the model encodes.

    Args:
        model: with codes, unconditional.
        texts: of the groups; all are numbers or none is.
        data: whose examples an encoder encodes; None where all texts are numbers.
        classify: gives a classifier that labels the samples of a model without an encoder.
        samples: on the sheet that numbers are read from.
        seed: of the samples.

    Returns:
        The groups and in words where their codes and labels are from.

    Raises:
        InvalidSetting: an attribute or a sample that is not there, or texts of both kinds.
    """
    by_number = [numbers_of(text) for text in texts]
    if all(numbers is not None for numbers in by_number):
        codes = model.drawn_codes(samples, seed=seed)
        groups = []
        for numbers in by_number:
            assert numbers is not None
            if max(numbers) >= samples:
                raise InvalidSetting(
                    f"there is no sample {max(numbers)}: they are 0 to {samples - 1}"
                )
            groups.append(codes[numbers])
        return groups, f"samples by their numbers, seed {seed}"
    if any(numbers is not None for numbers in by_number):
        raise InvalidSetting("choose all groups by numbers of samples, or all by attributes")
    if isinstance(model, EncoderDecoder):
        assert data is not None
        columns, factors = attributes_of(data), data.factors
        if not columns:
            raise InvalidSetting(
                f"{data.spec.name} has no classes, attributes or factors: choose samples by number"
            )
        where = [np.flatnonzero(satisfying(text, columns, factors))[:MOST] for text in texts]
        _refuse_few(texts, where)
        groups = [
            torch.from_numpy(data[index].astype(np.int64)).to(model.device) for index in where
        ]
        return groups, "codes of training images, which the encoder knows"
    assert classify is not None
    assert data is not None
    classifier = classify()
    pool = labelled_codes(model, classifier, data, LABELLED, seed)
    read = {name: pool.has[:, k].numpy() for k, name in enumerate(classifier.names)}
    where = [np.flatnonzero(satisfying(text, read, {}))[:MOST] for text in texts]
    _refuse_few(texts, where)
    return [pool.codes[torch.from_numpy(index)] for index in where], pool.about


def _refuse_few(texts: Sequence[str], where: Sequence[npt.NDArray[Any]]) -> None:
    for text, index in zip(texts, where, strict=True):
        if len(index) < 3:
            raise InvalidSetting(f'"{text}" holds for {len(index)} images; a group is at least 3')


def sum_sheet(
    model: Decoder,
    result: Arithmetic,
    plus: Sequence[str],
    minus: Sequence[str],
    caption: str,
) -> Any:
    """The picture of a sum: three of each group, its mean framed, and 3 x 3 around the result."""
    from likely.files.sheets import arithmetic_sheet

    titles = [f"+ {text}" for text in plus] + [f"- {text}" for text in minus]
    rows = [
        (title, decoded(model, codes[:SHOWN]), mean[None].cpu())
        for title, codes, mean in zip(titles, result.groups, result.means, strict=True)
    ]
    return arithmetic_sheet(rows, result.images.cpu(), model.spec.levels, caption=caption)
