"""Proofs: numerical checks of a model, with what was measured and what is allowed."""

from __future__ import annotations

import dataclasses
import html
import math
from pathlib import Path
from typing import Any

from likely.errors import InvalidData, ProofFailed
from likely.files import reading, record_of
from likely.files.inline import badge, fragment, line, table
from likely.runs import checkpoint


@dataclasses.dataclass(frozen=True)
class Proof:
    """One check.

    Attributes:
        name: short, as "no future leak".
        passed: whether `measured` is within `tolerance`.
        measured: the measured number; NaN counts as failed.
        tolerance: the largest number that passes.
        about: a sentence: what was measured, on what.
        vital: whether a failure means that a likelihood is wrong. The others concern other claims
        of
            the model (no blind spot, every weight is used, training).
    """

    name: str
    passed: bool
    measured: float
    tolerance: float
    about: str
    vital: bool = True

    @classmethod
    def at_most(
        cls, name: str, measured: float, tolerance: float, about: str, *, vital: bool = True
    ) -> Proof:
        """A check that passes if `measured <= tolerance` (NaN does not)."""
        passed = measured <= tolerance
        return cls(name, passed, float(measured), float(tolerance), about, vital)

    def __str__(self) -> str:
        word = "passed" if self.passed else "FAILED"
        return (
            f"{word}: {self.name} (measured {self.measured:.3g}, allowed {self.tolerance:.3g}). "
            f"{self.about}"
        )


@dataclasses.dataclass(frozen=True)
class Guideline:
    """A guideline for the architecture of a model (`likely.verify.guidelines`).

    Attributes:
        rule: in words.
        breaches: a clause each, that names the network and the layer; none where it is kept.
        reason: why the settings ask for the breach; "" where nothing does.
    """

    rule: str
    breaches: tuple[str, ...] = ()
    reason: str = ""

    @property
    def kept(self) -> bool:
        """Whether the networks follow it."""
        return not self.breaches

    @property
    def about(self) -> str:
        """What breaches it, and why; "" where it is kept."""
        reason = f" ({self.reason})" if self.reason else ""
        return "; ".join(self.breaches) + reason

    def __str__(self) -> str:
        return f"kept: {self.rule}" if self.kept else f"BREACH: {self.rule}: {self.about}"


@dataclasses.dataclass(frozen=True, repr=False)
class Proofs:
    """All checks of one model with one set of weights.

    Attributes:
        model: class of the model.
        digest: of its weights (`weights_digest`).
        quick: whether it was the short version that an evaluation runs.
        seed: of inputs and noise.
        proofs: the checks.
        guidelines: those of a DCGAN; () for any other model.
    """

    model: str
    digest: str
    quick: bool
    seed: int
    proofs: tuple[Proof, ...]
    guidelines: tuple[Guideline, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every check passed, and each guideline is kept or its breach asked for."""
        return not self.failed and all(each.kept or each.reason for each in self.guidelines)

    @property
    def failed(self) -> tuple[Proof, ...]:
        """The checks that did not pass."""
        return tuple(proof for proof in self.proofs if not proof.passed)

    def __getitem__(self, name: str) -> Proof:
        for proof in self.proofs:
            if proof.name == name:
                return proof
        raise KeyError(f"no proof {name!r}; there are {[proof.name for proof in self.proofs]}")

    def require(self) -> None:
        """Raise if a check that the likelihood depends on failed.

        Raises:
            ProofFailed: names every failed check that a likelihood depends on.
        """
        broken = [proof for proof in self.failed if proof.vital]
        if broken:
            raise ProofFailed(
                f"{self.model}: its likelihood is not printed, because "
                + "; ".join(
                    f'"{proof.name}" failed (measured {proof.measured:.3g}, allowed '
                    f"{proof.tolerance:.3g}: {proof.about})"
                    for proof in broken
                )
            )

    @property
    def verdict(self) -> str:
        """How many passed, in words."""
        count, failed = len(self.proofs), len(self.failed)
        words = f"{failed} of {count} proofs FAILED" if failed else "all proofs passed"
        if self.guidelines:
            kept = sum(each.kept for each in self.guidelines)
            words += f", {kept} of {len(self.guidelines)} guidelines kept"
        return words

    def __str__(self) -> str:
        return "\n".join(
            [f"{self.model}: {self.verdict}", *map(str, self.proofs), *map(str, self.guidelines)]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        words = [
            badge("passed", "good") if p.passed else badge("FAILED", "none") for p in self.proofs
        ]
        rows = [
            (
                word,
                f"<b>{html.escape(proof.name)}</b><br>{html.escape(proof.about)}",
                f"{proof.measured:.3g}",
                f"{proof.tolerance:.3g}",
            )
            for word, proof in zip(words, self.proofs, strict=True)
        ]
        for each in self.guidelines:
            word = badge("kept", "good") if each.kept else badge("BREACH", "none")
            text = f"<b>{html.escape(each.rule)}</b><br>{html.escape(each.about)}"
            rows.append((word, text, "", ""))
        verdict, _, _ = str(self).partition("\n")
        return fragment(line(verdict), table(("", "check", "measured", "allowed"), rows))

    def to_json(self) -> dict[str, Any]:
        """Plain values; a number that is not finite becomes None."""
        record = dataclasses.asdict(self)
        for proof in record["proofs"]:
            for key in ("measured", "tolerance"):
                if not math.isfinite(proof[key]):
                    proof[key] = None
        lists = {key: list(record[key]) for key in ("proofs", "guidelines")}
        return {**record, **lists, "passed": self.passed}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Proofs:
        """Read what `to_json` wrote.

        Raises:
            InvalidData: a field is missing, or of another kind.
        """
        proofs = []
        wanted = {"model": str, "digest": str, "quick": bool, "seed": int, "proofs": list}
        for key, kind in wanted.items():
            if not isinstance(record_of(record, key)[key], kind):
                raise InvalidData(f'"{key}" is no {kind.__name__}')
        for entry in record["proofs"]:
            record_of(entry, *(field.name for field in dataclasses.fields(Proof)))
            if not (isinstance(entry["passed"], bool) and isinstance(entry["vital"], bool)):
                raise InvalidData('"passed" and "vital" are true or false')
            numbers = {
                key: math.nan if entry[key] is None else float(entry[key])
                for key in ("measured", "tolerance")
            }
            proofs.append(Proof(**{**entry, **numbers}))
        fields = {key: record[key] for key in ("model", "digest", "quick", "seed")}
        guidelines = []
        for entry in record.get("guidelines", []):  # older files have none
            record_of(entry, *(field.name for field in dataclasses.fields(Guideline)))
            guidelines.append(Guideline(**{**entry, "breaches": tuple(entry["breaches"])}))
        return cls(**fields, proofs=tuple(proofs), guidelines=tuple(guidelines))

    def save(self, path: str | Path) -> None:
        """Write them as JSON, atomically."""
        checkpoint.write_json(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Proofs:
        """Read what `save` wrote."""
        remedy = "delete it, and `likely verify` writes it again"
        record = checkpoint.read_json(Path(path), remedy)
        with reading(path, what="damaged", remedy=remedy, kind=checkpoint.CheckpointError):
            return cls.from_json(record)
