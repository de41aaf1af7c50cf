"""One peer on one problem, in an environment of its own; called by `bench/mdp.py`.

Imports nothing of likely. Reads the rows from an `.npz`, builds the peer's own form (not timed),
solves with ever smaller epsilons until the true error is at most the target, and prints one
line of JSON: the solve times of the first epsilon that meets it, the true error, peak memory.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import numpy as np
from scipy import sparse


def load(path: str) -> dict[str, np.ndarray]:
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def padded(problem: dict[str, np.ndarray]) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """Rows with a self-loop of reward 0 for each terminal state, rewards, owner of each row."""
    states = len(problem["pair_ptr"]) - 1
    pairs = len(problem["reward"])
    rows = sparse.csr_matrix(
        (problem["probability"], problem["indices"], problem["indptr"]), shape=(pairs, states)
    )
    ended = np.flatnonzero(problem["terminal"])
    loops = sparse.csr_matrix(
        (np.ones(len(ended)), (np.arange(len(ended)), ended)), shape=(len(ended), states)
    )
    owner = np.concatenate([np.repeat(np.arange(states), np.diff(problem["pair_ptr"])), ended])
    label = np.concatenate([problem["pair_action"].astype(int), np.zeros(len(ended), int)])
    order = np.lexsort((label, owner))
    reward = np.concatenate([problem["reward"], np.zeros(len(ended))])
    return sparse.vstack([rows, loops]).tocsr()[order], reward[order], owner[order]


def quantecon(problem: dict[str, np.ndarray], discount: float, method: str):
    from quantecon.markov import DiscreteDP

    rows, reward, owner = padded(problem)
    action = np.arange(len(owner)) - np.searchsorted(owner, owner)
    model = DiscreteDP(reward, rows, discount, owner, action)

    method, _, start = method.partition("/")
    first = np.zeros(model.num_states) if start == "zero" else None

    def run(epsilon: float) -> np.ndarray:
        return model.solve(method=method, v_init=first, epsilon=epsilon, max_iter=10**7).v

    return run


def toolbox(problem: dict[str, np.ndarray], discount: float, method: str):
    """pymdptoolbox, with the checks that make its input dense left out."""
    from mdptoolbox import mdp

    states = len(problem["pair_ptr"]) - 1
    rows, reward, owner = padded(problem)
    first = np.searchsorted(owner, np.arange(states))
    counts = np.diff(np.append(first, len(owner)))
    actions = int(counts.max())
    # Every state needs every action: where one is missing, the first is repeated.
    chosen = [first + np.where(a < counts, a, 0) for a in range(actions)]
    matrices = tuple(rows[c] for c in chosen)
    rewards = tuple(reward[c] for c in chosen)

    def run(epsilon: float) -> np.ndarray:
        solver = mdp.ValueIteration.__new__(mdp.ValueIteration)
        solver.discount, solver.S, solver.A = discount, states, actions
        solver.P, solver.R = matrices, rewards
        solver.epsilon, solver.max_iter, solver.verbose = epsilon, 10**7, False
        solver.V, solver.iter, solver.time, solver.policy = np.zeros(states), 0, None, None
        solver.thresh = epsilon * (1 - discount) / discount
        solver.run()
        return np.asarray(solver.V)

    return run


def mdpsolver(problem: dict[str, np.ndarray], discount: float, method: str):
    import mdpsolver as package

    states = len(problem["pair_ptr"]) - 1
    rows, reward, owner = padded(problem)
    first = np.searchsorted(owner, np.arange(states + 1))
    spans = [(rows.indptr[i], rows.indptr[i + 1]) for i in range(len(owner))]
    columns, weights = rows.indices.tolist(), rows.data.tolist()
    gains = reward.tolist()
    pairs = [range(first[s], first[s + 1]) for s in range(states)]
    inputs = {
        "rewards": [[gains[i] for i in span] for span in pairs],
        "tranMatColumns": [[columns[slice(*spans[i])] for i in span] for span in pairs],
        "tranMatProbs": [[weights[slice(*spans[i])] for i in span] for span in pairs],
    }
    algorithm, update = method.split("/")

    def run(epsilon: float) -> np.ndarray:
        model = package.model()
        model.mdp(discount=discount, **inputs)
        run.started, work = time.perf_counter(), time.process_time()
        model.solve(
            algorithm=algorithm,
            update=update,
            tolerance=epsilon,
            postProcessing=True,
            parallel=update == "standard",
        )
        run.ended, run.worked = time.perf_counter(), time.process_time() - work
        return np.asarray(model.getValueVector())

    return run


PEERS = {"quantecon": quantecon, "pymdptoolbox": toolbox, "mdpsolver": mdpsolver}


def main() -> None:
    peer, method, path, truth_path, discount, target, repeats = sys.argv[1:]
    wanted = float(target)
    problem = load(path)
    truth = np.load(truth_path)
    build = time.perf_counter()
    run = PEERS[peer](problem, float(discount), method)
    build = time.perf_counter() - build
    if peer == "quantecon":  # compile before timing
        from quantecon.markov import DiscreteDP

        tiny = DiscreteDP(np.zeros(2), sparse.eye(2).tocsr(), 0.5, np.arange(2), np.zeros(2, int))
        tiny.solve(method=method.partition("/")[0], epsilon=1e-3)
    record: dict[str, object] = {"build_seconds": build}
    for epsilon in (2 * wanted, wanted / 10, wanted / 1000):
        seconds, cpu_seconds = [], []
        for _ in range(int(repeats)):
            start, work = time.perf_counter(), time.process_time()
            value = run(epsilon)
            spent, worked = time.perf_counter() - start, time.process_time() - work
            if peer == "mdpsolver":  # the hand-over of lists is not part of its solve
                spent, worked = run.ended - run.started, run.worked
            cpu_seconds.append(worked)
            seconds.append(spent)
            if spent > 10.0:
                break
        difference = value - truth
        error = float(np.abs(difference).max())
        # A value that is right up to a constant could be repaired by the reader: it counts.
        shift = 0.5 * float(difference.max() - difference.min())
        record |= {
            "epsilon": epsilon,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "error": error,
            "error_up_to_a_constant": shift,
        }
        if min(error, shift) <= wanted:
            break
    record["met"] = min(error, shift) <= wanted
    record["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print("RESULT " + json.dumps(record))


if __name__ == "__main__":
    main()
