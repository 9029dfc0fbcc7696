"""What calls cost more: CPU time of the calling thread, with and without the library in turn."""

import contextlib
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bench.hooks.programs import Programs, Row, compare

REPETITIONS: Final = 9
CONCURRENT: Final = 8


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
    concurrent: int = 1
    """Processes that do it at the same time."""

    @property
    def words(self) -> str:
        """For the table."""
        text = self.name.replace("_", " ").replace("alloc free", "alloc+free")
        if self.others:
            text += f", {self.others} other processes"
        return text if self.concurrent == 1 else f"{text}, {self.concurrent} processes at once"


OPERATIONS: Final = (
    Operation(name="alloc_free", calls=100_000, target_ns=100),
    Operation(name="alloc_free", calls=50_000, target_ns=200, others=63),
    Operation(name="alloc_free", calls=50_000, target_ns=1_000, others=511),
    Operation(name="alloc_free_1000_live", calls=100_000, target_ns=200),
    Operation(name="alloc_free_10000_live", calls=100_000, target_ns=200),
    Operation(name="alloc_free", calls=100_000, target_ns=250, concurrent=CONCURRENT),
    Operation(name="launch", calls=500_000, target_ns=10),
    Operation(name="launch_limited", calls=200_000, target_ns=60, cores=50),
    Operation(name="memory_info", calls=200_000, target_ns=100),
    Operation(name="nvml_memory_info", calls=100_000, target_ns=100),
    Operation(name="look_up_hooked", calls=100_000, target_ns=100),
    Operation(name="look_up_other", calls=100_000, target_ns=60),
    Operation(name="dlsym_hooked", calls=100_000, target_ns=100),
    Operation(name="dlsym_other", calls=100_000, target_ns=60),
)


def rows(programs: Programs, *, suites: int, calls_divided_by: int = 1) -> Iterator[Row]:
    """A row an operation; medians of medians of the suites."""
    for operation in OPERATIONS:
        calls = operation.calls // calls_divided_by
        pairs = [
            (_measure(programs, operation, calls, hooked=False), _measure(programs, operation, calls, hooked=True))
            for _ in range(suites)
        ]
        native, hooked = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        yield compare(operation.words, native, hooked, operation.target_ns, "ns")


def _measure(programs: Programs, operation: Operation, calls: int, *, hooked: bool) -> float:
    """Median ns a call; of several processes at once, the median of theirs."""
    environment = programs.environment(hooked=hooked, cores=operation.cores)
    with contextlib.ExitStack() as stack:
        if hooked and operation.others:
            (held,) = stack.enter_context(programs.started(environment, "hold", operation.others))
            assert held.stdout is not None
            if held.stdout.readline() != "ready\n":
                raise RuntimeError(f"{operation.others} processes cannot be held")
        words = (operation.name, calls, REPETITIONS)
        with programs.started(environment, *words, many=operation.concurrent) as clients:
            outputs = [client.communicate(timeout=300)[0] for client in clients]
            if any(client.returncode for client in clients):
                raise RuntimeError(f"{operation.words}: a client failed")
    return statistics.median(statistics.median(float(line) for line in out.split()) for out in outputs)
