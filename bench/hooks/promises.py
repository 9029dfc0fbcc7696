"""What must not happen at all, or at once: overshoot, memory of the dead, foreign symbols, noise."""

import re
import subprocess
import time
from collections.abc import Iterator
from typing import Final

from bench.hooks.programs import INTERPOSE, Programs, Row, count

RACERS: Final = 8
RACES: Final = 6
PIECE_MIB: Final = 16
LIMIT_MIB: Final = 4096
OWN_NAMES: Final = frozenset({"dlsym", "dlvsym", "dlopen"})


def rows(programs: Programs) -> Iterator[Row]:
    """Races for the last piece, a killed holder, the export list, the standard error of a client."""
    got = [_race(programs) for _ in range(RACES)]
    yield count(f"{RACERS} processes race to the limit: above it", [max(0.0, mib - LIMIT_MIB) for mib in got], 0, "MiB")
    yield count("... and refused below it", [max(0.0, LIMIT_MIB - mib) for mib in got], 0, "MiB")
    yield count(
        "memory of a killed process is there for others after", [_inherit(programs) for _ in range(5)], 1000, "ms"
    )
    yield count("exported symbols that stand in for nothing", [float(len(_foreign(programs)))], 0, "")
    environment = programs.environment(hooked=True)
    command = [str(programs.client), "alloc_free", "10", "1"]
    done = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60)
    yield count("output on standard error", [float(len(done.stderr))], 0, "bytes")


def _race(programs: Programs) -> float:
    """MiB that racing processes hold together."""
    environment = programs.environment(hooked=True, memory=f"{LIMIT_MIB}m")
    with programs.started(environment, "race", PIECE_MIB, many=RACERS) as racers:
        pieces = 0
        for racer in racers:
            assert racer.stdout is not None
            pieces += int(racer.stdout.readline())
    return float(pieces * PIECE_MIB)


def _inherit(programs: Programs) -> float:
    """Milliseconds from the kill of a process that holds everything until another holds it, its start included."""
    environment = programs.environment(hooked=True, memory=f"{LIMIT_MIB}m")
    with programs.started(environment, "race", PIECE_MIB) as (holder,):
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
        holder.wait()
        killed = time.monotonic()
        with programs.started(environment, "race", PIECE_MIB) as (heir,):
            assert heir.stdout is not None
            pieces = int(heir.stdout.readline())
            took_ms = (time.monotonic() - killed) * 1000
    return took_ms if pieces * PIECE_MIB == LIMIT_MIB else float("inf")


def _foreign(programs: Programs) -> set[str]:
    """Names that the library exports and no row of hooks.def asks for."""
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", str(programs.library)], capture_output=True, text=True, check=True
    ).stdout
    names = {line.split()[-1].split("@")[0] for line in listed.splitlines()}
    hooks = set(re.findall(r"^HOOK\(\w+, (\w+),", (INTERPOSE / "hooks.def").read_text(), flags=re.MULTILINE))
    return names - hooks - OWN_NAMES
