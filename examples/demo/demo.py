"""The main job on a simulated two-GPU machine: programs ask for parts of a GPU and get just those.

The programs are real CUDA and NVML clients (they open libcuda.so.1 and libnvidia-ml.so.1 as any program does) started
under `hami run`; only the driver below them is simulated. The table at the end says what each asked, was granted and
measured; the exit code is not 0 if a measured value is wrong.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from hami.local.run import IMPOSSIBLE
from hami.node.simulated import native_dir

MACHINE: Final = Path(__file__).parent / "machine.yaml"
TOLERANCE: Final = 3
"""Points of the device's time by which a measured share may differ from the granted one."""
SECONDS: Final = 5
KERNEL_NS: Final = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the final table."""

    program: str
    asked: str
    granted: str
    measured: str
    right: bool


@dataclass(kw_only=True)
class Program:
    """A probe program under `hami run`, and what it said."""

    name: str
    process: subprocess.Popen[str]
    reports: Mapping[str, Any] | None = None
    errors: str = ""

    def finish(self) -> Mapping[str, Any]:
        """Wait for the end; its reports by command (`info`, `alloc`, `burn`)."""
        out, self.errors = self.process.communicate(timeout=60)
        lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        self.reports = {line["command"]: line for line in lines}
        return self.reports


def start(name: str, options: Sequence[str], actions: Sequence[str], directory: str) -> Program:
    """Start the probe under `hami run` with these options; it performs these actions."""
    print(f"  hami run {' '.join(options)} -- {name}", flush=True)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "hami", "run", "--simulate", str(MACHINE), *options),
            *("--", str(native_dir() / "sim" / "gpuprobe"), *actions),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HAMI_LOCAL_DIR": directory},
    )
    return Program(name=name, process=process)


def as_asked(options: Sequence[str]) -> str:
    """The options without their dashes, for the table."""
    return " ".join(option.removeprefix("--") for option in options)


def memory_row(program: Program, options: Sequence[str], granted_mib: int) -> Row:
    """A program that saw its limit through NVML and CUDA, and met it."""
    reports = program.finish()
    devices = reports["info"]["devices"]
    seen = {round(device[key]) for device in devices for key in ("total_mib", "nvml_total_mib", "device_total_mib")}
    grown, result = reports["alloc"]["got_mib"], reports["alloc"]["result"]
    shown = ", ".join(f"{mib:,}" for mib in sorted(seen))
    return Row(
        program=program.name,
        asked=as_asked(options),
        granted=f"{len(devices)} x {granted_mib:,} MiB",
        measured=f"NVML and CUDA show {shown} MiB; {result} after {grown:,} MiB",
        right=seen == {granted_mib}
        and result == "CUDA_ERROR_OUT_OF_MEMORY"
        and granted_mib - 512 < grown <= granted_mib,
    )


def compute_rows(programs: Sequence[Program], options: Sequence[Sequence[str]], percents: Sequence[int]) -> list[Row]:
    """Programs that computed side by side; they must have been on one device, or they did not compete."""
    reports = [program.finish() for program in programs]
    devices = {device["uuid"] for report in reports for device in report["info"]["devices"]}
    rows = []
    for program, asked, percent, report in zip(programs, options, percents, reports, strict=True):
        share = 100 * report["burn"]["share"]
        rows.append(
            Row(
                program=program.name,
                asked=as_asked(asked),
                granted=f"{percent} % of {' and '.join(sorted(device[:12] for device in devices))}",
                measured=f"{share:.1f} % of the device's time over {SECONDS} s",
                right=len(devices) == 1 and abs(share - percent) <= TOLERANCE,
            )
        )
    return rows


def refused_row(program: Program, options: Sequence[str]) -> Row:
    """A program that asked for more than there is."""
    program.finish()
    return Row(
        program=program.name,
        asked=as_asked(options),
        granted="refused",
        measured=program.errors.partition("\n")[0].removeprefix("hami run: refused, "),
        right=program.process.returncode == IMPOSSIBLE and "short of memory" in program.errors,
    )


def perform(directory: str) -> list[Row]:
    """Start the programs, wait for them; one row each."""
    # Next to nothing is left over to be lent, and each can have its share.
    trainer = ["--gpumem", "3000", "--gpucores", "34", "--policy", "binpack"]
    server = ["--gpumem", "2000", "--gpucores", "60", "--policy", "binpack"]
    burn = ["info", "burn", str(SECONDS), str(KERNEL_NS)]
    print("Two programs compete for the compute of one device:")
    competitors = [
        start("trainer", trainer, burn, directory),
        start("server", server, burn, directory),
    ]
    print("Two more ask for memory, and go on until they get no more; one asks for more than any device has:")
    notebook = ["--gpumem", "3000"]
    pair = ["--gpus", "2", "--gpumem", "1000"]
    greedy = ["--gpumem", "20000"]
    growing = ["info", "alloc", "4000"]
    others = [
        start("notebook", notebook, growing, directory),
        start("two-device job", pair, growing, directory),
        start("too much", greedy, ["info"], directory),
    ]
    return [
        *compute_rows(competitors, [trainer, server], [34, 60]),
        memory_row(others[0], notebook, 3000),
        memory_row(others[1], pair, 1000),
        refused_row(others[2], greedy),
    ]


def main() -> int:
    print(f"A simulated machine of two GPUs ({MACHINE.name}); the library, the engine and the programs are real.")
    with tempfile.TemporaryDirectory(prefix="hami-demo-") as directory:
        rows = perform(directory)
    table = Table("program", "asked", "granted", "measured (simulated device)", "verdict", title="\nWhat they got")
    for row in rows:
        table.add_row(row.program, row.asked, row.granted, row.measured, "right" if row.right else "WRONG")
    Console(width=max(140, Console().width)).print(table)
    return 0 if all(row.right for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
