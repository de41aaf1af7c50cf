"""What a fit gives back: the model, and how it came about."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import nn

from likely.data.spec import Dataset
from likely.density import Fittable
from likely.devices import environment
from likely.models.gan.adversary import DISCRIMINATOR
from likely.runs.directory import RunDirectory
from likely.runs.resume import describe_fit
from likely.runs.view import Viewed
from likely.settings import FitSettings
from likely.training import health
from likely.training.objectives import Objective
from likely.training.optimizers import state_of
from likely.training.progress import duration


class Stopped(UserWarning):
    """A fit was stopped by a signal, and its run is returned as it is; the message says where."""


@dataclasses.dataclass(repr=False)
class Run(Viewed):
    """A fitted model and how it came about.

    Attributes:
        model: with the averaged weights of the best validation (the last, where none is made); of a
            run that was stopped, the averaged weights so far, as in weights.safetensors.
        settings: of the fit.
        step: updates done.
        status: a sentence.
        finished: whether all steps were done.
        metrics: the records of metrics.jsonl.
        directory: where it is saved, or None.
        seconds: spent in the loop, over all parts of a resumed run.
        findings: what the health monitor says is going wrong, worst first; often empty.
        adversary: the network that played against an implicit density, else None.
        data: training set.
        objective: what was minimised.
        origin: where the weights at the start came from, "" for initial ones.
    """

    model: Fittable
    settings: FitSettings
    step: int
    status: str
    finished: bool
    metrics: list[dict[str, float]]
    directory: Path | None
    seconds: float
    findings: list[health.Finding] = dataclasses.field(default_factory=list)
    adversary: nn.Module | None = None
    data: Dataset | None = None
    objective: Objective | None = None
    origin: str = ""

    @property
    def state(self) -> str:
        """How far the fit is, in words."""
        return f"{self.status} in {duration(self.seconds)}"

    def __str__(self) -> str:
        if self.status != "running":
            return super().__str__()
        # Before the numbers of the step, as `progress=print` prints them.
        return f"{self.title}: step {self.step} of {self.settings.steps}:"

    __repr__ = __str__

    def save(self, directory: str | Path) -> Path:
        """Write the run to a new directory, where `likely.load` and the command find it.

        It can be used and measured there, and its weights fitted further in another directory.
        A fit that should resume takes `out=` from the beginning.

        Returns:
            The directory.

        Raises:
            InvalidSetting: a run or other files are there, or the objective cannot be written.
            CheckpointError: a file cannot be written.
        """
        assert self.data is not None
        wanted = describe_fit(self.model, self.data, self.objective, self.settings, self.origin)
        findings = [dataclasses.asdict(finding) for finding in self.findings]
        networks: dict[str, nn.Module] = {"": self.model}
        if self.adversary is not None:
            networks[f"{DISCRIMINATOR}."] = self.adversary
        RunDirectory(directory).save(
            wanted, environment(), state_of(networks), self.metrics, findings
        )
        return Path(directory)
