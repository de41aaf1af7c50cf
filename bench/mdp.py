"""Dynamic programming against the peers: time and memory to one certified error.

    python bench/mdp.py --peers cache/peers --cache cache/problems        # everything
    python bench/mdp.py --only frozen-lake-8x8 taxi                       # some problems
    python bench/mdp.py --without-peers --side 300                        # quick
    python bench/mdp.py --only taxi --keep taxi.json                      # one piece, kept aside
    python bench/mdp.py --only auto --without-peers --keep auto.json      # auto on many shapes
    python bench/mdp.py --only shapes --keep shapes.json                  # the shapes, QuantEcon
    python bench/mdp.py --only total-shapes --keep totals.json            # the shapes, undiscounted
    python bench/mdp.py --only storm random-ssp-1e6 --keep storm.json     # undiscounted problems
    python bench/mdp.py --merge *.json                                    # pieces to one result
    python bench/mdp.py --merge bench/results/mdp.json taxi.json          # one problem again

A problem may be measured against some of the peers at a time (--against); merging puts the pieces
of a problem together and keeps the command and date of each.
Every measurement is a process of its own. The peers (pymdptoolbox, QuantEcon, mdpsolver) live
in a virtual environment that is created under --peers when it is missing. Building a problem is
not timed, neither for them nor for us; compiled code is warm for all. Ours counts a solve when
the error that it certifies is at most 1e-6, the peers count as soon as their true error is, and
even if their value is only right up to a constant. Ours uses every core that it may; most peers
have one thread. So each ratio comes twice: `speedup` of the times on the clock, and
`speedup-per-core`, one thread of ours against the processor time of the peer.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

import numpy as np

from mdp_shapes import SHAPES

TARGET = 1e-6
PACKAGES = ("quantecon", "pymdptoolbox", "mdpsolver")
METHODS = {
    "quantecon": (
        "modified_policy_iteration", "modified_policy_iteration/zero", "value_iteration",
        "policy_iteration",
    ),
    "pymdptoolbox": ("value_iteration",),
    "mdpsolver": ("mpi/standard", "vi/standard", "mpi/gs"),
}  # fmt: skip
# The slow methods of a peer are left out where the reference run found them hopeless.
LARGE = {
    "quantecon": ("modified_policy_iteration", "modified_policy_iteration/zero"),
    "pymdptoolbox": ("value_iteration",),
    "mdpsolver": ("vi/standard",),
}
# On the many shapes; where the factors of a policy fill the memory, the peer has to do without.
SHAPE_METHODS = {"quantecon": ("policy_iteration", "modified_policy_iteration")}
MEMORY = 12 << 30  # bytes that a peer may use on them
OTHERS = (
    "auto",
    "shapes",
    "total-shapes",
    "storm",
    "random-ssp-1e6",
    "1e7",
    "bandwidth",
    "references",
)
PROBLEMS = ("random-1e5", "grid-1e6-0.99", "grid-1e6-0.999", "frozen-lake-8x8", "taxi")


def build(name: str, side: int) -> Any:
    """The problem of a name, stored."""
    from likely.mdp import MDP, grid

    if name == "random-1e5":
        states, actions, successors = (100_000 if side >= 1000 else 10_000), 10, 10
        rng = np.random.default_rng(0)
        pairs = states * actions
        return MDP.from_pairs(
            np.arange(0, pairs + 1, actions, dtype=np.int32),
            np.arange(0, pairs * successors + 1, successors, dtype=np.int32),
            rng.integers(0, states, pairs * successors, dtype=np.int32),
            rng.dirichlet(np.ones(successors), pairs).ravel(), rng.random(pairs), 0.99,
        )  # fmt: skip
    if name.startswith("grid"):
        discount = float(name.rsplit("-", 1)[1])
        return grid(side, side, goals=[side * side - 1], discount=discount).stored()
    if name in SHAPES:
        return SHAPES[name](100_000 if side >= 1000 else 1_000, 0.99)
    if name == "taxi":
        return MDP.from_gymnasium("Taxi-v4", discount=0.99)
    from likely.mdp import worlds

    return worlds.build("frozen-lake-8x8").mdp.with_discount(0.99)


# ------------------------------------------------------------------------------- workers
def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def warm_up(generated: bool) -> None:
    """Load every kernel from the disk cache, on problems too small to matter."""
    from likely.mdp import grid, solve

    small = grid(12, 12, goals=[143], discount=0.9)
    if generated:
        solve(small, TARGET)
        return
    for method in ("auto", "modified-policy-iteration", "frontier"):
        solve(small.stored(), TARGET, method)
    solve(build("random-1e5", 0), TARGET)


def work_ours(args: argparse.Namespace) -> dict[str, Any]:
    """Our solve of one problem: times, certified error, and the second opinion."""
    from likely.mdp import MDP, certify, solve

    mdp = MDP.load(args.problem)
    warm_up(False)
    seconds, solution = [], None
    for _ in range(args.repeats):
        start = time.perf_counter()
        solution = solve(mdp, TARGET)
        seconds.append(time.perf_counter() - start)
    assert solution is not None
    alone = []
    for _ in range(args.repeats):
        start = time.perf_counter()
        solve(mdp, TARGET, threads=1)
        alone.append(time.perf_counter() - start)
    start = time.perf_counter()
    certificate = certify(mdp, solution.value)
    return {
        "seconds": seconds, "seconds_on_one_thread": alone, "threads": threads_used(),
        "error": solution.error, "met": solution.converged,
        "method": solution.about["method"], "backups": solution.about["backups"],
        "recheck_seconds": time.perf_counter() - start, "recheck_error": certificate.error,
        "peak_gb": peak_gb(),
    }  # fmt: skip


def work_truth(args: argparse.Namespace) -> dict[str, Any]:
    """A reference value, certified to a hundredth of the target."""
    from likely.mdp import MDP, solve

    solution = solve(MDP.load(args.problem), TARGET / 100)
    np.save(args.truth, solution.value)
    return {"error": solution.error}


def work_huge(args: argparse.Namespace) -> dict[str, Any]:
    """The grid of 10^7 states, stored or generated."""
    from likely.mdp import grid, solve

    side = 3163 if args.side >= 1000 else 10 * args.side // 3
    problem: Any = grid(side, side, goals=[side * side - 1], discount=0.99)
    if not args.generated:
        problem = problem.stored()
    warm_up(args.generated)
    seconds = []
    for _ in range(args.repeats):
        solution = None  # a second one would count as memory of the solve
        start = time.perf_counter()
        solution = solve(problem, TARGET)
        seconds.append(time.perf_counter() - start)
    assert solution is not None
    return {
        "seconds": seconds, "method": solution.about["method"], "error": solution.error,
        "met": solution.converged, "peak_gb": peak_gb(), "states": problem.states,
    }  # fmt: skip


def work_bandwidth(args: argparse.Namespace) -> dict[str, Any]:
    """A fused backup of the grid, and of the random problem, against a triad."""
    from numba import njit

    from likely.mdp.kernels.engine import StoredEngine

    @njit(nogil=True)
    def triad(a, b, c, s):  # type: ignore[no-untyped-def]
        for i in range(a.shape[0]):
            a[i] = b[i] + s * c[i]

    count = 20_000_000
    a, b, c = np.zeros(count), np.ones(count), np.ones(count)
    record: dict[str, Any] = {}
    runs: dict[str, list[float]] = {"triad": []}
    engines = {}
    for name in ("grid-1e6-0.99", "random-1e5"):
        mdp = build(name, args.side)
        engine = StoredEngine(mdp, mdp.reward, mdp.discount, 1)
        state = (np.random.default_rng(0).random(mdp.states), np.empty(mdp.states),
                 np.full(mdp.states, -1, dtype=engine.best_type))  # fmt: skip
        # Everything that has to be read or written once, gathers counted once a state.
        traffic = (
            mdp.indices.nbytes + mdp.probability.nbytes + mdp.indptr.nbytes + mdp.reward.nbytes
            + mdp.pair_ptr.nbytes + state[0].nbytes + state[1].nbytes + 2 * state[2].nbytes
        )  # fmt: skip
        engines[name] = (engine, state, traffic)
        runs[name] = []
    for _ in range(args.repeats * 5):
        for name, (engine, state, _) in engines.items():
            start = time.perf_counter()
            engine.backup(*state)
            runs[name].append(time.perf_counter() - start)
        start = time.perf_counter()
        triad(a, b, c, 3.0)
        runs["triad"].append(time.perf_counter() - start)
    # The first run of each includes compilation or page faults.
    best = {name: statistics.median(times[1:]) for name, times in runs.items()}
    record["triad_gb_per_second"] = 24e-9 * count / best["triad"]
    for name, (_, _, traffic) in engines.items():
        record[name] = {
            "gb_per_second": 1e-9 * traffic / best[name],
            "fraction": traffic / best[name] / (24 * count / best["triad"]),
        }
    return record


def work_import(args: argparse.Namespace) -> dict[str, Any]:
    """Cost of the import, and of the first solve with compiled code on disk."""
    start = time.perf_counter()
    import likely.mdp

    imported = time.perf_counter() - start
    mdp = likely.mdp.grid(12, 12, goals=[143], discount=0.9).stored()
    start = time.perf_counter()
    likely.mdp.solve(mdp)
    return {"import_seconds": imported, "first_solve_seconds": time.perf_counter() - start}


def work_references(args: argparse.Namespace) -> dict[str, Any]:
    """How many of the published reference values lie in our intervals."""
    from likely.mdp import answer
    from likely.mdp.files.benchmarks import read_benchmark

    folder = Path(os.environ["LIKELY_DATA"]) / "mdp"
    entries = json.loads((folder / "reference_values.json").read_text())
    matched = 0
    start = time.perf_counter()
    for entry in entries:
        model = read_benchmark(folder / entry["file"])
        asked = model.property(entry["property"])
        mdp, question = model.question(asked)
        solution = answer(mdp, question, TARGET)
        state = int(np.argmax(mdp.initial))
        reference = asked.reference
        assert reference is not None
        room = 1e-9 * max(1.0, abs(reference))  # the published value is rounded to a double
        width = solution.upper[state] - solution.lower[state]
        narrow = width <= 2 * TARGET * max(1.0, abs(reference))
        matched += bool(
            narrow and solution.lower[state] - room <= reference <= solution.upper[state] + room
        )
    return {"matched": matched, "of": len(entries), "seconds": time.perf_counter() - start}


def work_auto(args: argparse.Namespace) -> dict[str, Any]:
    """`auto` against every other method, see `mdp_auto.py`."""
    from mdp_auto import race

    return race(args.repeats, args.side < 1000)


def work_totals(args: argparse.Namespace) -> dict[str, Any]:
    """Undiscounted problems of the shapes that end."""
    from mdp_auto import totals

    return totals(args.repeats, args.side < 1000)


def undiscounted() -> list[tuple[str, Any, Any]]:
    """Name, problem and question of every benchmark property with over 10^4 states."""
    from likely.mdp.files.benchmarks import read_benchmark

    folder = Path(os.environ["LIKELY_DATA"]) / "mdp"
    questions = []
    for path in sorted((folder / "models").glob("*.npz")):
        model = read_benchmark(path)
        if model.mdp.states > 10_000:
            for asked in model.properties:
                questions.append((f"{path.stem}/{asked.name}", *model.question(asked)))
    return questions


def work_storm(args: argparse.Namespace) -> dict[str, Any]:
    """Ours on every undiscounted question, on one thread; the questions are written for Storm."""
    from likely.mdp import answer

    record: dict[str, Any] = {}
    for name, mdp, asked in undiscounted():
        seconds, cpu = [], []
        solution = answer(mdp, asked, TARGET)  # warm
        for _ in range(5 * args.repeats):
            clock, work = time.perf_counter(), time.process_time()
            solution = answer(mdp, asked, TARGET)
            seconds.append(time.perf_counter() - clock)
            cpu.append(time.process_time() - work)
        initial = int(np.argmax(mdp.initial))
        every = np.ones(mdp.states, dtype=bool)
        file = args.cache / (name.replace("/", "-") + ".npz")
        np.savez(
            file, choice_ptr=mdp.pair_ptr, row_ptr=mdp.indptr, col=mdp.indices,
            prob=mdp.probability, reward=mdp.reward, initial=initial, target=asked.target,
            stay=every if asked.stay is None else asked.stay,
        )  # fmt: skip
        record[name] = {
            "states": mdp.states, "file": str(file), "criterion": asked.criterion,
            "objective": asked.objective, "seconds": seconds, "cpu_seconds": cpu,
            "error": solution.error, "met": solution.converged, "method": solution.about["method"],
            "lower": float(solution.lower[initial]), "upper": float(solution.upper[initial]),
        }  # fmt: skip
    return record


def work_random_ssp(args: argparse.Namespace) -> dict[str, Any]:
    """A random shortest path problem: 3 actions of 3 successors, 1 % goals, random costs."""
    from likely.mdp import MDP, total_reward

    def build_ssp(states: int) -> MDP:
        rng = np.random.default_rng(0)
        pairs = 3 * states
        return MDP.from_pairs(
            np.arange(0, pairs + 1, 3, dtype=np.int32),
            np.arange(0, 3 * pairs + 1, 3, dtype=np.int32),
            rng.integers(0, states, 3 * pairs, dtype=np.int32),
            rng.dirichlet(np.ones(3), pairs).ravel(), -0.1 - rng.random(pairs), 1.0,
            terminal=np.arange(states // 100),
        )  # fmt: skip

    total_reward(build_ssp(2000), TARGET)  # warm
    mdp = build_ssp(1_000_000 if args.side >= 1000 else 100_000)
    seconds, cpu = [], []
    for _ in range(args.repeats):
        clock, work = time.perf_counter(), time.process_time()
        solution = total_reward(mdp, TARGET)
        seconds.append(time.perf_counter() - clock)
        cpu.append(time.process_time() - work)
    return {
        "states": mdp.states, "seconds": seconds, "cpu_seconds": cpu, "error": solution.error,
        "met": solution.converged, "peak_gb": peak_gb(),
    }  # fmt: skip


def threads_used() -> int:
    """Threads that ours may use."""
    from likely.mdp.kernels import threads

    return threads.available()


WORKERS = {
    "ours": work_ours, "auto": work_auto, "truth": work_truth, "huge": work_huge,
    "bandwidth": work_bandwidth, "import": work_import, "references": work_references,
    "total-shapes": work_totals,
    "storm": work_storm, "random-ssp-1e6": work_random_ssp,
}  # fmt: skip


# ---------------------------------------------------------------------------- orchestration
def call(command: list[str], limit: float, memory: int | None = None) -> dict[str, Any]:
    """Run a worker, which may use so many bytes; its JSON line, or why there is none."""

    def confine() -> None:
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, check=False, preexec_fn=confine
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not finished within {limit:.0f} s"}
    lines = [line[7:] for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        tail = (done.stderr or done.stdout).strip().splitlines()
        return {"failed": f"exit {done.returncode}: {tail[-1] if tail else 'no output'}"}
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def ours(worker: str, args: argparse.Namespace, *extra: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--worker", worker, "--side", str(args.side),
               "--repeats", str(args.repeats), "--cache", str(args.cache), *extra]  # fmt: skip
    return call(command, 3600.0)


def peers_python(folder: Path) -> tuple[str, dict[str, str]]:
    """The interpreter of the peers' environment, made if missing, and their versions."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    code = (
        "import importlib.metadata as m, json; "
        f"names = {PACKAGES!r} + ('numba', 'numpy', 'scipy'); "
        "print(json.dumps({p: m.version(p) for p in names}))"
    )
    shown = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    versions: dict[str, str] = json.loads(shown.stdout)
    return str(python), versions


def storm_python(folder: Path) -> tuple[str, str]:
    """The interpreter of Storm's environment, made if missing, and the version of stormpy."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "stormpy", "numpy"], check=True)
    code = "import importlib.metadata as m; print(m.version('stormpy'))"
    shown = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return str(python), shown.stdout.strip()


def against_storm(args: argparse.Namespace) -> dict[str, Any]:
    """Ours and Storm's sound methods on every undiscounted question, one thread each."""
    python, version = storm_python(args.storm)
    record = ours("storm", args)
    script = str(Path(__file__).with_name("mdp_storm.py"))
    for name, entry in record.items():
        if name == "failed":
            break
        entry["storm"] = call(
            [python, script, entry.pop("file"), entry["criterion"], entry["objective"],
             str(5 * args.repeats)], args.limit,
        )  # fmt: skip
        times = ", ".join(
            f"{method.lower()} {statistics.median(timing['cpu_seconds']):.4g}"
            for method, timing in entry["storm"].items()
            if "cpu_seconds" in timing
        )
        mine = statistics.median(entry["cpu_seconds"])
        print(f"  {name}: ours {mine:.4g} CPU-s; {times}", flush=True)
    return {"version": version, "questions": record}


def storm_speedups(record: dict[str, Any], methods: tuple[str, ...]) -> list[float]:
    """Storm's processor time over ours, for the fastest of the methods, question by question."""
    ratios = []
    for entry in record["questions"].values():
        times = [statistics.median(entry["storm"][m]["cpu_seconds"]) for m in methods
                 if "cpu_seconds" in entry["storm"].get(m, {})]  # fmt: skip
        if times:
            ratios.append(min(times) / statistics.median(entry["cpu_seconds"]))
    return ratios


def check_needs(wanted: list[str]) -> None:
    """Say at once what a run lacks, not after minutes."""
    from importlib.util import find_spec

    lacking = []
    if "taxi" in wanted and find_spec("gymnasium") is None:
        lacking.append("taxi needs gymnasium: pip install 'likely[gymnasium]'")
    for name in ("references", "storm"):
        if name in wanted and "LIKELY_DATA" not in os.environ:
            lacking.append(f"{name} needs LIKELY_DATA, the folder of the benchmark models")
    if lacking:
        rest = "; ".join(lacking)
        raise SystemExit(f"{rest}; or leave them out with --only (problems: {', '.join(wanted)})")


def measure(name: str, args: argparse.Namespace, python: str | None) -> dict[str, Any]:
    """Ours and every peer on one problem."""
    problem, truth = args.cache / f"{name}.npz", args.cache / f"{name}-truth.npy"
    mdp = build(name, args.side)
    mdp.save(problem)
    discount = mdp.discount
    large = mdp.transitions > 10**6
    del mdp
    where = ("--problem", str(problem), "--truth", str(truth))
    record: dict[str, Any] = {"truth": ours("truth", args, *where)}
    record["ours"] = ours("ours", args, *where)
    if python is None:
        return record
    script = str(Path(__file__).with_name("mdp_peers.py"))
    methods = SHAPE_METHODS if name in SHAPES else LARGE if large else METHODS
    for peer in [p for p in args.against if p in methods]:
        for method in methods[peer]:
            repeats = str(args.repeats if large or name in SHAPES else 10 * args.repeats)
            limit = args.limit if large and name not in SHAPES else min(args.limit, 60.0)
            record[f"{peer} {method}"] = timing = call(
                [python, script, peer, method, str(problem), str(truth), str(discount),
                 str(TARGET), repeats], limit, MEMORY if name in SHAPES else None,
            )  # fmt: skip
            print(f"  {peer} {method}: {brief(timing)}", flush=True)
    # Ours once more, after the peers: on a shared machine the load may have changed.
    again = ours("ours", args, *where)
    if "seconds" in again and "seconds" in record["ours"]:
        record["ours"]["seconds"] += again["seconds"]
    return record


def brief(record: dict[str, Any]) -> str:
    if "failed" in record:
        return str(record["failed"])
    median = statistics.median(record["seconds"])
    return f"{median:.4g} s, error {record['error']:.2g}, peak {record['peak_gb']:.2f} GB"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--peers", type=Path, default=Path("build/mdp-peers"))
    parser.add_argument("--storm", type=Path, default=Path("build/mdp-storm"))
    parser.add_argument("--cache", type=Path, default=Path("build/mdp-problems"))
    parser.add_argument("--only", nargs="*", choices=[*PROBLEMS, *OTHERS, *SHAPES], default=None)
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--against", nargs="*", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--keep", type=Path, help="write this piece to a file of its own")
    parser.add_argument("--merge", type=Path, nargs="+", help="pieces to put together")
    parser.add_argument("--side", type=int, default=1000, help="side of the grid; below 1000 quick")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=900.0, help="seconds for one peer")
    parser.add_argument("--worker", choices=sorted(WORKERS))
    parser.add_argument("--problem")
    parser.add_argument("--truth")
    parser.add_argument("--generated", action="store_true")
    args = parser.parse_args()
    if args.worker:
        print("RESULT " + json.dumps(WORKERS[args.worker](args)))
        return
    if args.merge:
        merge(args.merge)
        return
    wanted = args.only or [*PROBLEMS, *OTHERS]
    check_needs(wanted)
    args.cache.mkdir(parents=True, exist_ok=True)
    python, versions = None, {}
    if not args.without_peers and {*PROBLEMS, *SHAPES, "shapes"} & set(wanted):
        python, versions = peers_python(args.peers)
    details: dict[str, Any] = {}
    ours("import", args)  # compiles what is not on disk yet
    details["import"] = ours("import", args)
    if "shapes" in wanted:
        wanted = [*wanted, *SHAPES]
    for name in [p for p in (*PROBLEMS, *SHAPES) if p in wanted]:
        print(name, flush=True)
        details[name] = record = measure(name, args, python)
        print(f"  ours: {brief(record['ours'])}", flush=True)
    if "1e7" in wanted:
        for key, flags in (("1e7", ()), ("1e7-matrix-free", ("--generated",))):
            details[key] = record = ours("huge", args, *flags)
            print(key, brief(record), flush=True)
    if "bandwidth" in wanted:
        details["bandwidth"] = record = ours("bandwidth", args)
        print("bandwidth", record, flush=True)
    if "auto" in wanted:
        details["auto"] = ours("auto", args)
        print("auto", json.dumps(details["auto"], indent=1), flush=True)
    if "total-shapes" in wanted:
        details["total-shapes"] = ours("total-shapes", args)
    if "storm" in wanted:
        details["storm"] = against_storm(args)
    if "random-ssp-1e6" in wanted:
        details["random-ssp-1e6"] = record = ours("random-ssp-1e6", args)
        print("random-ssp-1e6", record, flush=True)
    if "references" in wanted:
        details["references"] = ours("references", args)
    print(json.dumps(figures_of(details), indent=2))
    settings = {"target": TARGET, "side": args.side, "repeats": args.repeats, "limit": args.limit,
                "threads": os.environ.get("OMP_NUM_THREADS", "all")}  # fmt: skip
    if args.keep:
        piece = {"command": command_line(), "date": time.strftime("%Y-%m-%d", time.gmtime()),
                 "details": details, "peers": versions, "settings": settings}  # fmt: skip
        args.keep.write_text(json.dumps(piece))
    elif args.only or args.without_peers or args.side != 1000 or args.against != list(PACKAGES):
        print("part of the benchmark: nothing written")
    else:
        from common import write_result

        about = {"details": details, "peers": versions}
        write_result("mdp", figures_of(details), settings, about)


def figures_of(details: dict[str, Any]) -> dict[str, float]:
    """The named figures, computed from everything that was measured."""
    figures: dict[str, float] = {}
    for name in [
        p for p in (*PROBLEMS, *SHAPES) if "seconds" in details.get(p, {}).get("ours", {})
    ]:
        record = details[name]
        mine = statistics.median(record["ours"]["seconds"])
        figures[f"mdp/{name}/seconds"] = mine
        figures[f"mdp/{name}/peak-gb"] = record["ours"]["peak_gb"]
        times = [
            statistics.median(timing["seconds"])
            for peer, timing in record.items()
            if peer not in ("ours", "truth") and timing.get("met")
        ]
        if times and record["ours"]["met"]:
            figures[f"mdp/{name}/peer-seconds"] = min(times)
            figures[f"mdp/{name}/speedup"] = min(times) / mine
        alone = record["ours"].get("seconds_on_one_thread")
        work = [
            statistics.median(timing.get("cpu_seconds", timing["seconds"]))
            for peer, timing in record.items()
            if peer not in ("ours", "truth") and timing.get("met")
        ]
        if work and alone and record["ours"]["met"]:
            figures[f"mdp/{name}/speedup-per-core"] = min(work) / statistics.median(alone)
    if details.get("auto") and "failed" not in details["auto"]:
        # CPU time of auto over that of the best method, 2 ms added to both: below, calls from
        # Python and the timer count more than the solve.
        figures["mdp/auto/worst-over-best"] = max(
            case["auto_over_best"] for case in details["auto"].values()
        )
        figures["mdp/auto/problems"] = len(details["auto"])
    for name, case in details.get("total-shapes", {}).items():
        if name != "failed" and case["met"]:
            figures[f"mdp/total/{name}/cpu-seconds"] = case["cpu_seconds"]
    for key in [k for k in ("1e7", "1e7-matrix-free") if "seconds" in details.get(k, {})]:
        figures[f"mdp/{key}/seconds"] = statistics.median(details[key]["seconds"])
        figures[f"mdp/{key}/peak-gb"] = details[key]["peak_gb"]
    if "bandwidth" in details:
        record = details["bandwidth"]
        figures["mdp/grid-1e6/backup-bandwidth-fraction"] = record["grid-1e6-0.99"]["fraction"]
        figures["mdp/random-1e5/backup-bandwidth-fraction"] = record["random-1e5"]["fraction"]
    if "questions" in details.get("storm", {}):
        ratios = storm_speedups(details["storm"], ("SOUND_VALUE_ITERATION",))
        figures["mdp/storm/median-speedup"] = statistics.median(ratios)
        figures["mdp/storm/worst-speedup"] = min(ratios)
        fastest = storm_speedups(
            details["storm"],
            ("SOUND_VALUE_ITERATION", "OPTIMISTIC_VALUE_ITERATION", "INTERVAL_ITERATION",
             "TOPOLOGICAL"),
        )  # fmt: skip
        figures["mdp/storm/median-speedup-against-fastest"] = statistics.median(fastest)
        figures["mdp/storm/worst-speedup-against-fastest"] = min(fastest)
    if "seconds" in details.get("random-ssp-1e6", {}):
        record = details["random-ssp-1e6"]
        figures["mdp/random-ssp-1e6/seconds"] = statistics.median(record["seconds"])
        figures["mdp/random-ssp-1e6/peak-gb"] = record["peak_gb"]
    figures["mdp/import-seconds"] = details["import"]["import_seconds"]
    figures["mdp/first-solve-seconds"] = details["import"]["first_solve_seconds"]
    if "references" in details:
        figures["mdp/reference-values/matched"] = details["references"]["matched"]
    return figures


def command_line() -> str:
    """This command, without the folders of this machine."""
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv]
    return " ".join(["python", *words])


def merge(paths: list[Path]) -> None:
    """Put pieces together: of one problem, the times of ours are joined, peers added.

    A result that was written before may be one of them: of it remains what no piece measures.
    """
    details: dict[str, Any] = {}
    versions: dict[str, str] = {}
    commands, settings = [], []
    pieces = [json.loads(path.read_text()) for path in paths]
    measured = {name for piece in pieces if "about" not in piece for name in piece["details"]}
    for path, piece in zip(paths, pieces, strict=True):
        if "about" in piece:
            old = piece["about"]
            left = {name: r for name, r in old["details"].items() if name not in measured}
            piece |= {"details": left, "peers": old["peers"]}
            for part in old["pieces"]:
                if problems := sorted(left.keys() & set(part["problems"])):
                    commands.append({**part, "problems": problems})
        else:
            used = {key: piece["settings"][key] for key in ("repeats", "threads")}
            commands.append({"command": piece["command"], "date": piece["date"], **used,
                             "problems": sorted(piece["details"])})  # fmt: skip
        settings.append(piece["settings"])
        if any(versions.get(peer, version) != version for peer, version in piece["peers"].items()):
            raise SystemExit(f"{path}: measured with other versions of the peers")
        versions |= piece["peers"]
        for name, record in piece["details"].items():
            if name not in details or name not in (*PROBLEMS, *SHAPES):
                details[name] = record
                continue
            joined = {**details[name], **record}
            mine, new = details[name]["ours"], record["ours"]
            joined["ours"] = {**mine, "seconds": mine["seconds"] + new["seconds"]}
            details[name] = joined
    same = ("target", "side")
    if any(piece[key] != settings[0][key] for piece in settings for key in same):
        raise SystemExit("the pieces were measured with different settings")
    from common import write_result

    figures = figures_of(details)
    limit = max(piece["limit"] for piece in settings)
    about = {"details": details, "peers": versions, "pieces": commands}
    write_result("mdp", figures, {**settings[0], "limit": limit}, about)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
