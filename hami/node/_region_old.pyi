from dataclasses import dataclass
from os import PathLike

@dataclass(frozen=True, slots=True, kw_only=True)
class OldDevice:
    uuid: str
    limit_bytes: int
    cores: int
    context_bytes: int
    module_bytes: int
    data_bytes: int
    total_bytes: int

@dataclass(frozen=True, slots=True, kw_only=True)
class OldSnapshot:
    layout: int
    minor: int
    devices: tuple[OldDevice, ...]
    processes: int
    host_pids: tuple[int, ...]
    priority: int
    sharing: bool
    recent_kernel: int
    last_kernel_unix: int

class OldRegion:
    path: str
    identity: tuple[int, int]
    def __init__(self, path: str | PathLike[str]) -> None: ...
    def close(self) -> None: ...
    def snapshot(self) -> OldSnapshot: ...
    def apply(self, *, blocked: bool, sharing: bool) -> None: ...
    def decay(self) -> int: ...
