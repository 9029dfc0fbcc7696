"""What a container gets: environment, mounts and the grant file, in HAMi's contract between node and library.

Two halves, because a kubelet asks before it is certain for whom. `mounts` and `fixed_env` name only the grant and may
be answered at once; `owner_env` and `grant_file` say how much, and are written when the container is known. The grant
file is what our library obeys. The environment says the same, for older libraries and for people who look.
"""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hami.alloc.request import Container, environment
from hami.model.claim import Share
from hami.model.settings import NvidiaConfig
from hami.model.vendor import Vendor
from hami.model.wire.grant import ENFORCERS, GrantDevice, GrantFile

ETC: Final = "/etc/hami"
"""Directory of the grant file inside a container."""
PRELOAD: Final = "/etc/ld.so.preload"
LOCK: Final = "/tmp/vgpulock"
"""Directory that older libraries of all containers share for their locks."""
HOST_PID: Final = f"{LOCK}/hostpid"
"""Where a container finds the host-pid broker's socket."""
MPS_PIPE: Final = "/run/hami/mps/pipe"
MPS_LOG: Final = "/run/hami/mps/log"
SHM: Final = "/dev/shm"
"""Where a container finds its MPS daemon, which shares memory with it."""
MPS_BESIDE_MIB: Final = 600
"""What one program's contexts and code may take beside the container's limit, where they are no part of it: what is
usual at most. MPS counts them, and must not refuse what the container was granted."""

FULL: Final = 100
"""Percent of a device's compute from which there is no limit."""
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A bind mount."""

    container: str
    host: str
    read_only: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantPaths:
    """Where one grant lies on its node. All paths are absolute."""

    hook: str
    """`<HOOK>/vgpu`, which is the same path on the node and in containers."""
    etc: str
    """The grant's own directory of the grant file."""
    region: str
    """The grant's own directory of the shared region; it is seen at `hook` inside."""
    region_name: str
    """File name of the shared region."""
    library: str
    """The installed library of this version."""
    preload: str
    """The node's file that names the library for the loader."""
    lock: str = LOCK
    host_pid: str = ""
    """The host-pid broker's directory; empty where there is none."""

    @property
    def region_inside(self) -> str:
        """The shared region as the container sees it."""
        return posixpath.join(self.hook, self.region_name)


def fixed_env(nvidia: NvidiaConfig, paths: GrantPaths) -> dict[str, str]:
    """Variables that are the same whoever the container is."""
    env = {"CUDA_DEVICE_MEMORY_SHARED_CACHE": paths.region_inside}
    if nvidia.device_memory_scaling > 1:
        env["CUDA_OVERSUBSCRIBE"] = "true"
    if nvidia.libcuda_log_level:
        env["LIBCUDA_LOG_LEVEL"] = nvidia.libcuda_log_level
    if nvidia.disable_core_limit:
        env["GPU_CORE_UTILIZATION_POLICY"] = "disable"
    if paths.host_pid:
        env["LIBVGPU_HOSTPID_BROKER"] = "1"
    return env


def owner_env(
    shares: Sequence[Share], vendor: Vendor, *, visible: bool = True, driver_cap: bool = False
) -> dict[str, str]:
    """Variables that depend on the owner: devices and limits, by position in the container.

    An amount of 0 is no limit and sets no variable. `driver_cap` adds what the vendor's own start-up hook acts on: one
    amount for all devices of the container, so only where they are equal. A driver without that ability would refuse
    to start the container, so it is never set on a guess.
    """
    if not shares:
        return {}
    names = vendor.env
    env = {names.memory_limit.format(i=i): f"{share.memory_mib}m" for i, share in enumerate(shares) if share.memory_mib}
    # HAMi's library reads one value for all devices; ours reads each device's own.
    env[names.core_limit] = str(shares[0].cores)
    if len({share.cores for share in shares}) > 1:
        env |= {f"{names.core_limit}_{i}": str(share.cores) for i, share in enumerate(shares)}
    env["HAMI_DEVICE_UUIDS"] = _uuids(shares)
    if visible:
        env[names.visible] = _uuids(shares)
    amounts = {share.memory_mib for share in shares}
    if driver_cap and len(amounts) == 1 and 0 not in amounts:
        amount = str(amounts.pop())
        # Nothing is set apart: what a container has set apart must be given back before its cgroup goes.
        env |= {"NVIDIA_GPU_MEMORY_REQUEST": "0", "NVIDIA_GPU_MEMORY_LIMIT": amount}
    return env


def mps_env(shares: Sequence[Share], *, cores: bool, memory: bool, beside_mib: int = 0) -> dict[str, str]:
    """Variables that make programs run under the node's MPS daemon, each up to the container's share.

    `cores`: with a ceiling on multiprocessors. It is one for all devices, so the smallest share counts. `memory`: with
    the daemon's own limit on each single process, `beside_mib` above the container's. Devices are named by UUID, as the
    driver numbers them in an order of its own; one that a program does not see takes the limits from all.
    """
    env = {"CUDA_MPS_PIPE_DIRECTORY": MPS_PIPE, "CUDA_MPS_LOG_DIRECTORY": MPS_LOG}
    if cores and (ceiling := mps_ceiling(shares)):
        env["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = str(ceiling)
    pinned = [f"{share.uuid}={share.memory_mib + beside_mib}M" for share in shares if share.memory_mib]
    if memory and pinned:
        env["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] = ",".join(pinned)
    return env


def mps_ceiling(shares: Sequence[Share]) -> int:
    """Percent of the multiprocessors of each device; 0 = all."""
    return min((share.cores for share in shares if 0 < share.cores < FULL), default=0)


def mps_most(shares: Sequence[Share], beside_mib: int) -> int:
    """MiB that one program may hold of each device: one amount for all, so the largest, and none if one has none. 0 =
    no limit."""
    amounts = [share.memory_mib for share in shares]
    return max(amounts) + beside_mib if amounts and all(amounts) else 0


def mps_own_limits(shares: Sequence[Share], *, named: bool) -> bool:
    """Whether programs must be told the daemon's limits on their memory: a container's place says one amount for all
    devices. Better not to: one word of it that does not fit a program's devices takes the place's limit away, too."""
    return not named or len({share.memory_mib for share in shares}) > 1


def mps_mounts(pipe: str, log: str, shm: str) -> tuple[Mount, ...]:
    """The daemon's directories, by their paths on the node; an empty `shm` leaves the container its own."""
    found = [
        Mount(container=MPS_PIPE, host=pipe, read_only=False),
        Mount(container=MPS_LOG, host=log, read_only=False),
    ]
    if shm:
        found.append(Mount(container=SHM, host=shm, read_only=False))
    return tuple(found)


def mounts(paths: GrantPaths, *, preload: bool = True) -> tuple[Mount, ...]:
    """What the container sees of its grant; the library's file lies in the region's directory, so it comes after it."""
    found = [
        Mount(container=ETC, host=paths.etc),
        Mount(container=paths.hook, host=paths.region, read_only=False),
        Mount(container=posixpath.join(paths.hook, "libvgpu.so"), host=paths.library),
        Mount(container=LOCK, host=paths.lock, read_only=False),
    ]
    if paths.host_pid:
        found.append(Mount(container=HOST_PID, host=paths.host_pid))
    if preload:
        found.append(Mount(container=PRELOAD, host=paths.preload))
    return tuple(found)


def grant_file(
    shares: Sequence[Share],
    nvidia: NvidiaConfig,
    *,
    priority: int,
    paths: GrantPaths,
    enforced_by: str = "library",
) -> GrantFile:
    """What the library is told. Priorities beyond 1 are low, as the file knows two."""
    if enforced_by not in ENFORCERS:
        raise ValueError(f"enforced_by must be one of {', '.join(ENFORCERS)}, got {enforced_by!r}")
    return GrantFile(
        devices=tuple(
            GrantDevice(
                uuid=share.uuid, memory_mib=share.memory_mib, cores=min(100, share.cores), enforced_by=enforced_by
            )
            for share in shares
        ),
        policy="disable" if nvidia.disable_core_limit else nvidia.gpu_core_policy,
        priority=min(1, priority),
        oversubscribe=nvidia.device_memory_scaling > 1,
        accounting=nvidia.memory_accounting,
        region=paths.region_inside,
    )


def opts_out(container: Container) -> bool:
    """Whether a container's own environment switches control off (`CUDA_DISABLE_CONTROL`)."""
    written = [entry.get("value") for entry in environment(container) if entry.get("name") == "CUDA_DISABLE_CONTROL"]
    return bool(written) and written[-1] in _TRUE


def _uuids(shares: Sequence[Share]) -> str:
    return ",".join(share.uuid for share in shares)
