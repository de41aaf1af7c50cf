"""Where to compute, in which precision, and with how many processes.

bfloat16 autocast is used where it is faster than float32: on CPUs with AMX tiles, AMD CPUs with
AVX-512 bfloat16, and CUDA devices of compute capability 8 and above. Intel CPUs with AVX-512
bfloat16 but no AMX run convolutions slower in it, so they keep float32.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import datetime
import functools
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from likely.devices import cores
from likely.errors import InvalidSetting, LikelyError, nearest
from likely.settings import Precision

# How long a rank waits for the others; longer than any validation takes.
PATIENCE_SECONDS = 600
_DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" prefers CUDA, then MPS, then the CPU.

    Raises:
        InvalidSetting: unknown, or not present on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:  # a list of every device that torch has ever known
        raise InvalidSetting(f'device="{name}" is unknown: {nearest(name, _DEVICES)}') from error
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidSetting(f"device={name} cannot be used here: {reason}") from error
    return device


def settle_threads(resumed: int | None = None) -> str:
    """Compute with as many threads as there are idle cores, unless OMP_NUM_THREADS is set.

    A fit that was begun with `resumed` threads resumes bit for bit only with that number. Returns a
    sentence about the choice; "" where all cores are used.
    """
    usable = cores.usable()
    if cores.asked() is not None or torch.get_num_threads() < usable:
        return ""
    threads = resumed or cores.idle()
    torch.set_num_threads(threads)
    if threads >= usable:
        return ""
    why = "as when the fit began" if resumed else "the others are busy"
    return f"computing with {threads} of {usable} cores: {why}; OMP_NUM_THREADS={usable} takes all"


def gains_by_bfloat16(device: torch.device) -> bool:
    """Whether matrix products and convolutions run faster in bfloat16 on this device."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        # Decided by the CPU model, not by timing: a resumed run must decide the same way.
        fast = torch.cpu._is_avx512_bf16_supported() and "AMD" in _processor("vendor_id")
        return bool(torch.cpu._is_amx_tile_supported()) or fast
    return False


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The autocast block for a precision; float32 also inside another autocast block."""
    wanted = precision == "bfloat16" or (precision == "auto" and gains_by_bfloat16(device))
    if wanted:
        return torch.autocast(device.type, torch.bfloat16)
    if not torch.is_autocast_enabled(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def convolved_precision(
    precision: Precision, device: torch.device, grid: tuple[int, int, int]
) -> Precision:
    """The precision in which images of that shape can be convolved: "auto" becomes float32 where
    bfloat16 comes out wrong.

    On processors, oneDNN's bfloat16 convolutions whose result is one pixel wide and several high
    read uninitialised memory (torch 2.13); narrow upright images come to that after strides, a
    single pixel in a stack that is padded above.

    Raises:
        InvalidSetting: bfloat16 was asked for.
    """
    _, height, width = grid
    if device.type != "cpu" or precision == "float32" or width >= min(8, max(2, height)):
        return precision
    if precision == "auto":
        return "float32"
    raise InvalidSetting(
        f"precision=bfloat16: the processor's convolutions are wrong for images as narrow as "
        f"{height} x {width}; take precision=float32, or turn the images"
    )


def place(model: nn.Module, device: torch.device) -> None:
    """Move a model to a device with convolution weights in channels_last order, in place.

    On CUDA this turns TF32 off for the process: likelihoods need the full precision of float32.
    """
    model.to(device)
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    if not any(p.dtype == torch.float64 for p in model.parameters()):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@contextlib.contextmanager
def fastest_convolutions(device: torch.device) -> Iterator[None]:
    """On CUDA, try the algorithms of each convolution and keep the fastest, in this block."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextlib.contextmanager
def compiled(
    model: nn.Module, wanted: bool, backend: str = "inductor", method: str | None = None
) -> Iterator[None]:
    """Compile the networks of `model` with torch.compile for the duration of the block.

    Each child of the model, and each layer of a list of layers, becomes a graph; layers that
    differ in numbers only (dilations, widths) need one each, and one more for training and for
    validation. torch gives up compiling after eight and says so at every call; the limit is
    raised here to what the model needs.

    Args:
        model: compiled in place.
        wanted: False for a block without effect.
        backend: of torch.compile.
        method: of the model, that computes everything: then it becomes one graph, which fuses
            across layers (a GatedPixelCNN trains a sixth faster than by layers). Calls without
            gradients, as in a validation, run as written.
    """
    if not wanted:
        yield
        return
    import torch._dynamo

    if method is not None:
        plain = getattr(model, method)
        fast = torch.compile(plain, backend=backend, dynamic=False)

        def chosen(*arguments: Any) -> Any:
            return (fast if torch.is_grad_enabled() else plain)(*arguments)

        vars(model)[method] = chosen
        try:
            yield
        finally:
            del vars(model)[method]
        return
    networks = [
        network
        for child in model.children()
        for network in (child if isinstance(child, nn.ModuleList) else [child])
    ]
    limit = max(64, 8 * len(networks))
    with torch._dynamo.config.patch(recompile_limit=limit, accumulated_recompile_limit=8 * limit):
        try:
            for network in networks:
                network.compile(backend=backend)
            yield
        finally:
            # nn.Module.compile has no inverse; after the fit the model is as it was before.
            for network in networks:
                network._compiled_call_impl = None


class PeerFailed(LikelyError, RuntimeError):
    """Another rank failed; its own message says why."""


@dataclasses.dataclass(frozen=True)
class Team:
    """The ranks that share a batch (started by torchrun), or this single process.

    Gradients are summed over processes after each player's backward pass. That is what a DDP
    wrapper does, without its restriction: a gradient penalty differentiates twice, and losses
    call other methods than `forward`.

    Every rank makes the same calls in the same order. A rank that fails leaves the group, so
    that the others stop waiting at once.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: torch.device) -> Team:
        """The team that torchrun's environment describes."""
        if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
            return cls()
        if not dist.is_initialized():
            timeout = datetime.timedelta(seconds=PATIENCE_SECONDS)
            on_cuda = device.type == "cuda"
            if on_cuda:
                torch.cuda.set_device(device)
            dist.init_process_group("nccl" if on_cuda else "gloo", timeout=timeout)
            atexit.register(_leave)
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes the files."""
        return self.rank == 0

    def sum_gradients(self, parameters: list[nn.Parameter]) -> None:
        """All-reduce each gradient (sum), in place.

        A parameter without a gradient has none in every process, because all compute the same
        graph; it is left out, as a single process leaves it out.
        """
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self.sum(torch.cat([g.reshape(-1) for g in gradients]))
        sizes = [g.numel() for g in gradients]
        for gradient, part in zip(gradients, torch.split(flat, sizes), strict=True):
            gradient.copy_(part.view(gradient.shape))

    def sum(self, value: Tensor) -> Tensor:
        """All-reduce a tensor (sum); it is overwritten.

        Raises:
            PeerFailed: another process is gone.
        """
        if self.size > 1:
            try:
                dist.all_reduce(value)
            except (RuntimeError, ValueError) as error:
                reason = str(error).splitlines()[0]
                raise PeerFailed(
                    f"process {self.rank} of {self.size} lost another process of the team, whose "
                    f"own message says why ({reason})"
                ) from error
        return value

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        if self.size == 1:
            return flag
        where = "cuda" if dist.get_backend() == "nccl" else "cpu"
        return bool(self.sum(torch.tensor(float(flag), device=where)))

    def share(self, model: nn.Module) -> None:
        """Broadcast the weights and buffers of rank 0."""
        if self.size > 1:
            for tensor in [*model.parameters(), *model.buffers()]:
                dist.broadcast(tensor.data, 0)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A block that fails on every rank if it fails on one (a full disk, a refusal)."""
        failure: LikelyError | None = None
        try:
            yield
        except LikelyError as error:
            failure = error
        if self.any(failure is not None):
            raise failure or PeerFailed(
                f"process {self.rank} of {self.size} stops because another one failed; that one's "
                "message says why"
            )

    @contextlib.contextmanager
    def leaving_on_failure(self) -> Iterator[None]:
        """A block whose failure closes the connections, so that no other rank waits."""
        try:
            yield
        except BaseException:
            if self.size > 1:
                _leave()
            raise


def of_all_processes(rows: Tensor) -> Tensor:
    """The rows of the whole batch, in its order, from those of this process; without gradients.

    What is decided by a batch (a mean that is compared, codes that move) is decided by these.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


def _leave() -> None:
    """Close the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


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


@functools.cache
def _processor(entry: str = "model name") -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(entry):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
