"""What the node's port tells Prometheus: names, labels and meanings in one table.

Names, labels and values of the first two groups are HAMi's (all with `zone="vGPU"`), so that its dashboards work.
Ratios called `_ratio` there run from 0 to 100. Series of our own say with `simulated` whether the devices are.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from prometheus_async.aio.web import start_http_server
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hami.agent.instances import ContainerInstance
from hami.agent.monitor import ContainerDevice, HostDevice, Monitor

ZONE: Final = ("zone", "vGPU")
HOST: Final = ("node", "device_index", "device_uuid", "device_type")
CONTAINER: Final = ("namespace", "pod", "container", "vdevice_index", "device_uuid")

_answers = Counter("hami_device_plugin_allocations", "Answers to the kubelet, by result", ["result"])
_allocate = Histogram(
    "hami_device_plugin_allocate_duration_seconds",
    "Time to answer Allocate; the kubelet admits no other pod meanwhile",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1, 5),
)
_registered = Gauge("hami_device_plugin_registered", "1 while the kubelet knows the plug-in")
for _result in ("answered", "granted", "refused"):
    _answers.labels(_result)


def note_answer(result: str, seconds: float) -> None:
    """Note one answer to the kubelet: `answered` (Allocate), `granted` or `refused` (before a start)."""
    _answers.labels(result).inc()
    if result == "answered":
        _allocate.observe(seconds)


def note_registered(known: bool) -> None:
    """Say whether the kubelet knows the plug-in."""
    _registered.set(int(known))


@dataclass(frozen=True, slots=True, kw_only=True)
class _HostRow:
    name: str
    help: str
    value: Callable[[HostDevice], float | None]
    node: bool = True
    """False: without the label `node`, as HAMi has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _ContainerRow:
    name: str
    help: str
    value: Callable[[ContainerDevice], float | None]
    legacy: str = ""
    own: bool = False
    """A name of ours: it has the label `simulated`."""
    counter: bool = False


HOST_ROWS: Final = (
    _HostRow(
        name="hami_host_gpu_memory_used_bytes", help="Memory in use on the device", value=lambda d: d.memory_used_bytes
    ),
    _HostRow(
        name="hami_host_gpu_utilization_ratio",
        help="Time the device was busy, 0 to 100",
        value=lambda d: d.busy_percent,
    ),
    _HostRow(
        name="hami_host_gpu_memory_controller_utilization_ratio",
        help="Time the device's memory was busy, 0 to 100",
        value=lambda d: d.memory_busy_percent,
        node=False,
    ),
)
CONTAINER_ROWS: Final = (
    _ContainerRow(
        name="hami_vgpu_memory_used_bytes",
        help="Memory the container uses of the device",
        value=lambda c: c.used_bytes,
        legacy="vGPU_device_memory_usage_in_bytes",
    ),
    _ContainerRow(
        name="hami_vgpu_memory_limit_bytes",
        help="Memory the container may use of the device",
        value=lambda c: c.limit_bytes,
        legacy="vGPU_device_memory_limit_in_bytes",
    ),
    _ContainerRow(
        name="hami_container_device_memory_bytes", help="As hami_vgpu_memory_used_bytes", value=lambda c: c.used_bytes
    ),
    _ContainerRow(
        name="hami_container_device_utilization_ratio",
        help="Share of the device's time the container got, 0 to 100",
        value=lambda c: c.busy_percent,
        legacy="Device_utilization_desc_of_container",
    ),
    _ContainerRow(
        name="hami_container_last_kernel_elapsed_seconds",
        help="Seconds since the container's last launch; absent before the first",
        value=lambda c: c.idle_s,
        legacy="Device_last_kernel_of_container",
    ),
    _ContainerRow(
        name="hami_vgpu_memory_context_bytes", help="Part of the use: contexts", value=lambda c: c.context_bytes
    ),
    _ContainerRow(
        name="hami_vgpu_memory_module_bytes", help="Part of the use: loaded code", value=lambda c: c.module_bytes
    ),
    _ContainerRow(
        name="hami_vgpu_memory_buffer_bytes", help="Part of the use: allocations", value=lambda c: c.buffer_bytes
    ),
    _ContainerRow(
        name="hami_container_memory_swapped_bytes",
        help="Part of the allocations: stands in host memory because the device was full",
        value=lambda c: c.swapped_bytes,
        own=True,
    ),
    _ContainerRow(
        name="hami_container_compute_allowed_ratio",
        help="Part of the device's time the container may use now, 0 to 1: its limit, and what is lent to it",
        value=lambda c: None if c.allowed_percent is None else c.allowed_percent / 100,
        own=True,
    ),
    _ContainerRow(
        name="hami_container_throttled_seconds",
        help="Time the container's launches were held back by its compute limit",
        value=lambda c: c.throttled_s,
        own=True,
        counter=True,
    ),
    _ContainerRow(
        name="hami_container_oom_rejections",
        help="Allocations refused by the container's memory limit",
        value=lambda c: c.refused,
        own=True,
        counter=True,
    ),
    _ContainerRow(
        name="hami_container_blocked",
        help="1 while the container waits for one of higher priority",
        value=lambda c: float(c.blocked),
        own=True,
    ),
)
LEGACY_HOST: Final = ("nodeid", "deviceidx", "deviceuuid", "devicetype")
LEGACY_CONTAINER: Final = ("podnamespace", "podname", "ctrname", "vdeviceid", "deviceuuid")


class DeviceCollector(Collector):
    """The monitor's last look as metric families."""

    def __init__(self, monitor: Monitor, *, simulated: bool, legacy: bool) -> None:
        self._monitor = monitor
        self._simulated = "true" if simulated else "false"
        self._legacy = legacy

    def collect(self) -> Iterator[Metric]:
        look = self._monitor.look
        for row in HOST_ROWS:
            yield self._host(row, look.hosts)
        for container_row in CONTAINER_ROWS:
            yield self._container(container_row, look.containers)
        yield _instances(look.instances)
        if self._legacy:
            yield from self._legacy_families(look.hosts, look.containers)
            yield _legacy_memory(look.containers)
            yield _legacy_instances(look.instances)
        errors = CounterMetricFamily(
            "hami_monitor_region_errors", "Regions that could not be read", labels=["simulated"]
        )
        errors.add_metric([self._simulated], look.errors)
        yield errors
        age = GaugeMetricFamily("hami_monitor_look_age_seconds", "Age of these figures", labels=["simulated"])
        age.add_metric([self._simulated], max(0.0, time.monotonic() - look.monotonic_s))
        yield age

    def _host(self, row: _HostRow, devices: Sequence[HostDevice]) -> Metric:
        names = HOST if row.node else HOST[1:]
        family = GaugeMetricFamily(row.name, row.help, labels=[*names, ZONE[0]])
        for device in devices:
            value = row.value(device)
            if value is not None:
                labels = [device.node, str(device.index), device.uuid, device.kind]
                family.add_metric([*labels[len(HOST) - len(names) :], ZONE[1]], value)
        return family

    def _container(self, row: _ContainerRow, devices: Sequence[ContainerDevice]) -> Metric:
        names = [*CONTAINER, "simulated" if row.own else ZONE[0]]
        last = self._simulated if row.own else ZONE[1]
        kind = CounterMetricFamily if row.counter else GaugeMetricFamily
        family = kind(row.name, row.help, labels=names)
        for device in devices:
            value = row.value(device)
            if value is not None:
                family.add_metric([*_container_labels(device), last], value)
        return family

    def _legacy_families(self, hosts: Sequence[HostDevice], containers: Sequence[ContainerDevice]) -> Iterator[Metric]:
        for name, value in (
            ("HostGPUMemoryUsage", HOST_ROWS[0].value),
            ("HostCoreUtilization", HOST_ROWS[1].value),
        ):
            family = GaugeMetricFamily(name, "Old name", labels=[*LEGACY_HOST, ZONE[0]])
            for host in hosts:
                amount = value(host)
                if amount is not None:
                    family.add_metric([host.node, str(host.index), host.uuid, host.kind, ZONE[1]], amount)
            yield family
        for row in CONTAINER_ROWS:
            if not row.legacy:
                continue
            family = GaugeMetricFamily(row.legacy, f"Old name of {row.name}", labels=[*LEGACY_CONTAINER, ZONE[0]])
            for device in containers:
                amount = row.value(device)
                if amount is not None:
                    family.add_metric([*_container_labels(device), ZONE[1]], amount)
            yield family


def _instances(found: Sequence[ContainerInstance]) -> Metric:
    labels = [*CONTAINER, "mig_uuid", "profile", "gpu_instance_id", "compute_instance_id", ZONE[0]]
    family = GaugeMetricFamily(
        "hami_mig_device_info", "1 for each MIG instance that a container was given", labels=labels
    )
    for each in found:
        ids = [each.made.uuid, each.profile, str(each.made.gpu_instance), str(each.made.compute_instance)]
        family.add_metric([*_instance_labels(each), *ids, ZONE[1]], 1)
    return family


def _legacy_instances(found: Sequence[ContainerInstance]) -> Metric:
    labels = [*LEGACY_CONTAINER, "instanceid", ZONE[0]]
    family = GaugeMetricFamily("MigInfo", "Old name of hami_mig_device_info", labels=labels)
    for each in found:
        family.add_metric([*_instance_labels(each), str(each.made.gpu_instance), ZONE[1]], 1)
    return family


def _legacy_memory(devices: Sequence[ContainerDevice]) -> Metric:
    """Byte counts as labels, as dashboards of before 2.9 have them; the fourth was never filled in."""
    labels = [*LEGACY_CONTAINER, "context", "module", "data", "offset", ZONE[0]]
    help_ = "Old name of hami_container_device_memory_bytes"
    family = GaugeMetricFamily("Device_memory_desc_of_container", help_, labels=labels)
    for device in devices:
        parts = [str(part) for part in (device.context_bytes, device.module_bytes, device.buffer_bytes, 0)]
        family.add_metric([*_container_labels(device), *parts, ZONE[1]], device.used_bytes)
    return family


def _instance_labels(each: ContainerInstance) -> list[str]:
    return [each.key.namespace, each.key.name, each.container, str(each.index), each.card]


def _container_labels(device: ContainerDevice) -> list[str]:
    return [device.key.namespace, device.key.name, device.container, str(device.index), device.uuid]


@asynccontextmanager
async def serve(monitor: Monitor, address: tuple[str, int], *, simulated: bool, legacy: bool) -> AsyncIterator[None]:
    """Answer `GET /metrics` on `address` while the block lasts. Raises OSError when the port is taken."""
    host, port = address
    devices = DeviceCollector(monitor, simulated=simulated, legacy=legacy)
    REGISTRY.register(devices)
    try:
        server = await start_http_server(addr=host, port=port)
        try:
            yield
        finally:
            await server.close()
    finally:
        REGISTRY.unregister(devices)
