"""What the interposer costs and keeps: calls, program starts, promises; each against its target.

    python bench/hooks/hooks.py [--quick] [--json]

With and without the library in turn in one run, on a driver whose functions do next to nothing (`standin.c`), so that
the difference is the library. Calls: CPU time of the calling thread rather than wall time, because the machine may be
shared; the median of nine repetitions, three times over, and of those the median again, with the least and greatest.
Ends with status 1 if a row misses its target by more than 20 %. Compute limits and priorities: `bench/share`.
Results: `bench/results/hooks-<date>.json`.
"""

import argparse
import datetime
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench.filter import machine  # noqa: E402
from bench.hooks import calls, promises, starts  # noqa: E402
from bench.hooks.programs import Programs, Row  # noqa: E402
from hami.node.simulated import native_dir  # noqa: E402

RESULTS = ROOT / "bench" / "results"
SUITES = 3


def show(rows: list[Row]) -> None:
    """The table."""
    table = Table(title="what the interposer costs (alloc+free: a pair)")
    for column in ("item", "native", "hooked", "least", "most", "added", "target", "unit", "verdict"):
        table.add_column(column, justify="left" if column in ("item", "unit", "verdict") else "right", no_wrap=True)
    for row in rows:
        native = "" if row.native is None else f"{row.native:,.1f}"
        numbers = (f"{number:,.1f}" for number in (row.hooked, row.least, row.most, row.added))
        style = "bold" if row.verdict == "failed" else ""
        table.add_row(row.item, native, *numbers, f"{row.target:,.0f}", row.unit, row.verdict, style=style)
    Console(width=max(150, Console().width)).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one suite, a tenth of the calls; writes no file")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    where = machine()
    suites = 1 if options.quick else SUITES
    with tempfile.TemporaryDirectory() as directory:
        programs = Programs(Path(directory), native_dir() / "libvgpu.so")
        rows = [
            *calls.rows(programs, suites=suites, calls_divided_by=10 if options.quick else 1),
            *starts.rows(programs, suites=suites),
            *promises.rows(programs),
        ]
    show(rows)
    report = {"machine": where, "results": [{**asdict(row), "verdict": row.verdict} for row in rows]}
    if not options.quick:
        path = RESULTS / f"hooks-{datetime.date.today().isoformat()}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n")
    if options.json:
        print(json.dumps(report))
    return 1 if any(row.verdict == "failed" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
