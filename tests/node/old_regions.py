"""Region files as HAMi's libraries of different ages write them, byte by byte from the layout, by no code of ours."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

READY = 19920718
V1_BYTES = 2_008_952
V0_BYTES = 1_197_896
OLDER_BYTES = 804_680
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class OldProcess:
    """One slot: amounts of device i are i + 1 times these."""

    pid: int
    host_pid: int = 0
    context: int = 0
    module: int = 0
    data: int = 0
    status: int = 1


def _put(file: bytearray, at: int, form: str, *values: int | bytes) -> None:
    struct.pack_into("<" + form, file, at, *values)


def _common(file: bytearray, at: int, uuids: Sequence[str], limit_mib: int, cores: int) -> None:
    """Count, UUIDs, limits: in both layouts in this order."""
    _put(file, at, "Q", len(uuids))
    for i, uuid in enumerate(uuids):
        _put(file, at + 8 + 96 * i, "96s", uuid.encode())
        _put(file, at + 1544 + 8 * i, "Q", limit_mib * MIB)
        _put(file, at + 1672 + 8 * i, "Q", cores)


def layout_1(
    path: Path,
    uuids: Sequence[str],
    *processes: OldProcess,
    minor: int = 2,
    limit_mib: int = 1000,
    cores: int = 50,
    recent: int = 2,
    switch: int = 1,
    priority: int = 0,
    last_kernel: int = 0,
) -> None:
    file = bytearray(V1_BYTES + 1)
    _put(file, 0, "iiii", READY, 1, minor, 1)
    _common(file, 56, uuids, limit_mib, cores)
    for n, process in enumerate(processes):
        at = 1856 + 1960 * n
        _put(file, at, "ii", process.pid, process.host_pid)
        for i in range(len(uuids)):
            parts = [(i + 1) * part for part in (process.context, process.module, process.data)]
            _put(file, at + 8 + 64 * i, "QQQQQ", *parts, 0, sum(parts))
        _put(file, at + 1928, "i", process.status)
        if minor >= 2:
            _put(file, at + 1936, "Q", 42)  # updates are counted here
    _put(file, 2_008_896, "iiii", len(processes), switch, recent, priority)
    _put(file, 2_008_912, "Q", last_kernel)
    path.write_bytes(file)


def layout_0(
    path: Path,
    uuids: Sequence[str],
    *processes: OldProcess,
    limit_mib: int = 1000,
    cores: int = 50,
    recent: int = 2,
    switch: int = 1,
    priority: int = 0,
) -> None:
    file = bytearray(V0_BYTES + 1)
    _put(file, 0, "ii", READY, 1)
    _common(file, 48, uuids, limit_mib, cores)
    for n, process in enumerate(processes):
        at = 1848 + 1168 * n
        _put(file, at, "ii", process.pid, process.host_pid)
        for i in range(len(uuids)):
            parts = [(i + 1) * part for part in (process.context, process.module, process.data)]
            _put(file, at + 8 + 40 * i, "QQQQQ", *parts, 0, sum(parts))
        _put(file, at + 1160, "i", process.status)
    _put(file, 1_197_880, "iiii", len(processes), switch, recent, priority)
    path.write_bytes(file)


def words(path: Path) -> tuple[int, int]:
    """The switch and the activity word, whichever layout it is."""
    data = path.read_bytes()
    at = 2_008_900 if len(data) >= V1_BYTES else 1_197_884
    switch, recent = struct.unpack_from("<ii", data, at)
    return switch, recent
