"""NVIDIA's cards through NVML, the vendor's library: the same code over the real and the simulated one.

NVML answers are optional one by one (a board without NVLink, a virtual machine without NUMA), so each question says
what its refusal means. A card whose memory nobody can tell is not registered.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import pynvml

from hami.model.device import HAMI_CORE, MIG, Device, Links, MigProfile, NodeInventory
from hami.model.mig import allowlisted, select_profiles
from hami.model.names import DeviceUuid, WireError
from hami.model.settings import NodeOverrides, NvidiaConfig, apply_node_overrides
from hami.node import mig
from hami.node.links import Neighborhood, score_links
from hami.node.probe import ProbeError
from hami.vendors.nvidia import NVIDIA

log = logging.getLogger(__name__)

MIB: Final = 2**20
PREFIX: Final = "NVIDIA"
"""The vendor word must occur in the model: schedulers find candidate cards by it."""
XID_OF_PROGRAMS: Final = frozenset({13, 31, 43, 45, 68, 109})
"""Xid errors that a faulty program causes; the card is fine afterwards."""
FULL_CORES: Final = 100
SECOND_US: Final = 1_000_000
SINGLE: Final = "single"
MIXED: Final = "mixed"
"""Strategies for instances that somebody else made: devices like any other, or a resource for each profile."""

PROCESS_LISTS: Final = (
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetMPSComputeRunningProcesses",
)
"""NVML lists a process by what it uses a card for."""

T = TypeVar("T")


class NvidiaProbe:
    """NVML, initialized for as long as the block lasts.

    `sysfs` None: NUMA nodes come from NVML alone (a simulated card's bus address may be some other device's here).
    """

    def __init__(
        self, config: NvidiaConfig, overrides: NodeOverrides | None = None, *, sysfs: Path | None = Path("/sys")
    ) -> None:
        self._overrides = overrides or NodeOverrides()
        self._config = apply_node_overrides(config, self._overrides)
        self._sysfs = sysfs
        self._broken: dict[DeviceUuid, str] = {}
        self._events: Any = None
        self._shares_us: int | None = None
        self._links: Links | None = None
        self.asymmetric: tuple[tuple[DeviceUuid, DeviceUuid], ...] = ()
        """Pairs whose links look different from each side; they score 0."""
        self.left_out: Mapping[DeviceUuid, str] = {}
        """Cards that were left out of the last inventory because of their MIG mode, and why."""
        self._told: Mapping[DeviceUuid, str] = {}

    def __enter__(self) -> Self:
        _asked(pynvml.nvmlInit)
        self._events = _optional(self._register_events, None)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._events is not None:
            _optional(lambda: pynvml.nvmlEventSetFree(self._events), None)
        _optional(pynvml.nvmlShutdown, None)

    def inventory(self) -> NodeInventory:
        """Every card that is not hidden and whose memory is known. Raises ProbeError when NVML refuses altogether."""
        handles = self._handles()
        health = self.health()
        self._told, self.left_out = self.left_out, {}
        devices = [
            device
            for index, (uuid, handle) in enumerate(handles.items())
            if not self._hidden(uuid, index) and (device := self._device(uuid, index, handle, health)) is not None
        ]
        if self._overrides.mig_strategy == SINGLE and not self.cuts:
            devices += self._single_devices(len(handles), whole=bool(devices))
        if self._links is None:
            self._links = self._probe_links({d.uuid: handles[d.uuid] for d in devices if d.uuid in handles})
        return NodeInventory(
            vendor=NVIDIA.name,
            devices=tuple(sorted(devices, key=lambda device: (device.index, device.uuid))),
            links=self._links if len(devices) > 1 else None,
        )

    @property
    def cuts(self) -> bool:
        """Whether this node gives pods MIG instances, made as they are needed."""
        return self._overrides.operating_mode == MIG

    def to_cut(self) -> tuple[DeviceUuid, ...]:
        """Cards that belong into MIG mode and are not in it. Raises ProbeError."""
        return tuple(
            uuid
            for index, (uuid, handle) in enumerate(self._handles().items())
            if self.cuts
            and not self._hidden(uuid, index)
            and not self._in_mig_mode(handle)
            and _optional(partial(pynvml.nvmlDeviceGetMigMode, handle), None) is not None
            and self._is_allowlisted(handle)
        )

    def _is_allowlisted(self, handle: Any) -> bool:
        name = _optional(partial(pynvml.nvmlDeviceGetName, handle), "")
        total = _optional(lambda: int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) // MIB, 0)
        return allowlisted(self._config.mig_profile_allowlist, _text(name), total) is not None

    def mixed(self) -> Mapping[str, tuple[Device, ...]]:
        """Where the node's MIG strategy is `mixed`, its instances by profile, each for one container. Raises
        ProbeError."""
        if self._overrides.mig_strategy != MIXED or self.cuts:
            return {}
        found: dict[str, list[Device]] = {}
        for device in self._static_devices(slots=1):
            found.setdefault(device.mig_profiles[0].name, []).append(replace(device, mig_profiles=()))
        return {profile: tuple(devices) for profile, devices in found.items()}

    def _single_devices(self, first: int, *, whole: bool) -> list[Device]:
        """The instances as devices to share, where every card has the same ones; `first` is the first one's index."""
        devices = self._static_devices(slots=self._config.device_split_count, first=first)
        profiles = {device.mig_profiles[0].name for device in devices}
        if len(profiles) + whole > 1:
            why = f"the MIG strategy is {SINGLE} and the node has {', '.join(sorted(profiles))}"
            for uuid, handle in self._handles().items():
                if self._in_mig_mode(handle):
                    self._leave_out(uuid, f"{why}{' and whole cards' if whole else ''}")
            return []
        return [
            replace(
                device,
                memory_mib=int(device.memory_mib * self._config.device_memory_scaling),
                cores=int(FULL_CORES * self._config.device_core_scaling),
                mig_profiles=(),
            )
            for device in devices
        ]

    def _static_devices(self, *, slots: int, first: int = 0) -> list[Device]:
        """Every instance that programs can run on, as a device with its profile."""
        found: list[Device] = []
        health = self.health()
        for index, (uuid, handle) in enumerate(self._handles().items()):
            if self._hidden(uuid, index) or not self._in_mig_mode(handle):
                continue
            name = _text(_asked(partial(pynvml.nvmlDeviceGetName, handle)))
            try:
                there = mig.static_devices(uuid)
            except mig.MigError as error:
                self._leave_out(uuid, str(error))
                continue
            for static in there:
                found.append(
                    Device(
                        uuid=static.uuid,
                        index=first + len(found),
                        slots=slots,
                        memory_mib=static.profile.memory_mib,
                        cores=FULL_CORES,
                        model=f"{name if name.startswith(PREFIX) else f'{PREFIX}-{name}'} MIG {static.profile.name}",
                        numa=self._numa(handle),
                        healthy=uuid not in health,
                        mig_profiles=(static.profile,),
                    )
                )
        return found

    def health(self) -> Mapping[DeviceUuid, str]:
        """A card is unhealthy after an Xid error that no program causes, until this process starts again, and while
        it does not answer."""
        lost = {}
        for uuid, handle in self._handles().items():
            try:
                pynvml.nvmlDeviceGetMemoryInfo(handle)
            except pynvml.NVMLError_NotSupported:
                continue  # cards that share the machine's memory
            except pynvml.NVMLError as error:
                lost[uuid] = str(error)
        return {**lost, **self._broken}

    def wait(self, timeout_s: float) -> bool:
        """Wait for a health event; where NVML reports none, for the time to pass."""
        if self._events is None:
            time.sleep(timeout_s)
            return False
        try:
            event = pynvml.nvmlEventSetWait_v2(self._events, int(timeout_s * 1000))
        except pynvml.NVMLError_Timeout:
            return False
        except pynvml.NVMLError as error:
            log.warning("NVML no longer reports events: %s", error)
            self._events = None
            return True
        if event.eventType != pynvml.nvmlEventTypeXidCriticalError or event.eventData in XID_OF_PROGRAMS:
            return False
        for uuid in self._touched_by(event):
            self._broken[uuid] = f"Xid {event.eventData}"
            log.error("device %s is unhealthy: Xid %d", uuid, event.eventData)
        return True

    def usage(self) -> Mapping[DeviceUuid, tuple[int, int, int]]:
        """By card: bytes used, percent of time busy, percent of time its memory was busy (-1: cannot be told)."""
        found = {}
        for uuid, handle in self._handles().items():
            memory = _optional(partial(_used_bytes, handle), -1)
            rates = _optional(partial(pynvml.nvmlDeviceGetUtilizationRates, handle), None)
            found[uuid] = (memory, -1 if rates is None else int(rates.gpu), -1 if rates is None else int(rates.memory))
        return found

    def shares(self) -> Mapping[DeviceUuid, Mapping[int, int]]:
        """By card: percent of the time since the last call (a second before the first, three at most) that each process
        had, by pid; idle processes may be absent.

        A card whose driver does not tell is absent.
        """
        now_us = int(time.time() * 1e6)
        since_us, self._shares_us = max(self._shares_us or now_us - SECOND_US, now_us - 3 * SECOND_US), now_us
        found = {}
        for uuid, handle in self._handles().items():
            try:
                samples = pynvml.nvmlDeviceGetProcessUtilization(handle, since_us)
            except pynvml.NVMLError_NotFound:
                samples = []  # nobody did anything
            except pynvml.NVMLError:
                continue
            told: dict[int, list[int]] = {}
            for sample in samples:
                told.setdefault(int(sample.pid), []).append(min(100, int(sample.smUtil)))
            found[uuid] = {pid: round(sum(percents) / len(percents)) for pid, percents in told.items()}
        return found

    def process_bytes(self) -> Mapping[DeviceUuid, Mapping[int, int]]:
        """By card: bytes that each process holds, by pid, contexts and code included.

        Processes and cards of which the driver does not tell are absent. One that computes and draws is in two lists,
        each time with all that it holds.
        """
        found: dict[DeviceUuid, dict[int, int]] = {}
        for uuid, handle in self._handles().items():
            held: dict[int, int] = {}
            for listing in PROCESS_LISTS:
                processes: list[Any] = _optional(partial(getattr(pynvml, listing), handle), [])
                for process in processes:
                    pid, told = int(process.pid), process.usedGpuMemory
                    if told:
                        held[pid] = max(held.get(pid, 0), int(told))
            found[uuid] = held
        return found

    def _handles(self) -> dict[DeviceUuid, Any]:
        """Handles by UUID in the driver's order."""
        found: dict[DeviceUuid, Any] = {}
        for index in range(_asked(pynvml.nvmlDeviceGetCount)):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                found[DeviceUuid(_text(pynvml.nvmlDeviceGetUUID(handle)))] = handle
            except pynvml.NVMLError as error:
                log.warning("device %d does not answer: %s", index, error)
        return found

    def _hidden(self, uuid: DeviceUuid, index: int) -> bool:
        return uuid in self._overrides.hidden_uuids or index in self._overrides.hidden_indices

    def _device(self, uuid: DeviceUuid, index: int, handle: Any, health: Mapping[DeviceUuid, str]) -> Device | None:
        total = self._memory_mib(uuid, handle)
        if total is None:
            return None
        name = _text(_asked(lambda: pynvml.nvmlDeviceGetName(handle)))
        if self.cuts:
            return self._cut_device(uuid, index, handle, total, name, healthy=uuid not in health)
        if self._in_mig_mode(handle):
            if self._overrides.mig_strategy not in (SINGLE, MIXED):
                self._leave_out(uuid, "it is in MIG mode, which this node's operating mode does not use")
            return None
        return Device(
            uuid=uuid,
            index=_optional(lambda: int(pynvml.nvmlDeviceGetIndex(handle)), index),
            slots=self._config.device_split_count,
            memory_mib=int(total * self._config.device_memory_scaling),
            cores=int(FULL_CORES * self._config.device_core_scaling),
            model=name if name.startswith(PREFIX) else f"{PREFIX}-{name}",
            numa=self._numa(handle),
            mode=self._overrides.operating_mode or HAMI_CORE,
            healthy=uuid not in health,
        )

    def _cut_device(
        self, uuid: DeviceUuid, index: int, handle: Any, total: int, name: str, *, healthy: bool
    ) -> Device | None:
        """A card of which pods get MIG instances; memory and compute are not scaled, the hardware holds them."""
        if not self._in_mig_mode(handle):
            self._leave_out(uuid, "it is not in MIG mode")
            return None
        profiles = self._mig_profiles(uuid, name, total)
        if not profiles:
            return None
        return Device(
            uuid=uuid,
            index=_optional(lambda: int(pynvml.nvmlDeviceGetIndex(handle)), index),
            slots=max(most for _, most in profiles),
            memory_mib=total,
            cores=FULL_CORES,
            model=name if name.startswith(PREFIX) else f"{PREFIX}-{name}",
            numa=self._numa(handle),
            mode=MIG,
            healthy=healthy,
            mig_profiles=tuple(profile for profile, _ in profiles),
        )

    def _mig_profiles(self, uuid: DeviceUuid, name: str, total: int) -> list[tuple[MigProfile, int]]:
        """What the card offers of what the configuration allows; empty, with a reason left, where that is nothing."""
        names = allowlisted(self._config.mig_profile_allowlist, name, total)
        if names is None:
            self._leave_out(uuid, f"no entry of migProfileAllowlist is for {name}")
            return []
        try:
            offered = mig.profiles(uuid)
            allowed = select_profiles([profile for profile, _ in offered], names, "migProfileAllowlist")
        except (mig.MigError, WireError) as error:
            self._leave_out(uuid, str(error))
            return []
        if not allowed:
            self._leave_out(uuid, f"it offers none of {', '.join(names)}")
        return [(profile, most) for profile, most in offered if profile in allowed]

    def _leave_out(self, uuid: DeviceUuid, why: str) -> None:
        if self._told.get(uuid) != why:
            log.warning("device %s is left out: %s", uuid, why)
        self.left_out = {**self.left_out, uuid: why}

    def _memory_mib(self, uuid: DeviceUuid, handle: Any) -> int | None:
        try:
            return int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) // MIB
        except pynvml.NVMLError_NotSupported:
            if self._config.preconfigured_device_memory_mib > 0:
                return self._config.preconfigured_device_memory_mib
            log.warning("device %s is left out: its driver does not tell its memory and none is configured", uuid)
        except pynvml.NVMLError as error:
            log.warning("device %s is left out: %s", uuid, error)
        return None

    def _in_mig_mode(self, handle: Any) -> bool:
        mode = _optional(lambda: pynvml.nvmlDeviceGetMigMode(handle)[0], pynvml.NVML_DEVICE_MIG_DISABLE)
        return bool(mode == pynvml.NVML_DEVICE_MIG_ENABLE)

    def _numa(self, handle: Any) -> int:
        """The card's NUMA node; 0 where nobody knows."""
        if self._sysfs is not None:
            bus = _bus_id(_asked(lambda: pynvml.nvmlDeviceGetPciInfo(handle)))
            try:
                return max(0, int((self._sysfs / "bus/pci/devices" / bus / "numa_node").read_text()))
            except (OSError, ValueError):
                return 0
        return _optional(lambda: max(0, int(pynvml.nvmlDeviceGetNumaNodeId(handle))), 0)

    def _probe_links(self, handles: Mapping[DeviceUuid, Any]) -> Links:
        by_bus = {_bus_id(_asked(partial(pynvml.nvmlDeviceGetPciInfo, h))): uuid for uuid, h in handles.items()}
        links, self.asymmetric = score_links([_neighborhood(uuid, handles, by_bus) for uuid in handles])
        for a, b in self.asymmetric:
            log.warning("links between %s and %s look different from each side; the pair scores 0", a, b)
        return links

    def _register_events(self) -> Any:
        events = pynvml.nvmlEventSetCreate()
        for uuid, handle in self._handles().items():
            try:
                pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, events)
            except pynvml.NVMLError as error:
                log.warning("device %s reports no health events: %s", uuid, error)
        return events

    def _touched_by(self, event: Any) -> list[DeviceUuid]:
        """The card an event names, or every card when it names none that we know."""
        named = _optional(lambda: DeviceUuid(_text(pynvml.nvmlDeviceGetUUID(event.device))), None)
        known = self._handles()
        return [named] if named in known else list(known)


def _neighborhood(
    uuid: DeviceUuid, handles: Mapping[DeviceUuid, Any], by_bus: Mapping[str, DeviceUuid]
) -> Neighborhood:
    handle = handles[uuid]
    ancestors = {}
    for other, there in handles.items():
        if other != uuid:
            level = _optional(partial(pynvml.nvmlDeviceGetTopologyCommonAncestor, handle, there), None)
            if level is not None:
                ancestors[other] = int(level)
    direct: dict[DeviceUuid, int] = {}
    to_switch = 0
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        if not _optional(partial(pynvml.nvmlDeviceGetNvLinkState, handle, link), False):
            continue
        remote = _optional(partial(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, link), None)
        bus = "" if remote is None else _bus_id(remote)
        if bus in by_bus:
            direct[by_bus[bus]] = direct.get(by_bus[bus], 0) + 1
        elif _remote_is_switch(handle, link):
            to_switch += 1
    return Neighborhood(uuid=uuid, ancestors=ancestors, direct=direct, to_switch=to_switch)


def _remote_is_switch(handle: Any, link: int) -> bool:
    kind = _optional(lambda: int(pynvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle, link)), -1)
    return bool(kind == pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH)


def _used_bytes(handle: Any) -> int:
    return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)


def _bus_id(pci: Any) -> str:
    """The address as sysfs spells it: lower case, a domain of four digits (NVML writes eight)."""
    return _text(pci.busId).lower().removeprefix("0000")


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _asked(call: Callable[[], T]) -> T:
    """The answer to a question that every working driver answers."""
    try:
        return call()
    except pynvml.NVMLError as error:
        raise ProbeError(f"NVML: {error}") from error


def _optional(call: Callable[[], T], otherwise: T) -> T:
    """The answer, or `otherwise` where this driver or card has none."""
    try:
        return call()
    except pynvml.NVMLError:
        return otherwise
