"""Programs of one container are killed (SIGKILL) at random moments while they allocate and free in every way.

    python -m bench.kills [--kills 1000] [--seed 1] [--json]

After each kill the ledger must stand at or below the limit. Every so often all of them are killed: then one sweep must
leave nothing counted, and a program that starts then must get the whole limit at once, so no lock is stuck. Results:
`bench/results/kills-<date>.json`. Exit status 1 if anything was lost.
"""

import argparse
import contextlib
import datetime
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.filter import machine as this_machine  # noqa: E402
from hami.node._region import Region  # noqa: E402
from tests.interpose.build import built  # noqa: E402
from tests.interpose.simulation import Simulation  # noqa: E402

RESULTS: Final = ROOT / "bench" / "results"
MIB: Final = 1 << 20
LIMIT_MIB: Final = 100
PROGRAMS: Final = 4
KILLS_A_CHECK: Final = 25
LONGEST_LIFE_S: Final = 0.05
"""Long enough to start and do some thousand operations, short enough that many die while they start."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What was seen. Lists name what should not be."""

    kills: int = 0
    checks: int = 0
    longest_sweep_ms: float = 0.0
    longest_start_ms: float = 0.0
    """Of a program that takes the whole limit after everybody else was killed."""
    above_limit: list[int] = field(default_factory=list)
    """Bytes that stood counted above the limit."""
    lost: list[str] = field(default_factory=list)


class Container:
    """One region on a simulated machine of its own, and the programs in it."""

    def __init__(self, directory: Path) -> None:
        machine = Simulation(directory)
        self._where = built("")
        path = directory / "region.cache"
        self.region = Region.create(path, machine.uuids, [LIMIT_MIB * MIB, 0], [0, 0])
        self._environment = {
            "PATH": os.environ["PATH"],
            **machine.environment(),
            "LD_PRELOAD": str(self._where / "libvgpu.so"),
            "CUDA_DEVICE_MEMORY_SHARED_CACHE": str(path),
            "REGION": str(path),
            "CHURN_STEPS": str(10**9),
        }

    def start(self, seed: int) -> subprocess.Popen[bytes]:
        """A program that allocates and frees until it is killed."""
        return subprocess.Popen(
            [self._where / "driven" / "driven_churn"],
            env={**self._environment, "CHURN_SEED": str(seed)},
            stdout=subprocess.DEVNULL,
        )

    def take_all(self) -> str:
        """What a new program that allocates up to the limit says."""
        run = subprocess.run(
            [self._where / "sim" / "gpuprobe", "alloc", str(LIMIT_MIB + 1)],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return run.stdout + run.stderr


def _check(container: Container, tally: Tally) -> None:
    """With everybody dead: nothing is counted, and everything can be had."""
    tally.checks += 1
    begun = time.perf_counter()
    container.region.reap()
    tally.longest_sweep_ms = max(tally.longest_sweep_ms, (time.perf_counter() - begun) * 1e3)
    seen = container.region.snapshot()
    device = seen.devices[0]
    if device.used_bytes or device.overhead_bytes or seen.slots:
        tally.lost.append(
            f"after kill {tally.kills}: {device.used_bytes} + {device.overhead_bytes} bytes, {seen.slots}"
        )
    begun = time.perf_counter()
    said = container.take_all()
    tally.longest_start_ms = max(tally.longest_start_ms, (time.perf_counter() - begun) * 1e3)
    if f'"got_mib": {LIMIT_MIB}' not in said:
        tally.lost.append(f"after kill {tally.kills}: a program that wants all says {said!r}")


@contextlib.contextmanager
def _killed(programs: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def run(kills: int, seed: int, directory: Path) -> Tally:
    """Kill `kills` programs, one after the other, and see what is left."""
    pick = random.Random(seed)
    container = Container(directory)
    tally = Tally()
    while tally.kills < kills:
        programs = [container.start(pick.randrange(10**6)) for _ in range(PROGRAMS)]
        with _killed(programs):
            for _ in range(min(KILLS_A_CHECK, kills - tally.kills)):
                time.sleep(pick.uniform(0.0, LONGEST_LIFE_S))
                victim = pick.randrange(PROGRAMS)
                programs[victim].kill()
                programs[victim].wait()
                tally.kills += 1
                used = container.region.snapshot().devices[0].used_bytes
                if used > LIMIT_MIB * MIB:
                    tally.above_limit.append(used - LIMIT_MIB * MIB)
                programs[victim] = container.start(pick.randrange(10**6))
        _check(container, tally)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one object on the last line, no file")
    asked = parser.parse_args()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        tally = run(asked.kills, asked.seed, Path(directory))
    result = {**asdict(tally), "seed": asked.seed, "seconds": round(time.perf_counter() - begun, 1)}
    if asked.json:
        print(json.dumps(result))
    else:
        today = datetime.datetime.now(tz=datetime.UTC).date()
        path = RESULTS / f"kills-{today}.json"
        path.write_text(json.dumps({"machine": this_machine(), "result": result}, indent=1) + "\n")
        print(
            f"{tally.kills} kills in {result['seconds']} s, {tally.checks} checks; longest sweep "
            f"{tally.longest_sweep_ms:.1f} ms, longest start {tally.longest_start_ms:.0f} ms; "
            f"above the limit: {len(tally.above_limit)}; lost: {tally.lost or 'nothing'}"
        )
    return 1 if tally.lost or tally.above_limit else 0


if __name__ == "__main__":
    sys.exit(main())
