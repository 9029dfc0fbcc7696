"""Series of our own about every family's devices, in base units: bytes, and parts of one.

HAMi's series keep HAMi's figures, which count a family's own units (percent, cores of 16, compute units, masks of
cores); dashboards rely on them. These say the same of all families alike, so that they can be added and compared.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from hami.alloc.ledger import DeviceUsage
from hami.cluster.picture import Picture
from hami.model import units
from hami.model.names import NodeName
from hami.model.vendor import Vendor

PIECE: Final = 20
"""Nodes, with their pods, between two breaths."""
DEVICE: Final = ("family", "node", "device_uuid", "device_index", "device_type")
POD: Final = ("family", "namespace", "node", "pod", "device_uuid")
QUOTA: Final = ("family", "namespace")

HELP: Final = {
    "hami_device_memory_bytes": "Device memory that can be given away; none for families that tell no amount",
    "hami_device_memory_allocated_bytes": "Device memory promised to pods",
    "hami_device_compute_allocated_ratio": "Part of the device's compute that is promised to pods, 1 = all of it",
    "hami_device_budget": "What a device has of a unit of its family beside memory and cores",
    "hami_device_budget_allocated": "What of it is promised to pods",
    "hami_pod_compute_allocated_ratio": "Part of the device's compute that is promised to the pod, 1 = all of it",
    "hami_quota_memory_used_bytes": "Device memory that a namespace's pods hold",
    "hami_quota_memory_limit_bytes": "Device memory that they may hold at most",
    "hami_device_units_info": "MiB in the unit in which pods ask for a family's memory, and what its compute counts",
}
"""Every series and what it says, in the order in which they are written."""


class FamilyMetrics:
    """One scrape."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._lines: dict[str, list[str]] = {name: [] for name in HELP}

    async def text(self, breathe: Callable[[], Awaitable[None]]) -> list[str]:
        """The expositions; `breathe` lets others run between pieces."""
        ledger = self._picture.ledger
        for position, node in enumerate(list(ledger.nodes)):
            usages = ledger.usage(node)
            for usage in usages:
                self._device(node, usage)
            self._pods(node, {(usage.vendor, usage.device.uuid): usage for usage in usages})
            if position % PIECE == PIECE - 1:
                await breathe()
        for vendor in self._picture.registry:
            self._family(vendor)
        return [part for name, lines in self._lines.items() for part in (head(name, HELP[name]), *lines)]

    def _add(self, name: str, labels: tuple[str, ...], values: list[str], value: float | None) -> None:
        if value is not None:
            self._lines[name].append(line(name, labels, values, value))

    def _device(self, node: NodeName, usage: DeviceUsage) -> None:
        vendor, device = self._picture.registry[usage.vendor], usage.device
        values = [*map(escaped, (usage.vendor, node, device.uuid)), str(device.index), escaped(device.model)]
        if device.memory_mib:
            there, used = (units.memory_bytes(vendor, mib) for mib in (device.memory_mib, usage.used_memory_mib))
            self._add("hami_device_memory_bytes", DEVICE, values, there)
            self._add("hami_device_memory_allocated_bytes", DEVICE, values, used)
        ratio = units.compute_ratio(device, usage.used_cores, usage.used_parts)
        self._add("hami_device_compute_allocated_ratio", DEVICE, values, ratio)
        for unit, budget, taken in zip(vendor.terms.parts, device.parts, usage.used_parts, strict=True):
            if unit and units.counted(budget):
                self._add("hami_device_budget", (*DEVICE, "unit"), [*values, unit], budget)
                self._add("hami_device_budget_allocated", (*DEVICE, "unit"), [*values, unit], taken)

    def _pods(self, node: NodeName, devices: dict[tuple[str, str], DeviceUsage]) -> None:
        for pod in self._picture.ledger.pods_on(node):
            for (vendor, uuid), held in self._picture.ledger.held_by(pod.uid).items():
                usage = devices.get((vendor, uuid))
                if usage is not None:
                    values = [escaped(text) for text in (vendor, pod.key.namespace, node, pod.key.name, uuid)]
                    ratio = units.compute_ratio(usage.device, held.cores, held.parts)
                    self._add("hami_pod_compute_allocated_ratio", POD, values, ratio)

    def _family(self, vendor: Vendor) -> None:
        name = escaped(vendor.name)
        for namespace in sorted(self._picture.quota_namespaces):
            used, _ = self._picture.ledger.namespace_usage(namespace, vendor.name)
            limit = self._picture.quotas.limits(namespace, vendor.name).memory_mib
            if vendor.resources.memory and limit is not None:
                values = [name, escaped(namespace)]
                self._add("hami_quota_memory_used_bytes", QUOTA, values, units.memory_bytes(vendor, used))
                self._add("hami_quota_memory_limit_bytes", QUOTA, values, units.memory_bytes(vendor, limit))
        values = [name, str(max(1, vendor.memory_factor)), units.core_unit(vendor)]
        self._add("hami_device_units_info", ("family", "memory_unit_mib", "core_unit"), values, 1)


def head(name: str, help_: str) -> str:
    """The lines above a gauge's series."""
    return f"# HELP {name} {help_}\n# TYPE {name} gauge\n"


def line(name: str, labels: tuple[str, ...], values: list[str], value: float) -> str:
    """One series; the values are escaped already."""
    pairs = ",".join(f'{label}="{text}"' for label, text in zip(labels, values, strict=True))
    return f'{name}{{{pairs},zone="vGPU"}} {value}\n'


def escaped(text: str) -> str:
    """A label's value as the exposition format wants it."""
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
