"""Several processes compute what one does; they stop together and fail together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fit_cases import differing, end_of, fit_case, model_of, training_data
from likely import runs
from likely.devices import (
    Team,
    autocast,
    choose_device,
    compiled,
    environment,
    gains_by_bfloat16,
    place,
)
from likely.errors import InvalidSetting
from likely.noise import Noise
from likely.runs.checkpoint import read_tensors
from likely.runs.journal import read_lines

HERE = Path(__file__).parent
CASES = ("pixelcnn", "vae", "vae-free-nats", "vq-vae", "gru", "dcgan", "dcgan-batch-r1", "dcgan-r1")


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes on loopback with gloo left behind (tests/team_fit.py)."""
    for _ in range(5):
        out = tmp_path_factory.mktemp("team")
        (out / "file").write_text("")
        if _run_team(out, *CASES) and _run_team(out, "fail"):
            assert (out / "fail-1").exists()
            return out
    raise AssertionError("torch's gloo did not connect two processes of this machine, five times")


def _run_team(out: Path, *cases: str) -> bool:
    """Run the team to its end; False where gloo did not connect it, which it sometimes does not.

    What happens after the processes have met is ours, and is not tried again; but for a process
    that C++ ended (std::terminate), rare and seen in torch's threads only: Python cannot do that.
    """
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(HERE / "team_fit.py"), str(out), *cases,
    ]  # fmt: skip
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    surroundings["PYTHONFAULTHANDLER"] = "1"  # says where, if a process is aborted
    process = subprocess.Popen(
        command, env=surroundings, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    for rank in (0, 1):
        (out / f"joined-{rank}").unlink(missing_ok=True)
    try:
        until = time.monotonic() + 45
        while not all((out / f"joined-{rank}").exists() for rank in (0, 1)):
            if process.poll() is not None or time.monotonic() > until:
                return False
            time.sleep(0.1)
        # A process left waiting would run into the timeout.
        _, errors = process.communicate(timeout=300)
        if "terminate called" in errors and "exitcode: -6" in errors:
            warnings.warn(f"a process of the team was aborted: {errors[:4000]}", stacklevel=1)
            return False
        assert (process.returncode != 0) == (cases == ("fail",)), errors[-4000:]
        return True
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def largest_difference(a: Path, b: Path) -> float:
    """Over all weights, averaged weights and optimiser states, relative to each one's scale."""
    first, _ = read_tensors(a / "state.safetensors")
    second, _ = read_tensors(b / "state.safetensors")
    assert first.keys() == second.keys()
    return max(
        float((first[name] - second[name]).abs().max() / first[name].abs().max().clamp(min=1e-3))
        for name in first
        if not name.startswith("optimizer")
    )


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(case: str, team: Path, tmp_path: Path) -> None:
    """Half the batch each, gradients summed: the same weights to rounding.

    The tolerance is 1e-4 of each tensor's largest entry after ten Adam steps of float32.
    """
    fit_case(case, tmp_path)
    assert largest_difference(tmp_path, team / case) < 1e-4
    one, two = (read_lines(where / "metrics.jsonl", 10) for where in (tmp_path, team / case))
    assert [r.keys() for r in one] == [r.keys() for r in two]
    # The records are sums over both processes, the norm is that of the whole gradient.
    for a, b in zip(one, two, strict=True):
        assert all(b[name] == pytest.approx(a[name], rel=1e-3, abs=1e-4) for name in a)


def test_a_signal_to_one_process_stops_all_at_one_step(team: Path) -> None:
    statuses = [(team / f"signal-{rank}").read_text() for rank in (0, 1)]
    assert statuses[1].startswith("4 stopped by SIGTERM after 4 of 10")
    assert statuses[0].startswith("4 stopped by another process of the team after 4 of 10")
    _, about = read_tensors(team / "signal" / "state.safetensors")
    assert about["step"] == "4"


def test_a_disk_that_fails_one_process_stops_both_with_a_reason(team: Path) -> None:
    assert (team / "disk-0").read_text().startswith("CheckpointError: cannot write to")
    assert (team / "disk-1").read_text().startswith("PeerFailed: process 1 of 2 stops because")


def test_a_failure_of_one_process_does_not_leave_the_other_waiting(team: Path) -> None:
    assert (team / "fail-1").read_text() == "RuntimeError: this process alone fails"
    assert (team / "fail-0").read_text().startswith("PeerFailed: process 0 of 2 lost another")


@pytest.mark.parametrize("case", ["pixelcnn", "vae", "dcgan-r1"])
def test_micro_batches_equal_the_whole_batch(case: str, tmp_path: Path) -> None:
    fit_case(case, tmp_path / "whole")
    fit_case(case, tmp_path / "parts", micro_batches=4)
    assert largest_difference(tmp_path / "whole", tmp_path / "parts") < 1e-4
    assert differing(end_of(tmp_path / "whole"), end_of(tmp_path / "parts")) != []


def test_gradients_are_left_alone_by_one_process() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.tensor([1.0, 2.0, 3.0])
    Team().sum_gradients([parameter])
    assert parameter.grad.tolist() == [1.0, 2.0, 3.0]
    assert Team().any(True)
    assert not Team().any(False)


def test_unknown_and_absent_devices_are_refused() -> None:
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(InvalidSetting, match='device="cudda" is unknown: did you mean "cuda"'):
        choose_device("cudda")
    if not torch.cuda.is_available():
        with pytest.raises(InvalidSetting, match="device=cuda cannot be used here"):
            choose_device("cuda")


def test_bfloat16_is_used_when_asked_for(tmp_path: Path) -> None:
    """The products run in bfloat16: close to float32, not equal; weights stay float32."""
    cpu = torch.device("cpu")
    a, b = torch.full((2, 2), 1.0 / 3), torch.eye(2)
    with autocast("bfloat16", cpu):
        assert (a @ b).dtype == torch.bfloat16
    with autocast("float32", cpu):
        assert (a @ b).dtype == torch.float32
    exact = fit_case("vae", tmp_path / "a", precision="float32")
    rough = fit_case("vae", tmp_path / "b", precision="bfloat16")
    assert all(p.dtype == torch.float32 for p in rough.model.parameters())
    first, second = (run.metrics[-1]["negative_elbo"] for run in (exact, rough))
    assert first != second
    assert abs(first - second) < 0.02 * abs(first)


def test_placing_makes_convolutions_channels_last() -> None:
    model = model_of("vae")
    place(model, torch.device("cpu"))
    weight = next(p for p in model.parameters() if p.ndim == 4 and p.shape[1] > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_the_environment_names_what_a_figure_depends_on() -> None:
    record = environment()
    assert record["torch"] == torch.__version__
    assert record["threads"] == torch.get_num_threads()


def test_compiled_layers_compute_the_same_and_are_given_back() -> None:
    model = model_of("vae-dense")
    x = torch.from_numpy(training_data().batch(slice(0, 4)).x.astype("int64"))
    wanted = model.elbo(x, Noise(0))
    with compiled(model, True, backend="aot_eager"):
        assert model.encoder._compiled_call_impl is not None
        assert torch.allclose(wanted, model.elbo(x, Noise(0)), rtol=1e-5)
    assert all(module._compiled_call_impl is None for module in model.modules())


def test_a_compiled_method_computes_the_same_and_is_given_back() -> None:
    model = model_of("pixelcnn").eval()
    x = torch.from_numpy(training_data().batch(slice(0, 4)).x.astype("int64"))
    context = torch.zeros(4, dtype=torch.int64)
    wanted = model.log_prob(x, context)
    calls: list[object] = []

    def backend(graph: torch.fx.GraphModule, examples: list[Tensor]) -> object:
        calls.append(graph)
        return graph.forward

    with compiled(model, True, backend=backend, method="conditionals"):  # type: ignore[arg-type]
        with torch.no_grad():
            assert torch.equal(wanted, model.log_prob(x, context))
        assert not calls
        assert torch.allclose(wanted, model.log_prob(x, context), rtol=1e-5)
        assert len(calls) == 1
    assert "conditionals" not in vars(model)


def test_many_different_layers_are_all_compiled(caplog: pytest.LogCaptureFixture) -> None:
    """Five dilations, trained and validated: more graphs than torch compiles by default."""
    model = runs.build(
        "gated-pixelcnn", training_data().spec,
        {"channels": 2, "head_channels": 2, "layers": 6, "first_kernel": 3,
         "dilations": tuple(range(1, 6))},
    )  # fmt: skip
    x = torch.zeros(2, 1, 8, 8, dtype=torch.int64)
    with compiled(model, True, backend="eager"):
        for _ in range(2):
            model.train()
            model.log_prob(x).sum().backward()
            model.eval()
            with torch.no_grad():
                model.log_prob(x)
    assert "recompile_limit" not in caplog.text


@pytest.mark.parametrize(
    ("tiles", "dot", "vendor", "expected"),
    [
        (True, True, "GenuineIntel", True),
        (False, True, "GenuineIntel", False),  # slower there than float32
        (False, True, "AuthenticAMD", True),
        (False, False, "AuthenticAMD", False),
    ],
)
def test_bfloat16_is_taken_where_the_processor_gains(
    tiles: bool, dot: bool, vendor: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: dot)
    monkeypatch.setattr("likely.devices._processor", lambda entry="model name": vendor)
    assert gains_by_bfloat16(torch.device("cpu")) is expected
