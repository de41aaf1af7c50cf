"""Damage thousands of files of every kind that is read, and count the answers that are no answer.

    python bench/fuzz.py                       # 1000 files a reader: some minutes
    python bench/fuzz.py --files 50 --readers run resume

A reader may take a damaged file (a comment has changed) or refuse it in one line that names it; it
must not raise anything else, and must not take memory that the file has no right to: the process
may not grow by more than 4 GiB, and a reader that tries fails here with a MemoryError.
"""

from __future__ import annotations

import argparse
import collections
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

from common import write_result

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fuzz_files import CASES, attempt, good

MEMORY = 4 << 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=1000, help="damaged files a reader [1000]")
    parser.add_argument("--first", type=int, default=0, help="number of the first one [0]")
    parser.add_argument("--readers", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--dry", action="store_true", help="write no result")
    options = parser.parse_args()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    figures: dict[str, float] = {}
    wrong: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            if case.name not in options.readers:
                continue
            began, home = time.monotonic(), good(case, Path(folder))
            answers: collections.Counter[str] = collections.Counter()
            for seed in range(options.first, options.first + options.files):
                answer = attempt(case, home, Path(folder) / "damaged", seed)
                answers[answer if answer in ("read", "refused") else "wrong"] += 1
                if answer not in ("read", "refused"):
                    wrong[f"{case.name}: {answer}"] += 1
                    print(f"{case.name} {seed}: {answer}", flush=True)
            figures[f"fuzz/{case.name}/files"] = options.files
            figures[f"fuzz/{case.name}/refused"] = answers["refused"]
            seconds = time.monotonic() - began
            print(f"{case.name}: {dict(answers)} in {seconds:.1f} s", flush=True)
    figures["fuzz/files"] = sum(v for k, v in figures.items() if k.endswith("/files"))
    figures["fuzz/foreign-exceptions"] = sum(wrong.values())
    print(f"{figures['fuzz/files']:.0f} files, {sum(wrong.values())} wrong answers")
    if not options.dry:
        about = {"wrong": dict(wrong), "memory_bytes": MEMORY}
        write_result("fuzz", figures, {"files": options.files, "first": options.first}, about)
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        traceback.print_exc()
        sys.exit(130)
