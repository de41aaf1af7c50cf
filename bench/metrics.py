"""Known answers of the sample metrics at full size, and what they cost.

The reference run of Naeem et al.'s code draws real and fake from the same N(0, I) in 1000
dimensions, 10,000 each, k = 5: precision 0.477, recall 0.471, density 1.056, coverage 0.974.
For equal distributions the expectations of density (1) and coverage (0.9688) are exact, so a
run is judged by them and by the reference's precision and recall within sampling error.

    python bench/metrics.py             # about one minute on one thread
    python bench/metrics.py --n 2000    # quick; writes nothing
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import scipy.linalg
import torch

from common import write_result
from likely.evaluate.distances import frechet_distance, kernel_distance
from likely.evaluate.manifold import expected_coverage, manifold_scores

FULL = 10_000
REFERENCE = {"precision": 0.477, "recall": 0.471, "density": 1.056, "coverage": 0.974}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--n", type=int, default=FULL, help="examples a side")
    parser.add_argument("--dimensions", type=int, default=1000)
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    generator = torch.Generator().manual_seed(args.seed)
    shape = (args.n, args.dimensions)
    real = torch.randn(shape, generator=generator, dtype=torch.float64)
    fake = torch.randn(shape, generator=generator, dtype=torch.float64)
    figures: dict[str, float] = {}

    start = time.perf_counter()
    scores = manifold_scores(real, fake, k=args.k)
    figures["prdc/seconds"] = time.perf_counter() - start
    for name, reference in REFERENCE.items():
        measured = getattr(scores, name)
        figures[f"prdc/{name}"] = measured.value
        figures[f"prdc/{name}/standard-error"] = measured.standard_error
        figures[f"prdc/{name}/reference"] = reference
    figures["prdc/coverage/expected"] = expected_coverage(args.n, args.n, args.k)

    start = time.perf_counter()
    frechet = frechet_distance(real, fake)
    figures["frechet/seconds"] = time.perf_counter() - start
    figures["frechet/value"] = frechet.value
    start = time.perf_counter()
    figures["frechet/against-sqrtm/relative"] = abs(by_sqrtm(real, fake) / frechet.value - 1.0)
    figures["frechet/sqrtm-seconds"] = time.perf_counter() - start

    start = time.perf_counter()
    kid = kernel_distance(real, fake)
    figures["kid/seconds"] = time.perf_counter() - start
    figures["kid/value"] = kid.value
    figures["kid/standard-error"] = kid.standard_error

    for name, value in figures.items():
        print(f"{name:40} {value:.6g}")
    if args.n != FULL:
        print(f"not written: the recorded run has --n {FULL}")
        return
    settings = {"n": args.n, "dimensions": args.dimensions, "k": args.k, "seed": args.seed}
    law = f"N(0, I) in {args.dimensions} dimensions, torch generator, seed {args.seed}"
    print(write_result("metrics", figures, settings, {"data": law}))


def by_sqrtm(a: torch.Tensor, b: torch.Tensor) -> float:
    """The Frechet distance by scipy's matrix square root, as the common code computes it."""
    covariance_a, covariance_b = np.cov(a.numpy().T), np.cov(b.numpy().T)
    root = scipy.linalg.sqrtm(covariance_a @ covariance_b).real
    shift = a.mean(0).numpy() - b.mean(0).numpy()
    return float(shift @ shift + np.trace(covariance_a + covariance_b - 2.0 * root))


if __name__ == "__main__":
    main()
