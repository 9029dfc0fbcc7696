from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from types import TracebackType
from typing import Self

@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse:
    uuid: str
    limit_bytes: int
    cores: int
    used_bytes: int
    overhead_bytes: int
    swapped_bytes: int
    launches: int
    charged_ns: int
    waited_ns: int
    debt_ns: int
    stamp_ns: int
    refused: int
    correction: int
    tenants: int
    lent: int

@dataclass(frozen=True, slots=True, kw_only=True)
class SlotMemory:
    used_bytes: int
    context_bytes: int
    module_bytes: int
    monitor_used_bytes: int

@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    index: int
    pid: int
    host_pid: int
    memory: tuple[SlotMemory, ...]

@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    devices: tuple[DeviceUse, ...]
    slots: tuple[Slot, ...]
    priority: int
    sharing: bool
    recent_kernel: int
    last_kernel_unix: int
    policy: int
    @property
    def blocked(self) -> bool: ...

class Region:
    path: str
    @staticmethod
    def create(
        path: str | PathLike[str],
        uuids: Iterable[str],
        memory_limits_bytes: Iterable[int],
        core_limits: Iterable[int],
        *,
        priority: int = 1,
    ) -> Region: ...
    @staticmethod
    def open(path: str | PathLike[str]) -> Region: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    @property
    def replaced(self) -> bool: ...
    def snapshot(self) -> Snapshot: ...
    def reap(self) -> int: ...
    def set_limit(self, device: int, bytes_: int, cores: int) -> None: ...
    def set_priority(self, priority: int) -> None: ...
    def reassert(
        self, uuids: Iterable[str], memory_limits_bytes: Iterable[int], core_limits: Iterable[int], *, priority: int
    ) -> bool: ...
    def set_sharing(self, sharing: bool) -> None: ...
    def observe(self, slot: int, device: int, bytes_: int) -> None: ...
    def expect_context(self, device: int, bytes_: int) -> None: ...
    def set_correction(self, device: int, *, permille: int, tenants: int) -> None: ...
    def lend(self, device: int, percent: int) -> None: ...
    def amend(self, device: int, ns: int) -> None: ...
    def block(self) -> None: ...
    def unblock(self) -> None: ...
    def decay(self) -> int: ...
