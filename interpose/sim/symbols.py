#!/usr/bin/env python3
"""Extract the names that the vendor's headers declare: `cuda_symbols.txt` and `nvml_symbols.txt` beside this file.

Usage: symbols.py DIR..., each an unpacked wheel of nvidia-cuda-runtime, nvidia-cuda-runtime-cu12, nvidia-nvml-dev or
nvidia-nvml-dev-cu12. Only names, the CUDA version that introduced each calling convention, and the API family
(legacy stream, per-thread stream) are kept; they are facts of the binary interface.

A row of `cuda_symbols.txt`: linker symbol, the name programs ask `cuGetProcAddress` for, CUDA version of this calling
convention (1000 * major + 10 * minor; 0 = the headers do not say), and `legacy`, `ptsz` or `ptds`.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
SOURCES = "cuda.h and cudaTypedefs.h of CUDA 12.9.79 and 13.5.37, nvml.h of 12.9.79 and 13.5.37 (PyPI wheels)"


class Row(NamedTuple):
    """One linker symbol of the driver library."""

    symbol: str
    name: str
    version: int
    family: str


def declared(header: str) -> set[str]:
    """Linker symbols of one cuda.h: what it declares plus the twins that its per-thread macros name."""
    symbols = set(re.findall(r"\bCUDAAPI\s+(cu\w+)\s*\(", header))
    for family in ("ptds", "ptsz"):
        symbols |= {f"{s}_{family}" for s in re.findall(rf"__CUDA_API_{family.upper()}\((\w+)\)", header) if s != "api"}
    # A declaration written with its plain name is compiled as the name its #define gives.
    return symbols | set(re.findall(r"^\s*#define\s+cu[A-Z]\w+\s+(cu[A-Z]\w+)\s*$", header, re.M))


def split(symbol: str) -> tuple[str, int, str]:
    """Name without suffixes, number after `_v` (1 when absent), family."""
    family = "legacy"
    for twin in ("ptds", "ptsz"):
        if symbol.endswith(f"_{twin}"):
            symbol, family = symbol.removesuffix(f"_{twin}"), twin
    match = re.fullmatch(r"(\w+?)_v(\d+)", symbol)
    return (match[1], int(match[2]), family) if match else (symbol, 1, family)


def versions(typedefs: str) -> dict[tuple[str, str], set[int]]:
    """Name and family -> the CUDA versions at which its calling convention changed."""
    found: dict[tuple[str, str], set[int]] = defaultdict(set)
    for name, version, _, twin in re.findall(r"\bPFN_(cu\w+?)_v(\d+)(_(ptds|ptsz))?\)", typedefs):
        found[name, twin or "legacy"].add(int(version))
    return found


def cuda_rows(headers: list[str], typedefs: list[str]) -> list[Row]:
    symbols = set().union(*(declared(h) for h in headers))
    known: dict[tuple[str, str], set[int]] = defaultdict(set)
    for text in typedefs:
        for key, values in versions(text).items():
            known[key] |= values
    groups: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for symbol in symbols:
        name, number, family = split(symbol)
        groups[name, family].append((number, symbol))
    rows = []
    for (name, family), members in groups.items():
        # The n-th calling convention is the n-th `_vN`; where the typedefs know fewer, the newest ones are matched.
        order = sorted(members)
        ages = sorted(known[name, family])[-len(order) :]
        ages = [0] * (len(order) - len(ages)) + ages
        rows += [Row(symbol, name, age, family) for (_, symbol), age in zip(order, ages, strict=True)]
    return sorted(rows, key=lambda row: (row.name, row.family, row.version))  # the C side searches by name


def nvml_names(headers: list[str]) -> list[str]:
    names: set[str] = set()
    for header in headers:
        names |= set(re.findall(r"\bDECLDIR\s+(?:char\s*\*\s*)?(nvml\w+)\s*\(", header))
        for plain, versioned in re.findall(r"^\s*#define\s+(nvml[A-Z]\w+)\s+(nvml\w+_v\d+)\s*$", header, re.M):
            names |= {plain, versioned}
    return sorted(names)


def main(roots: list[str]) -> None:
    def texts(name: str) -> list[str]:
        found = [path.read_text() for root in roots for path in sorted(Path(root).rglob(name))]
        if not found:
            raise SystemExit(f"no {name} below {roots}")
        return found

    note = f"# Names of the driver's binary interface, extracted by symbols.py from {SOURCES}.\n"
    rows = cuda_rows(texts("cuda.h"), texts("cudaTypedefs.h"))
    (HERE / "cuda_symbols.txt").write_text(
        note + "".join(f"{r.symbol} {r.name} {r.version} {r.family}\n" for r in rows)
    )
    (HERE / "nvml_symbols.txt").write_text(note + "".join(f"{name}\n" for name in nvml_names(texts("nvml.h"))))


if __name__ == "__main__":
    main(sys.argv[1:])
