"""What a driver call costs more with the interposer than without, in nanoseconds of CPU time.

    python bench/hooks/hooks.py [--quick] [--json]

Both are measured in turn in one run, on a driver whose functions do next to nothing (`standin.c`). CPU time of the
calling thread rather than wall time, because the machine may be shared; the median of nine repetitions, three times
over, and of those the median again, with the least and the greatest. Results: `bench/results/hooks-<date>.json`.
"""

import argparse
import contextlib
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench.filter import machine  # noqa: E402
from hami.node.simulated import native_dir  # noqa: E402

HERE = Path(__file__).parent
RESULTS = ROOT / "bench" / "results"
REPETITIONS = 9
SUITES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A kind of call, how often, with which limits, and what it may cost more."""

    name: str
    calls: int
    target_ns: float
    """Added by the interposer, at most."""
    others: int = 0
    """Other processes that hold a slot of the region."""
    cores: int = 0


OPERATIONS = (
    Operation(name="alloc_free", calls=100_000, target_ns=150),
    Operation(name="alloc_free", calls=50_000, target_ns=200, others=63),
    Operation(name="alloc_free", calls=50_000, target_ns=1_000, others=511),
    Operation(name="alloc_free_1000_live", calls=100_000, target_ns=200),
    Operation(name="alloc_free_10000_live", calls=100_000, target_ns=200),
    Operation(name="launch", calls=500_000, target_ns=30),
    Operation(name="launch_limited", calls=200_000, target_ns=60, cores=50),
    Operation(name="memory_info", calls=200_000, target_ns=100),
    Operation(name="nvml_memory_info", calls=100_000, target_ns=100),
    Operation(name="look_up_hooked", calls=100_000, target_ns=100),
    Operation(name="look_up_other", calls=100_000, target_ns=60),
    Operation(name="dlsym_hooked", calls=100_000, target_ns=100),
    Operation(name="dlsym_other", calls=100_000, target_ns=60),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Nanoseconds a call (a pair for alloc_free)."""

    operation: str
    others: int
    native_ns: float
    hooked_ns: float
    hooked_least_ns: float
    hooked_most_ns: float
    added_ns: float
    target_ns: float


class Bench:
    """The programs, built in a directory of their own, and a region for each measurement."""

    def __init__(self, directory: Path, library: Path) -> None:
        self.directory = directory
        self.library = library
        compiler = os.environ.get("CC", "cc")
        common = [compiler, "-O2", "-Wall", "-Wextra", "-I", str(ROOT / "interpose")]
        standin = [str(HERE / "standin.c"), "-shared", "-fPIC", "-Wl,-Bsymbolic"]
        for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
            subprocess.run([*common, *standin, f"-Wl,-soname,{name}", "-o", str(directory / name)], check=True)
        subprocess.run([*common, str(HERE / "client.c"), "-ldl", "-o", str(directory / "client")], check=True)

    def measure(self, operation: Operation, *, hooked: bool) -> float:
        """Median ns a call."""
        environment = {"PATH": os.environ.get("PATH", ""), "LD_LIBRARY_PATH": str(self.directory)}
        region = self.directory / "bench.cache"
        region.unlink(missing_ok=True)
        if hooked:
            environment |= {
                "LD_PRELOAD": str(self.library),
                "CUDA_DEVICE_MEMORY_LIMIT": "40g",
                "CUDA_DEVICE_SM_LIMIT": str(operation.cores),
                "CUDA_DEVICE_MEMORY_SHARED_CACHE": str(region),
                "HAMI_DEVICE_UUIDS": "GPU-00000000-0000-0000-0000-000000000000",
            }
        command = [str(self.directory / "client"), operation.name, str(operation.calls), str(REPETITIONS)]
        with contextlib.ExitStack() as stack:
            if hooked and operation.others:
                stack.enter_context(self._holding(operation.others, environment))
            out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
        return statistics.median(float(line) for line in out.stdout.split())

    @contextlib.contextmanager
    def _holding(self, others: int, environment: dict[str, str]) -> Iterator[None]:
        command = [str(self.directory / "client"), "hold", str(others)]
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as held:
            assert held.stdout is not None
            if held.stdout.readline() != "ready\n":
                raise RuntimeError(f"{others} processes cannot be held")
            yield  # leaving closes its input, at which it ends and its children with it

    def result(self, operation: Operation, suites: int) -> Result:
        """Native and hooked in turn, so that what else the machine does meets both."""
        pairs = [(self.measure(operation, hooked=False), self.measure(operation, hooked=True)) for _ in range(suites)]
        native = statistics.median(native for native, _ in pairs)
        hooked = sorted(hooked for _, hooked in pairs)
        return Result(
            operation=operation.name,
            others=operation.others,
            native_ns=round(native, 1),
            hooked_ns=round(statistics.median(hooked), 1),
            hooked_least_ns=round(hooked[0], 1),
            hooked_most_ns=round(hooked[-1], 1),
            added_ns=round(statistics.median(hooked) - native, 1),
            target_ns=operation.target_ns,
        )


def show(results: list[Result]) -> None:
    table = Table(title="driver calls, ns of CPU time a call (alloc_free: a pair)")
    for column in ("operation", "others", "native", "hooked", "least", "most", "added", "target"):
        table.add_column(column, justify="left" if column == "operation" else "right", no_wrap=True)
    for r in results:
        style = "" if r.added_ns <= r.target_ns else "bold"
        numbers = (r.native_ns, r.hooked_ns, r.hooked_least_ns, r.hooked_most_ns, r.added_ns)
        table.add_row(
            r.operation, str(r.others or ""), *(f"{n:,.1f}" for n in numbers), f"{r.target_ns:,.0f}", style=style
        )
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one suite, a tenth of the calls; writes no file")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    where = machine()
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), native_dir() / "libvgpu.so")
        results = []
        for operation in OPERATIONS:
            chosen = replace(operation, calls=operation.calls // 10) if options.quick else operation
            results.append(bench.result(chosen, 1 if options.quick else SUITES))
    show(results)
    report = {"machine": where, "results": [asdict(result) for result in results]}
    if not options.quick:
        path = RESULTS / f"hooks-{datetime.date.today().isoformat()}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n")
    if options.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
