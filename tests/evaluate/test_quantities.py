"""The table of quantities is what is measured, and what the documentation says."""

from __future__ import annotations

import re
from pathlib import Path

from likely.evaluate.quantities import COPYING, GROUPS, QUANTITIES, SAMPLES, SPEED, words

PAGE = Path(__file__).parent.parent.parent / "docs" / "evaluation.md"


def test_the_table_of_the_documentation_says_the_same() -> None:
    rows = re.findall(r"^\| (`.*?) \| .*? \| (\w[\w ]*) \| .*\|$", PAGE.read_text(), re.MULTILINE)
    directions = {"lower": True, "higher": False, "no direction": None}
    documented = {}
    for names, better in rows:
        first, *more = re.findall("`([a-z-]+)`", names)
        for name in (first, *more):
            full = name if not name.startswith("-") else first.rpartition("-")[0] + name
            documented[full] = directions[better]
    measured = [q for heading in (SAMPLES, COPYING, SPEED) for q in GROUPS[heading]]
    assert documented == {q.name: q.lower_is_better for q in measured}


def test_names_are_one_each_and_fit_a_terminal() -> None:
    assert len(QUANTITIES) == sum(map(len, GROUPS.values()))
    titles = [q.title for q in QUANTITIES.values()]
    labels = [q.label for q in QUANTITIES.values() if "-given-" not in q.name]
    assert len(set(titles)) == len(titles)
    assert len(set(labels)) == len(labels)
    assert max(map(len, labels)) <= 18
    assert words("of their own") == "of their own"
