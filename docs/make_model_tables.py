"""Write the lists of models into README.md and docs from the registry.

python docs/make_model_tables.py

The page of a model is the one with its name in a first line `% models: made made-ensemble`.
Between `<!-- models... -->` and `<!-- end -->` stands what this script wrote; a test compares.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from likely.models import MODELS, ModelEntry

DOCS = Path(__file__).parent
# Classes of the taxonomy, the nearest one first: how the models of the class are sampled, and
# what codes they have.
KINDS = {
    "Mixture": ("from one member", "none"),
    "Incremental": ("one dimension after another, every activation computed once", "none"),
    "Autoregressive": ("one rank after another, all pixels of a rank at once", "none"),
    "Split": ("averages, then differences, one after another", "none"),
    "ExpectedStatistics": ("from one component", "the probabilities of the components"),
    "PPCA": ("one pass", "features: the mean of the exact posterior"),
    "Dequantized": ("through the inverse map", "none"),
    "EnergyBased": ("a Markov chain", "yes, hidden units"),
    "DiscreteLatent": ("codes one after another, then one pass", "yes, discrete"),
    "LatentVariable": (
        "one pass; of the PixelVAE also a small network by pixels",
        "yes, approximate posterior",
    ),
    "GenerativeAutoencoder": ("a code from its density, then one pass", "yes"),
    "ImplicitDensity": ("one pass", "only of its own samples"),
    "EncoderDecoder": ("none", "yes"),
}
LIKELIHOODS = {
    "TractableDensity": "exact",
    "ApproximateDensity": "a bound",
    "EnergyBased": "annealed, too high",
    "ImplicitDensity": "none",
}


def listed() -> list[ModelEntry]:
    """The models of Likely."""
    return [entry for entry in MODELS.values() if entry.home.startswith("likely.")]


def bases(entry: ModelEntry) -> list[str]:
    """Names of the classes that a model is an instance of."""
    return [base.__name__ for base in entry.load().__mro__]


def kind(entry: ModelEntry) -> str:
    """Its nearest class of the taxonomy."""
    return next(name for name in bases(entry) if name in KINDS)


def place(entry: ModelEntry) -> str:
    """Its place in the taxonomy in words, as "explicit, tractable"."""
    names = bases(entry)
    if "GenerativeModel" not in names:
        return "without a density"
    if "ImplicitDensity" in names:
        return "implicit"
    return "explicit, " + ("tractable" if "TractableDensity" in names else "approximate")


def pages() -> dict[str, str]:
    """The page of each model, without its ending."""
    of_model = {}
    for path in sorted(DOCS.glob("*.md")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        if first.startswith("% models: "):
            of_model |= dict.fromkeys(first.removeprefix("% models: ").split(), path.stem)
    return of_model


def links(entries: list[ModelEntry]) -> str:
    """Models as links to their pages."""
    page = pages()
    return ", ".join(f"[{e.class_name}]({page[e.name]}.md)" for e in entries)


def rows(show: Callable[[list[ModelEntry]], str], *, codes: bool) -> str:
    """A table with a row for each place and class."""
    heading = ["kind", "models", "likelihood", "sampling", *(["codes"] if codes else [])]
    lines = [heading, ["---"] * len(heading)]
    groups: dict[tuple[str, str], list[ModelEntry]] = {}
    for entry in listed():
        groups.setdefault((place(entry), kind(entry)), []).append(entry)
    for (where, name), entries in groups.items():
        known = [LIKELIHOODS[base] for base in bases(entries[0]) if base in LIKELIHOODS]
        likelihood = known[0] if known else "none"
        sampling, code = KINDS[name]
        words = f"{where}: mixtures" if name == "Mixture" else where
        lines.append([words, show(entries), likelihood, sampling, *([code] if codes else [])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def contents() -> str:
    """The tables of contents of the model pages, one for each place."""
    page, shown = pages(), []
    first = {page[e.name]: place(e) for e in reversed(listed())}  # of a page of several places
    for where in dict.fromkeys(map(place, listed())):
        names = [
            name for name in dict.fromkeys(page[e.name] for e in listed()) if first[name] == where
        ]
        caption = where[0].upper() + where[1:]
        options = f":caption: {caption}\n:hidden:\n:maxdepth: 1"
        shown.append(f"```{{toctree}}\n{options}\n\n" + "\n".join(names) + "\n```")
    return "\n\n".join(shown)


def classes() -> str:
    """The reference of the models, by module."""
    modules: dict[str, list[str]] = {}
    for entry in listed():
        modules.setdefault(entry.place.partition(":")[0], []).append(entry.class_name)
    parts = [f".. automodule:: {m}\n   :members: {', '.join(n)}" for m, n in modules.items()]
    return "```{eval-rst}\n" + "\n\n".join(parts) + "\n```"


def settings() -> str:
    """The reference of their settings."""
    names = ", ".join(entry.settings.__name__ for entry in listed())
    return (
        f"```{{eval-rst}}\n.. automodule:: likely.models\n   :members: {names}\n"
        "   :show-inheritance:\n```"
    )


def filled(text: str, part: str, new: str) -> str:
    """The text with the part of that name replaced."""
    marks = rf"(<!-- {re.escape(part)} -->)\n.*?\n(<!-- end -->)"
    assert len(re.findall(marks, text, re.DOTALL)) == 1, part
    return re.sub(marks, lambda m: f"{m[1]}\n{new}\n{m[2]}", text, flags=re.DOTALL)


def written() -> dict[Path, str]:
    """Every file with lists of models, as it should be."""
    readme, index, tree, api = (
        DOCS.parent / "README.md", DOCS / "index.md", DOCS / "taxonomy.md", DOCS / "api.md"
    )  # fmt: skip
    texts = {path: path.read_text(encoding="utf-8") for path in (readme, index, tree, api)}
    names = rows(lambda entries: ", ".join(f"`{e.class_name}`" for e in entries), codes=False)
    texts[readme] = filled(texts[readme], "models", names)
    texts[index] = filled(texts[index], "models", contents())
    texts[tree] = filled(texts[tree], "models", rows(links, codes=True))
    texts[api] = filled(texts[api], "models", classes())
    texts[api] = filled(texts[api], "models: settings", settings())
    return texts


def main() -> None:
    for path, text in written().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
