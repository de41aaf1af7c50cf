"""Finite input never ends the process: overflow stops a solve with a sentence and true bounds.

The cases run in a process of their own, so that a crash is a failing test and not the end of all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

PREAMBLE = """
import warnings
warnings.simplefilter("error")
from fractions import Fraction
import numpy as np
import mdp_exact
from mdp_exact import Stated, outside
from likely.errors import InvalidData, InvalidSetting
from likely.mdp import METHODS, average_reward, backward_induction, certify, evaluate
from likely.mdp import simulate, solve

STATES = 6
draw = np.random.default_rng(0)
rows = draw.dirichlet(np.ones(STATES), size=(2, STATES))
reward = np.clip(draw.normal(size=(STATES, 2)), -1.0, 1.0)

def random_problem(scale, discount):
    listed = [[list(zip(map(float, rows[a, s]), range(STATES))) for a in range(2)]
              for s in range(STATES)]
    return Stated(listed, (scale * reward).tolist(), discount)

def held(solution, truth):
    assert not outside(solution.lower, solution.upper, truth), (solution.status, truth)
    assert np.isfinite(solution.value).all(), solution.value
    assert "nan" not in solution.status, solution.status
    assert bool((solution.lower <= solution.value).all())
    assert bool((solution.value <= solution.upper).all())
    return solution

def best(problem, sign=1):
    return [sign * v for v in mdp_exact.optimal(problem.exact(sign), Fraction(problem.discount))]
"""

CASES = {
    "float32 and a discount near 1": """
problem = Stated([[[(1.0, 0)]], [[(1.0, 1)]], [[(1.0, 3)], [(1.0, 1)]], [[(1.0, 3)]]],
                 [[0.0], [0.0], [1e12, 0.0], [2e12]], 0.999999999, terminal=(0, 1))
truth = best(problem)
for method in METHODS:
    held(solve(problem.mdp(), 2e17, method, precision="float32", max_iterations=60), truth)
""",
    "values beyond float32": """
problem = random_problem(1e37, 0.99)
for method in METHODS:
    held(solve(problem.mdp(), 1e30, method, precision="float32", max_iterations=60), best(problem))
""",
    "a start that overflows": """
problem = random_problem(1.0, 0.9)
truth = best(problem)
for start in (np.where(draw.random(STATES) < 0.5, 1.7e308, -1.7e308), np.full(STATES, 1.7e308)):
    for precision in ("float64", "float32"):
        for method in METHODS:
            solution = solve(problem.mdp(), 1e-6, method, start=start, precision=precision,
                             max_iterations=50)
            held(solution, truth)
            assert np.isfinite(solution.lower).all() and np.isfinite(solution.upper).all()
""",
    "rewards that overflow": """
for scale, discount in ((1e307, 0.99), (5e307, 0.5), (1e308, 0.999999), (1e306, 0.99)):
    problem = random_problem(scale, discount)
    for sign, objective in ((1, "max"), (-1, "min")):
        truth = best(problem, sign)
        for method in METHODS:
            solution = held(solve(problem.mdp(), 1e300, method, objective=objective,
                                  max_iterations=50), truth)
            if any(abs(v) > Fraction(1.79e308) for v in truth):
                assert solution.outcome == "overflow", solution.status
                assert "exceed the range" in solution.status
""",
    "one state whose value overflows": """
for discount in (0.5, 0.99):
    for reward in (1e308, -1e308):
        problem = Stated([[[(1.0, 0)]]], [[reward]], discount)
        for method in METHODS:
            solution = held(solve(problem.mdp(), 1e300, method, max_iterations=50), best(problem))
            # Towards the truth the interval is as narrow as the numbers are.
            near = solution.lower[0] if reward > 0 else -solution.upper[0]
            assert near > 1e308, solution.status
""",
    "certificates and evaluations that overflow": """
for scale, discount in ((1e307, 0.99), (1e308, 0.5), (1e300, 1.0 - 2.0**-53)):
    problem = random_problem(scale, discount)
    mdp, truth = problem.mdp(), best(problem)
    for value in (np.zeros(STATES), np.full(STATES, 1.7e308), draw.normal(size=STATES) * 1e308):
        certificate = certify(mdp, value)
        assert not outside(certificate.lower, certificate.upper, truth)
        assert certificate.error == certificate.error
        assert certificate.policy_loss == certificate.policy_loss
    chain = mdp_exact.mixed(problem.exact(), [[Fraction(1)] * 2] * STATES)
    truth = mdp_exact.chain_value(chain, Fraction(discount))
    for method in ("direct", "sweeps", "gauss-seidel", "gmres", "bicgstab"):
        steps = {"sweeps": 5} if method in ("sweeps", "gauss-seidel") else {}
        found = evaluate(mdp, "uniform", method, tolerance=scale, **steps)
        assert not outside(found.lower, found.upper, truth), found.status
        assert np.isfinite(found.value).all()
""",
    "a horizon, an average and a total that overflow": """
problem = random_problem(1e308, 1.0)
mdp = problem.mdp()
last = np.where(draw.random(STATES) < 0.5, 1.7e308, -1.7e308)
rational = [Fraction(float(v)) for v in last]
truth = mdp_exact.induction(problem.exact(), Fraction(1), rational, 5)
for limit in (None, 0, 2):
    found = backward_induction(mdp, 5, final_value=last, max_iterations=limit)
    for time in range(6):
        assert not outside(found.lower[time], found.upper[time], truth[time])
    assert np.isfinite(found.value).all()
    assert limit == 0 or bool((found.policy[-1] >= 0).all())
gain = mdp_exact.gain(problem.exact())
for scale in (1e308, 1e307):
    found = average_reward(mdp.with_reward(scale * reward.ravel()), 1e300)
    assert np.isfinite(found.value).all()
    exact = mdp_exact.gain(random_problem(scale, 1.0).exact())
    assert not outside(found.lower, found.upper, [exact] * STATES), found.status
""",
    "generated rows": """
from test_mdp_exact import generated
target = np.tile(np.arange(STATES), (STATES, 2, 1))
probability = np.ascontiguousarray(rows.transpose(1, 0, 2))
for scale, discount in ((1.0, 0.9), (1e307, 0.99), (1e308, 0.999999)):
    problem = random_problem(scale, discount)
    free = generated(target, probability, scale * reward, discount)
    truth = best(problem)
    for method in ("auto", "value-iteration", "gauss-seidel", "frontier", "anderson",
                   "modified-policy-iteration"):
        for start in (None, np.where(np.arange(STATES) % 2, 1.7e308, -1.7e308)):
            for precision in ("float64", "float32"):
                held(solve(free, 1e-6, method, start=start, precision=precision,
                           max_iterations=50), truth)
""",
    "simulation of huge and tiny rewards": """
for discount in (0.5, 0.999):
    for scale in (1e290, 1e-320):
        played = simulate(random_problem(scale, discount).mdp(), "uniform", 20, max_steps=50)
        assert np.isfinite(played.returns).all()
    try:
        simulate(random_problem(1e308, discount).mdp(), "uniform", 20, max_steps=50)
    except InvalidSetting as error:
        assert "too large" in str(error)
    else:
        raise AssertionError("returns beyond the range of the numbers")
""",
    "a checkpoint that was changed": """
import tempfile, pathlib
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "c.npz"
    mdp = random_problem(1.0, 0.9).mdp()
    questions = [(solve, {}), (average_reward, {}), (backward_induction, {"horizon": 5})]
    for answer, question in questions:
        for spoil in ("nan", "huge", "negative"):
            answer(mdp, checkpoint=path, max_iterations=2, **question)
            with np.load(path) as stored:
                arrays = {name: stored[name].copy() for name in stored.files}
            for name, array in arrays.items():
                if name != "header" and array.dtype.kind == "f":
                    array.flat[0] = {"nan": np.nan, "huge": np.inf, "negative": -1.0}[spoil]
                elif name != "header":
                    array.flat[0] = {"nan": -7, "huge": 2**31, "negative": 99}[spoil]
            np.savez(path, **arrays)
            try:
                answer(mdp, checkpoint=path, **question)
            except InvalidData as error:
                assert str(path) in str(error), error
            else:
                raise AssertionError((question, spoil))
            path.unlink()
""",
}


def test_finite_input_never_ends_the_process() -> None:
    path = os.pathsep.join([str(HERE), *sys.path])
    parts = [
        f"print({name!r}, flush=True)\nexec({PREAMBLE + case!r}, {{}})"
        for name, case in CASES.items()
    ]
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", "\n".join(parts)],
        capture_output=True, text=True, timeout=500, check=False,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout.splitlines()[-1:], done.stderr[-3000:])
    assert done.stdout.splitlines() == list(CASES)
