"""Where to compute, in which precision, and with how many processes.

bfloat16 autocast is taken where the hardware multiplies it faster than float32: processors
with AMX tiles, and CUDA devices of compute capability 8 and above. A processor with AVX-512
bfloat16 but no AMX runs convolutions slower in bfloat16 than in float32, so it keeps float32.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from likely.errors import InvalidSetting
from likely.settings import Precision


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" takes CUDA, then Apple's, then the processor.

    Raises:
        InvalidSetting: unknown, or not present on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidSetting(f"device={name} cannot be used here: {reason}") from error
    return device


def gains_by_bfloat16(device: torch.device) -> bool:
    """Whether matrix products and convolutions run faster in bfloat16 on this device."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        return bool(torch.cpu._is_amx_tile_supported())
    return False


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The autocast block for a precision; a block without effect for float32."""
    wanted = precision == "bfloat16" or (precision == "auto" and gains_by_bfloat16(device))
    if not wanted:
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def place(model: nn.Module, device: torch.device) -> None:
    """Move a model to a device with convolution weights in channels_last order, in place."""
    model.to(device)
    if not any(p.dtype == torch.float64 for p in model.parameters()):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@dataclasses.dataclass(frozen=True)
class Team:
    """The processes that share a batch (started by torchrun), or this one alone.

    Gradients are summed over processes after each player's backward pass. That is what a DDP
    wrapper does, without its restriction: a gradient penalty differentiates twice, and losses
    call other methods than `forward`.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: torch.device) -> Team:
        """The team that torchrun's environment describes."""
        if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def sum_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes."""
        if self.size == 1:
            return
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        start = 0
        for parameter, gradient in zip(parameters, gradients, strict=True):
            stop = start + gradient.numel()
            parameter.grad = (
                flat[start:stop].view_as(gradient).clone(memory_format=torch.preserve_format)
            )
            start = stop

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return bool(self.sum(torch.tensor(float(flag)))) if self.size > 1 else flag

    def share(self, model: nn.Module) -> None:
        """Give every process the weights and buffers of the first."""
        if self.size > 1:
            for tensor in [*model.parameters(), *model.buffers()]:
                dist.broadcast(tensor.data, 0)


def environment() -> dict[str, Any]:
    """What a figure measured here depends on: versions, processor, threads, device."""
    import numpy

    from likely import __version__

    record: dict[str, Any] = {
        "likely": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "amx": bool(torch.cpu._is_amx_tile_supported()),
    }
    if torch.cuda.is_available():
        record["cuda_device"] = torch.cuda.get_device_name()
    return record


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
