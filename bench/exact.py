"""The choices that are said to be exact, against trying everything, on as many random cases as there is time for.

    python -m bench.exact [--cases 20000] [--json]

The test suite runs a thousand cases of each kind; this runs the same comparisons on more: linked cards against every
subset, one MIG card's placements against every one, a pod's profiles on a node against every combination. Exit status 1
when a case differs; pytest's own output then names its seed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
KINDS: Final = {
    "linked cards": ("HAMI_TOPOLOGY_CASES", "tests/alloc/test_topology.py"),
    "placements on a MIG card": ("HAMI_MIG_CASES", "tests/alloc/test_mig.py"),
    "MIG profiles of a pod": ("HAMI_SLICE_CASES", "tests/alloc/test_slices.py"),
}


def agrees(variable: str, file: str, cases: int) -> bool:
    """Run one kind; whether every case was decided as trying everything decides it."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, variable: str(cases)}, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stdout)
    return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000, help="random cases of each kind")
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    options = parser.parse_args()
    found = {}
    for kind, (variable, file) in KINDS.items():
        start = time.perf_counter()
        agreed = agrees(variable, file, options.cases)
        seconds = round(time.perf_counter() - start, 1)
        found[kind] = {"agreed": agreed, "cases": options.cases, "seconds": seconds}
        print(f"{kind}: {options.cases} cases, {'all agree' if agreed else 'some DIFFER'}, {seconds} s", flush=True)
    if options.json:
        print(json.dumps(found))
    sys.exit(not all(kind["agreed"] for kind in found.values()))


if __name__ == "__main__":
    main()
