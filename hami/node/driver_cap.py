"""Memory limits that the driver itself holds for a cgroup (release 615 and newer), through NVML.

They cover every way to device memory but managed memory, programs without our library included. They are offered only
where the driver was asked and answered; a guess would let nothing through to containers that need no limit.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pynvml

from hami.model.names import DeviceUuid
from hami.node.cgroups import is_version_2

log = logging.getLogger(__name__)

FIRST_RELEASE: Final = 615
NO_LIMIT: Final = 2**64 - 1
"""As a hard limit: none."""


def driver_release() -> int:
    """The driver's release; 0 where it cannot be asked."""
    try:
        pynvml.nvmlInit()
        try:
            return _release(pynvml.nvmlSystemGetDriverVersion())
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return 0


class CapError(Exception):
    """The driver refuses a limit, or cannot be asked; the text says what it answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapState:
    """What the driver holds of one cgroup on one device, bytes."""

    soft: int
    hard: int
    """NO_LIMIT = none."""
    used: int
    """By all programs of the cgroup, contexts included; managed memory is not."""


@dataclass(slots=True)
class DriverCap:
    """The driver's limits below the cgroup tree at `root`. NVML must be initialized. Calls may block for milliseconds.

    `played`: the tree is a directory that a simulated machine takes for one.
    """

    root: Path
    played: bool = False
    _offered: dict[DeviceUuid, bool] = field(default_factory=dict)
    _totals: dict[DeviceUuid, int] = field(default_factory=dict)

    def offered(self, uuid: DeviceUuid) -> bool:
        """Whether the driver caps cgroups on this device: the release, cgroup v2 and an answer to a question say so.

        Asked once a device: a driver is not exchanged under a running agent.
        """
        known = self._offered.get(uuid)
        if known is None:
            known = self._offered[uuid] = self._ask(uuid)
            log.info("device %s: the driver %s cap what a container takes", uuid, "can" if known else "cannot")
        return known

    def _ask(self, uuid: DeviceUuid) -> bool:
        if not self.played and not is_version_2(self.root):
            return False
        try:
            if _release(pynvml.nvmlSystemGetDriverVersion()) < FIRST_RELEASE:
                return False
            _get(uuid, self.root)
        except pynvml.NVMLError_NotFound:
            return True  # it knows of no limit here, and would hold one
        except pynvml.NVMLError:
            return False
        return True

    def total(self, uuid: DeviceUuid) -> int:
        """Bytes of the device's memory; 0 where the driver does not tell."""
        if uuid not in self._totals:
            try:
                handle = pynvml.nvmlDeviceGetHandleByUUID(str(uuid))
                self._totals[uuid] = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
            except pynvml.NVMLError:
                return 0
        return self._totals[uuid]

    def get(self, uuid: DeviceUuid, group: Path) -> CapState | None:
        """What is held for a group; None where nothing is. Raises CapError."""
        try:
            state = _get(uuid, group)
        except pynvml.NVMLError_NotFound:
            return None
        except pynvml.NVMLError as error:
            raise CapError(f"{group}: {error}") from error
        return None if (state.soft, state.hard) == (0, NO_LIMIT) and state.used == 0 else state

    def put(self, uuid: DeviceUuid, group: Path, hard: int) -> None:
        """Hold a group to `hard` bytes, of which none are set apart for it: what is set apart would have to be given
        back before the group goes. Raises CapError."""
        _set(uuid, group, hard)

    def clear(self, uuid: DeviceUuid, group: Path) -> None:
        """Let go of a group. Raises CapError."""
        _set(uuid, group, NO_LIMIT)


def _get(uuid: DeviceUuid, group: Path) -> CapState:
    asked = pynvml.c_nvmlGetMemoryLimits_v1_t(str(group).encode())
    _call(pynvml.nvmlDeviceGetMemoryLimits_v1, uuid, asked)
    return CapState(soft=int(asked.softLimit), hard=int(asked.hardLimit), used=int(asked.currentUsed))


def _set(uuid: DeviceUuid, group: Path, hard: int) -> None:
    try:
        _call(
            pynvml.nvmlDeviceSetMemoryLimits_v1, uuid, pynvml.c_nvmlSetMemoryLimits_v1_t(str(group).encode(), 0, hard)
        )
    except pynvml.NVMLError as error:
        raise CapError(f"{group}: {error}") from error


def _call(function: Callable[[Any, Any], None], uuid: DeviceUuid, limits: Any) -> None:
    function(pynvml.nvmlDeviceGetHandleByUUID(str(uuid)), limits)


def _release(version: str | bytes) -> int:
    """The leading number of a driver version; 0 for anything else."""
    text = version.decode(errors="replace") if isinstance(version, bytes) else version
    head = text.partition(".")[0]
    return int(head) if head.isascii() and head.isdigit() else 0
