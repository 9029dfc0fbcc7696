"""The programs that are measured: a client, and a driver whose functions do next to nothing, built in a directory."""

import contextlib
import os
import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
INTERPOSE: Final = HERE.parents[1] / "interpose"
DEVICE: Final = "GPU-00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    item: str
    native: float | None
    """None: there is nothing to compare with."""
    hooked: float
    least: float
    most: float
    added: float
    """What is held against the target; without `native`, `hooked` itself."""
    target: float
    unit: str

    @property
    def verdict(self) -> str:
        if self.added <= self.target:
            return "met"
        return "missed by less than 20 %" if self.added <= 1.2 * self.target else "failed"


def compare(item: str, native: list[float], hooked: list[float], target: float, unit: str) -> Row:
    """A row from measurements taken in turn; medians."""
    middle, plain = statistics.median(hooked), statistics.median(native)
    return Row(
        item=item,
        native=round(plain, 1),
        hooked=round(middle, 1),
        least=round(min(hooked), 1),
        most=round(max(hooked), 1),
        added=round(middle - plain, 1),
        target=target,
        unit=unit,
    )


def count(item: str, values: list[float], target: float, unit: str) -> Row:
    """A row from values that have no counterpart without the library; the greatest counts."""
    most = max(values)
    middle = statistics.median(values)
    return Row(
        item=item, native=None, hooked=middle, least=min(values), most=most, added=most, target=target, unit=unit
    )


class Programs:
    """Client and stand-in driver, and a region for each measurement."""

    def __init__(self, directory: Path, library: Path) -> None:
        self.directory = directory
        self.library = library
        self.client = directory / "client"
        compiler = os.environ.get("CC", "cc")
        common = [compiler, "-O2", "-Wall", "-Wextra", "-I", str(INTERPOSE)]
        standin = [str(HERE / "standin.c"), "-shared", "-fPIC", "-Wl,-Bsymbolic"]
        for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
            subprocess.run([*common, *standin, f"-Wl,-soname,{name}", "-o", str(directory / name)], check=True)
        subprocess.run([*common, str(HERE / "client.c"), "-ldl", "-o", str(self.client)], check=True)

    def environment(self, *, hooked: bool, cores: int = 0, memory: str = "40g", preload: bool = True) -> dict[str, str]:
        """What a client starts with; hooked, on a new region (unless one is in use: then call `region` later)."""
        environment = {"PATH": os.environ.get("PATH", ""), "LD_LIBRARY_PATH": str(self.directory)}
        if not hooked:
            return environment
        region = self.directory / "bench.cache"
        region.unlink(missing_ok=True)
        preloaded = {"LD_PRELOAD": str(self.library)} if preload else {}
        return (
            environment
            | preloaded
            | {
                "CUDA_DEVICE_MEMORY_LIMIT": memory,
                "CUDA_DEVICE_SM_LIMIT": str(cores),
                "CUDA_DEVICE_MEMORY_SHARED_CACHE": str(region),
                "HAMI_DEVICE_UUIDS": DEVICE,
            }
        )

    def run(self, environment: dict[str, str], *words: str | int) -> str:
        """What the client prints."""
        command = [str(self.client), *map(str, words)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
        return done.stdout

    @contextlib.contextmanager
    def started(
        self, environment: dict[str, str], *words: str | int, many: int = 1
    ) -> Iterator[list[subprocess.Popen[str]]]:
        """Clients with pipes; leaving closes their inputs, at which those that hold something end."""
        command = [str(self.client), *map(str, words)]
        with contextlib.ExitStack() as stack:
            yield [
                stack.enter_context(
                    subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                )
                for _ in range(many)
            ]
