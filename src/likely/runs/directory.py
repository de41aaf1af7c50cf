"""`RunDirectory`: the files of a run, and their one author.

    config.json        model, its settings, the data it was fitted to and how to load them
    fit.json           settings of the fit, objective, fingerprint of the training data
    environment.json   versions, processor, threads; what differed where the fit was resumed
    metrics.jsonl      one record per line, without times; timing.jsonl has the times
    weights.safetensors  averaged weights, for use
    best.safetensors   averaged weights of the best validation so far
    state.safetensors  the checkpoint: everything that the next step depends on
                       model.*, average.*, optimizer.<player>.<parameter>.<slot>, sums.*; and as
                       strings the step, the best validation, the seconds so far, and fit.json
    report.json        estimates, written by `likely evaluate`
    proofs.json        written by `likely verify`, valid for these weights only
    health.json        findings of the health monitor
    samples/           sheets, written by `likely sample`

Each file is written atomically. A fit is refused before its run is touched; what it
writes first makes the directory a run, and from then on a kill leaves one that resumes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from likely.data.sequences.spec import spec_of
from likely.errors import InvalidData, InvalidSetting
from likely.files import parse_json, reading, record_of, writing
from likely.runs import checkpoint
from likely.runs.checkpoint import CheckpointError
from likely.runs.journal import METRICS, TIMING, read_lines
from likely.runs.resume import (
    BEGINNING,
    LENGTH,
    START_OVER,
    Description,
    differences,
    longer,
    same_beginning,
)

CONFIG, FIT, ENVIRONMENT, HEALTH = "config.json", "fit.json", "environment.json", "health.json"
WEIGHTS, BEST, STATE = "weights.safetensors", "best.safetensors", "state.safetensors"
REPORT, PROOFS, SAMPLES = "report.json", "proofs.json", "samples"


class AnotherRun(InvalidSetting):
    """A directory holds a run that a fit cannot go on with.

    Attributes:
        reason: the message without what `likely fit` can do.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(f"{reason}; {remedy}" if remedy else reason)
        self.reason = reason


class RunDirectory:
    """A directory that holds a run, or will.

    Attributes:
        path: of the directory.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def holds_a_run(self) -> bool:
        """Whether there is a run, of whatever state."""
        # A fit from Python wrote no config.json once.
        return (self / CONFIG).is_file() or (self / FIT).is_file()

    # -- reading ---------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """What config.json says, its fields of the right kind.

        Raises:
            InvalidSetting: the directory is no run.
            CheckpointError: the file is damaged; the message names the field.
        """
        path = self / CONFIG
        if not path.is_file():
            raise InvalidSetting(
                f"{self.path} is not a run: it has no {CONFIG}; `likely fit MODEL --data DATA "
                "--out DIRECTORY` makes one, and likely.fit(..., out=DIRECTORY) in Python"
            )
        with self.reading_config():
            config = record_of(checkpoint.read_json(path), "model", "settings", "spec", "data")
            for field in ("settings", "spec", "data"):
                with self.reading_config(field):
                    if field != "data" or config[field] is not None:
                        record_of(config[field])
            names = {"model": config["model"]}
            if config["data"] is not None:
                names["data"] = record_of(config["data"], "name")["name"]
            for field, value in names.items():
                if not isinstance(value, str):
                    raise InvalidData(f"{field}: expected a name, given {value!r}")
        return config

    def reading_config(self, field: str = "") -> contextlib.AbstractContextManager[None]:
        """Error boundary of config.json, or of a field of it."""
        return reading(
            self / CONFIG,
            field,
            what="damaged",
            kind=CheckpointError,
            remedy="restore it from a copy, or fit again in another directory",
        )

    def fit(self) -> dict[str, Any]:
        """What fit.json says; empty where there is none.

        Raises:
            CheckpointError: it is damaged.
        """
        path = self / FIT
        with reading(path, what="damaged", kind=CheckpointError, remedy=START_OVER):
            return record_of(checkpoint.read_json(path, START_OVER)) if path.exists() else {}

    def weights(self, name: str = WEIGHTS) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Weights and the strings beside them.

        Raises:
            CheckpointError: missing or damaged; says what to do.
        """
        again = (self / STATE).is_file() and name == WEIGHTS
        # A run that can be resumed writes its weights again.
        remedy = "run the same `likely fit` command again" if again else "fit again"
        remedy = f"restore it from a copy, or {remedy} to write it again"
        return checkpoint.read_tensors(self / name, START_OVER if name == BEST else remedy)

    def records(self) -> list[dict[str, float]]:
        """The records of metrics.jsonl."""
        return read_lines(self / METRICS)

    def seconds(self) -> float | None:
        """Spent in the loop of the fit, or None where that is not known."""
        clock = [line["seconds"] for line in read_lines(self / TIMING) if "seconds" in line]
        return clock[-1] if clock else None

    def threads(self) -> int | None:
        """The threads that the run was begun with; it resumes bit for bit with these.

        None where there is no run to resume.
        """
        if not (self / STATE).exists():
            return None
        threads = self._environments()[0].get("threads")
        return threads if isinstance(threads, int) and threads > 0 else None

    def _environments(self) -> list[dict[str, Any]]:
        """What environment.json says of the run's beginning, then of each part that differed."""
        path = self / ENVIRONMENT
        if not path.exists():
            return [{}]
        remedy = "restore it from a copy, or delete it: the run then resumes with today's threads"
        with reading(path, what="damaged", kind=CheckpointError, remedy=remedy):
            record = record_of(checkpoint.read_json(path, remedy))
            return [record, *map(record_of, record.pop("resumed", []))]

    # -- what a fit may do here ------------------------------------------------------------

    def plan(self, wanted: Description, resume: bool = True) -> int | None:
        """The step at which a fit would resume here; None where it would start from scratch.

        Nothing is changed. `resume` says whether a run that is here may be gone on with, not
        replaced.

        Raises:
            InvalidSetting: something else is here: files of another kind, a run of another model or
                other data, or one that differs in a setting; the message names them all.
            CheckpointError: a file of the run is damaged.
        """
        if self.path.is_file():
            raise InvalidSetting(f"{self.path} is a file; give a directory")
        if not self.holds_a_run:
            self._refuse_other_files()
            return None
        self._refuse_other_run(wanted)
        if not resume:
            return None
        if (self / WEIGHTS).exists() and not (self / STATE).exists():
            raise AnotherRun(
                f"{self.path} holds the weights of a fit but no {STATE}, so it cannot be resumed, "
                "and a fit from step 0 would overwrite them",
                "restore the file, start a fit in "
                f"another directory from these weights with --from {self.path}, or start from "
                "scratch with --no-resume (in Python: resume=False)",
            )
        state = self._state_strings()
        saved = self._described(state)
        if not saved:
            return None
        what = "no state of a fit"
        with reading(self / STATE, what=what, remedy=START_OVER, kind=CheckpointError):
            step = int(state.get("step", "0"))
        # A model that was fitted here, or read from here, goes on with its own run.
        if wanted.origin_run != str(self.path.resolve()):
            self._refuse_other_beginning(saved, wanted.fit)
        changed = differences(saved, wanted.fit)
        if changed and step and all(text.split()[0] in LENGTH for text in changed):
            possible, reason = longer(saved, wanted.fit, step)
            if possible:
                return step
            raise AnotherRun(
                f"{self.path} holds a run that cannot be prolonged ({'; '.join(changed)}): "
                f"{reason}",
                "start a fit in another directory from its weights with --from "
                f"{self.path} (in Python: likely.fit(likely.load({str(self.path)!r}).model, ...))",
            )
        if changed:
            raise AnotherRun(
                f"{self.path} holds a run with other settings ({'; '.join(changed)})",
                "give the old settings to resume it, another directory, or --no-resume (in "
                "Python: resume=False) to replace it",
            )
        return step if state else None

    def _refuse_other_beginning(self, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """A run that began from other weights would silently keep them."""
        if same_beginning(saved, now):
            return
        before, after = (record.get(BEGINNING[0], "initial weights") for record in (saved, now))
        others = f"not from {after}" if before != after else "whose weights were others then"
        raise AnotherRun(
            f"{self.path} holds a run that began from {before}, {others}",
            "give another directory, or --no-resume (in Python: resume=False) to replace it",
        )

    def _refuse_other_files(self) -> None:
        """A folder with something else in it is no place for a run."""
        if not self.path.is_dir():
            return
        others = sorted(path.name for path in self.path.iterdir() if path.name[0] != ".")
        if others:
            raise InvalidSetting(
                f"{self.path} holds other things ({', '.join(others[:3])}"
                f"{', ...' if len(others) > 3 else ''}) and no run; give a new or an empty "
                "directory"
            )

    def _state_strings(self) -> dict[str, str]:
        path = self / STATE
        return checkpoint.read_strings(path, START_OVER) if path.exists() else {}

    def _described(self, state: Mapping[str, str]) -> dict[str, Any]:
        """What the state file or, where there is none, fit.json says of the fit."""
        # States of before the settings were kept in them stand beside their fit.json.
        written, path = state.get("about"), self / (STATE if "about" in state else FIT)
        with reading(path, what="damaged", remedy=START_OVER, kind=CheckpointError):
            if written is None and not path.exists() and not state:
                return {}
            saved = record_of(
                parse_json(written) if written else checkpoint.read_json(path, START_OVER),
                "fit",
                "training_fingerprint",
            )
            for part in ("fit", "model", "objective"):
                if part in saved:
                    record_of(saved[part])
        return saved

    def _refuse_other_run(self, wanted: Description) -> None:
        """A run of another model or on other data is never replaced."""
        if not (self / CONFIG).is_file():
            return
        saved, other = self.config(), wanted.config
        another_model = saved["model"] != other["model"]
        with self.reading_config("spec"):
            spec = checkpoint.as_json(spec_of(saved["spec"]).to_json())
        differing = {key for key, value in other["spec"].items() if spec[key] != value}
        if not another_model and not differing:
            return
        names = [_data_words(config) for config in (saved, other)]
        what = "images" if differing - {"classes"} else "classes"
        same = f" (the same name, other {what})" if differing and names[0] == names[1] else ""
        raise InvalidSetting(
            f"{self.path} holds a run of {saved['model']} on {names[0]}, not of "
            f"{other['model']} on {names[1]}{same}; give another directory"
        )

    # -- writing ---------------------------------------------------------------------------

    def held(self) -> contextlib.AbstractContextManager[None]:
        """The directory, made if it is not there, for this process alone."""
        return checkpoint.sole_writer(self.path)

    def begin(self, wanted: Description, environment: Mapping[str, Any]) -> None:
        """Make this the directory of a fit at step 0."""
        # Nothing of an older run can be taken for a part of this one. The weights go first:
        # without a state they would look like those of a broken run.
        for name in (WEIGHTS, STATE, BEST, HEALTH, REPORT, PROOFS):
            with writing(self / name):
                (self / name).unlink(missing_ok=True)
        self.describe(wanted)
        checkpoint.write_json(self / ENVIRONMENT, environment)

    def go_on(self, wanted: Description) -> Description:
        """Make the run here that of a fit of other length or pauses, and give its description.

        Where its first weights came from stays as it was.
        """
        saved = self._described(self._state_strings())
        fit = {key: value for key, value in wanted.fit.items() if key not in BEGINNING}
        fit |= {key: saved[key] for key in BEGINNING if key in saved}
        wanted = dataclasses.replace(wanted, fit=fit)
        self.describe(wanted)
        return wanted

    def note_environment(self, environment: Mapping[str, Any], step: int) -> None:
        """Keep what differs, from this step on, from the environment of the part before."""
        first, *parts = self._environments()
        before = {key: value for part in (first, *parts) for key, value in part.items()}
        changed = {key: v for key, v in environment.items() if before.get(key) != v}
        if changed:
            resumed = [*parts, {"step": step, **changed}]
            checkpoint.write_json(self / ENVIRONMENT, {**first, "resumed": resumed})

    def describe(self, wanted: Description) -> None:
        """Write fit.json and config.json where they do not say so already."""
        for name, record in ((FIT, wanted.fit), (CONFIG, wanted.config)):
            content = checkpoint.json_bytes(record)
            path = self / name
            if record and not (path.is_file() and path.read_bytes() == content):
                checkpoint.write_bytes(path, content)

    def write_state(
        self,
        groups: Mapping[str, Mapping[str, Tensor]],
        about: Mapping[str, str],
        wanted: Description,
    ) -> None:
        """Write everything that the next step depends on, in one file."""
        strings = {**about, "about": json.dumps(wanted.fit)}
        checkpoint.write_tensors(self / STATE, checkpoint.flatten(groups), strings)

    def read_state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, str]]:
        """What `write_state` wrote."""
        tensors, about = checkpoint.read_tensors(self / STATE, START_OVER)
        return checkpoint.unflatten(tensors), about

    def write_weights(
        self, weights: Mapping[str, Tensor], about: Mapping[str, str], name: str = WEIGHTS
    ) -> None:
        """Write weights for use, or the best so far."""
        checkpoint.write_tensors(self / name, weights, about)

    def write_health(self, findings: Sequence[Mapping[str, Any]]) -> None:
        """Write what the health monitor says."""
        checkpoint.write_json(self / HEALTH, list(findings))

    def write_report(self, record: Mapping[str, Any]) -> None:
        """Write the estimates of `likely evaluate`."""
        checkpoint.write_json(self / REPORT, record)

    def save(
        self,
        wanted: Description,
        environment: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        records: Sequence[Mapping[str, float]],
        findings: Sequence[Mapping[str, Any]],
    ) -> None:
        """Write a whole run that was fitted in memory; it cannot be resumed.

        Raises:
            InvalidSetting: a run or other files are here.
        """
        if self.holds_a_run:
            raise InvalidSetting(f"{self.path} holds a run already; give another directory")
        self._refuse_other_files()
        with self.held():
            self.begin(wanted, environment)
            lines = "".join(json.dumps(record) + "\n" for record in records)
            checkpoint.write_bytes(self / METRICS, lines.encode())
            self.write_weights(weights, {"step": str(int(records[-1]["step"]))} if records else {})
            self.write_health(findings)


def _data_words(config: Mapping[str, Any]) -> str:
    """The data of a run in a few words."""
    data = config["data"]
    if data is None:
        return f"{config['spec'].get('name')} in memory"
    return " ".join([str(data["name"]), *(f"{k}={v}" for k, v in data.items() if k != "name")])
