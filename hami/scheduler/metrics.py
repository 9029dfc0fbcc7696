"""What Prometheus reads: the cluster's allocation, worked out from the ledger when asked.

A thousand nodes of eight devices are ninety thousand series. They are written by hand, in pieces between which the
event loop serves others, because one decision must not wait for a whole scrape.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

import anyio.lowlevel
from prometheus_client import generate_latest

from hami import __version__
from hami.alloc.ledger import DeviceUsage
from hami.cluster.picture import Picture
from hami.model.names import NodeName
from hami.scheduler.counters import Counters
from hami.scheduler.family_metrics import FamilyMetrics, escaped, head, line

MIB: Final = 2**20
PIECE: Final = 20
"""Nodes, or a few hundred lines, between two breaths."""
CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class _DeviceFamily:
    """One metric with a series a device. `labels` are chosen from the ones `_device_labels` makes."""

    name: str
    legacy: str
    legacy_labels: tuple[str, ...]
    help: str
    labels: tuple[str, ...]
    value: Callable[[DeviceUsage], float | None]


_BASE: Final = ("node", "device_uuid", "device_index", "device_type")
_OLD: Final = ("nodeid", "deviceuuid", "deviceidx", "devicetype")

_DEVICE_FAMILIES: Final = (
    _DeviceFamily(
        name="hami_gpu_memory_limit_bytes",
        legacy="GPUDeviceMemoryLimit",
        legacy_labels=_OLD,
        help="Device memory that can be given away",
        labels=_BASE,
        value=lambda u: u.device.memory_mib * MIB,
    ),
    _DeviceFamily(
        name="hami_gpu_core_limit_ratio",
        legacy="GPUDeviceCoreLimit",
        legacy_labels=_OLD,
        help="Device compute that can be given away, in percent or in the unit that hami_device_units_info tells",
        labels=_BASE,
        value=lambda u: u.device.cores,
    ),
    _DeviceFamily(
        name="hami_gpu_memory_allocated_bytes",
        legacy="GPUDeviceMemoryAllocated",
        legacy_labels=("nodeid", "deviceuuid", "deviceidx", "devicecores", "devicetype"),
        help="Device memory promised to pods",
        labels=("node", "device_uuid", "device_index", "device_cores", "device_type"),
        value=lambda u: u.used_memory_mib * MIB,
    ),
    _DeviceFamily(
        name="hami_gpu_shared_count",
        legacy="GPUDeviceSharedNum",
        legacy_labels=_OLD,
        help="Containers that share the device",
        labels=_BASE,
        value=lambda u: u.used_slots,
    ),
    _DeviceFamily(
        name="hami_gpu_core_allocated_ratio",
        legacy="GPUDeviceCoreAllocated",
        legacy_labels=_OLD,
        help="Device compute promised to pods, in percent or in the unit that hami_device_units_info tells",
        labels=_BASE,
        value=lambda u: u.used_cores,
    ),
    _DeviceFamily(
        name="hami_node_gpu_overview",
        legacy="nodeGPUOverview",
        legacy_labels=("nodeid", "deviceuuid", "deviceidx", "devicecores", "devicememorylimit", "devicetype"),
        help="Device memory promised to pods, with the device's size as labels",
        labels=("node", "device_uuid", "device_index", "device_cores", "device_memory_limit", "device_type"),
        value=lambda u: u.used_memory_mib * MIB,
    ),
    _DeviceFamily(
        name="hami_node_gpu_memory_allocated_ratio",
        legacy="nodeGPUMemoryPercentage",
        legacy_labels=("nodeid", "deviceuuid", "deviceidx"),
        help="Share of the device's memory that is promised, 0 to 1",
        labels=_BASE,
        value=lambda u: u.used_memory_mib / u.device.memory_mib if u.device.memory_mib else None,
    ),
)


class Metrics:
    """Answers `/metrics`."""

    def __init__(
        self, picture: Picture, counters: Counters, *, legacy: bool, refresh: Callable[[], None] = lambda: None
    ) -> None:
        """`refresh` brings the gauges in `counters` up to date before they are read."""
        self._picture = picture
        self._counters = counters
        self._legacy = legacy
        self._refresh = refresh

    async def text(self, breathe: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint) -> bytes:
        """The whole exposition."""
        self._refresh()
        parts = [generate_latest(self._counters.registry).decode(), _build_info()]
        parts += await self._devices(breathe)
        parts += await self._pods(breathe)
        parts += self._quotas()
        parts += await FamilyMetrics(self._picture).text(breathe)
        return "".join(parts).encode()

    async def _devices(self, breathe: Callable[[], Awaitable[None]]) -> list[str]:
        lines: list[list[str]] = [[] for _ in _DEVICE_FAMILIES]
        legacy: list[list[str]] = [[] for _ in _DEVICE_FAMILIES]
        # Of the names as they are now: nodes that come or go between two breaths are in the next scrape.
        for position, node in enumerate(list(self._picture.ledger.nodes)):
            for usage in self._picture.ledger.usage(node):
                labels = _device_labels(node, usage)
                for i, family in enumerate(_DEVICE_FAMILIES):
                    value = family.value(usage)
                    if value is None:
                        continue
                    values = [labels[name] for name in family.labels]
                    lines[i].append(line(family.name, family.labels, values, value))
                    if self._legacy:
                        old = values[: len(family.legacy_labels)]
                        legacy[i].append(line(family.legacy, family.legacy_labels, old, value))
            if position % PIECE == PIECE - 1:
                await breathe()
        parts: list[str] = []
        for i, family in enumerate(_DEVICE_FAMILIES):
            parts += [head(family.name, family.help), *lines[i]]
            if self._legacy:
                parts += [head(family.legacy, family.help), *legacy[i]]
        return parts

    async def _pods(self, breathe: Callable[[], Awaitable[None]]) -> list[str]:
        """One series a pod and device; `container_index` is 0, as HAMi 2.10 writes it."""
        new, old = (
            ("namespace", "node", "pod", "container_index", "device_uuid"),
            (
                "podnamespace",
                "nodename",
                "podname",
                "containeridx",
                "deviceuuid",
            ),
        )
        memory: list[str] = []
        cores: list[str] = []
        old_memory: list[str] = []
        old_cores: list[str] = []
        for position, pod in enumerate(list(self._picture.ledger.pods.values())):
            for (_, uuid), held in self._picture.ledger.held_by(pod.uid).items():
                values = [escaped(v) for v in (pod.key.namespace, pod.node, pod.key.name, "0", uuid)]
                memory.append(line("hami_vgpu_memory_allocated_bytes", new, values, held.memory_mib * MIB))
                cores.append(line("hami_vgpu_core_allocated_ratio", new, values, held.cores))
                if self._legacy:
                    old_memory.append(line("vGPUMemoryAllocated", old, values, held.memory_mib * MIB))
                    old_cores.append(line("vGPUCoreAllocated", old, values, held.cores))
            if position % (10 * PIECE) == 10 * PIECE - 1:
                await breathe()
        parts = [head("hami_vgpu_memory_allocated_bytes", "Memory promised to a pod on a device"), *memory]
        parts += [head("hami_vgpu_core_allocated_ratio", "Compute promised to a pod on a device"), *cores]
        if self._legacy:
            parts += [head("vGPUMemoryAllocated", "Memory promised to a pod on a device"), *old_memory]
            parts += [head("vGPUCoreAllocated", "Compute promised to a pod on a device"), *old_cores]
        return parts

    def _quotas(self) -> list[str]:
        used: list[str] = []
        limits: list[str] = []
        old: list[str] = []
        for namespace, resource, amount, limit in self._quota_rows():
            values = [escaped(namespace), escaped(resource), str(limit or 0)]
            used.append(line("hami_resource_quota_used", ("namespace", "quota_name", "limit"), values, amount))
            if limit is not None:
                limits.append(line("hami_resource_quota_limit", ("namespace", "quota_name"), values[:2], limit))
            if self._legacy:
                old.append(line("QuotaUsed", ("quotanamespace", "quotaName", "limit"), values, amount))
        parts = [head("hami_resource_quota_used", "What a namespace's pods hold of a limited resource"), *used]
        parts += [head("hami_resource_quota_limit", "The limit of a namespace"), *limits]
        if self._legacy:
            parts += [head("QuotaUsed", "What a namespace's pods hold of a limited resource"), *old]
        return parts

    def _quota_rows(self) -> Iterator[tuple[str, str, int, int | None]]:
        namespaces = {pod.key.namespace for pod in self._picture.ledger.pods.values()}
        for namespace in sorted(namespaces | self._picture.quota_namespaces):
            for vendor in self._picture.registry:
                limits = self._picture.quotas.limits(namespace, vendor.name)
                memory, cores = self._picture.ledger.namespace_usage(namespace, vendor.name)
                for resource, amount, limit in (
                    (vendor.resources.memory, memory, limits.memory_mib),
                    (vendor.resources.cores, cores, limits.cores),
                ):
                    if resource and (amount or limit is not None):
                        yield namespace, resource, amount, limit


def _device_labels(node: NodeName, usage: DeviceUsage) -> dict[str, str]:
    device = usage.device
    return {
        "node": escaped(node),
        "device_uuid": escaped(device.uuid),
        "device_index": str(device.index),
        "device_type": escaped(device.model),
        "device_cores": str(device.cores),
        "device_memory_limit": str(device.memory_mib),
    }


def _build_info() -> str:
    return f'{head("hami_build_info", "The version that runs")}hami_build_info{{version="{__version__}"}} 1\n'
