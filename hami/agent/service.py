"""The agent as one task group: probe, announce, serve the kubelet, settle, monitor; leaving the block is the shutdown.

Parts meet only here. A failure of the outside (API server, kubelet, driver) is waited out by the part it concerns; a
bug ends the process, which starts again and takes its grants over from disk.
"""

import logging
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio

from hami.agent import amd, amd_alone, loops, metrics, simulated_plugin
from hami.agent.announce import Announcement, Announcer
from hami.agent.answer import Wording
from hami.agent.assignments import Assignments
from hami.agent.caps import ContainerCaps
from hami.agent.checkpoint import read_checkpoint_file
from hami.agent.grants import Grants
from hami.agent.guard import Guard
from hami.agent.hostpid import Broker
from hami.agent.inherited import AllRegions, Inherited, PodNames
from hami.agent.inquiry import Inquiry
from hami.agent.kubelet import stay_registered
from hami.agent.mig import MigInstances
from hami.agent.monitor import Monitor
from hami.agent.opening import Opening
from hami.agent.plugin import DeviceList, DevicePlugin
from hami.agent.podresources import PodResources
from hami.agent.pods import NodePods
from hami.agent.regions import RegionFiles
from hami.agent.settings import AgentSettings
from hami.agent.sharers import Sharers
from hami.agent.static_mig import StaticPlugins
from hami.agent.writes import PodWriter
from hami.kube.client import Kube
from hami.model.device import NodeInventory, NodeRecord
from hami.model.names import DeviceUuid, PodKey, PodUid
from hami.model.settings import apply_node_overrides
from hami.model.vendor import Vendor
from hami.node.cgroups import Cgroups, is_version_2
from hami.node.driver_cap import FIRST_RELEASE, DriverCap, driver_release
from hami.node.driver_spec import DriverSpecs
from hami.node.grants import Grant, GrantStore
from hami.node.mps import SimulatedMps, mps_paths
from hami.node.mps_daemon import MpsDaemon
from hami.node.probe import ProbeError
from hami.node.probe_nvidia import NvidiaProbe
from hami.vendors import registry
from hami.vendors.nvidia import NVIDIA

log = logging.getLogger(__name__)

ENDPOINT: Final = "hami-nvidia.sock"
INSTANCES: Final = "mig-instances.json"
"""File of the node's own MIG instances."""
LINKS_EVERY_S: Final = 3600.0
ASYMMETRIC: Final = "AsymmetricGPUP2PLink"
"""HAMi's reason word."""
LEFT_OUT: Final = "DeviceLeftOut"
"""Reason word of the event that a card's MIG mode keeps it from being registered."""
RECHECK_S: Final = 1.0
ETC_CDI: Final = Path("/etc/cdi")
"""Where administrators put device descriptions; run-time ones are beside ours."""


_Task = tuple[str, Callable[[], Coroutine[Any, Any, None]]]
"""A named task of the service."""


async def run(settings: AgentSettings) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError for an unusable kubeconfig, ProbeError without a driver."""
    # Everything that may be unusable is entered before the task group, so that its error comes out as it is.
    async with AsyncExitStack() as stack:
        try:
            probe = stack.enter_context(NvidiaProbe(settings.config.nvidia, settings.overrides, sysfs=_sysfs(settings)))
        except ProbeError as error:
            work = await amd_alone.work(settings, error, stack)
        else:
            work = await _work(settings, probe, stack)
        async with anyio.create_task_group() as tasks:
            for name, task in work:
                tasks.start_soon(task, name=name)
            await _signal()
            tasks.cancel_scope.cancel()


async def _work(settings: AgentSettings, probe: NvidiaProbe, stack: AsyncExitStack) -> list[_Task]:
    """The tasks of the agent's role; what they need is entered into `stack`."""
    store = GrantStore(settings.tree, settings.cdi_dir if settings.strategy == "cdi" else None)
    regions = stack.enter_context(RegionFiles(store))
    work: list[_Task] = []
    caps = _caps(settings)
    held = caps.used if caps is not None else None
    if settings.role == "monitor":
        left = _inherited(settings, PodNames(settings.tree).read, stack)
        on_disk = _GrantsOnDisk(store)
        monitor = _monitor(settings, probe, regions, left, on_disk, held)
    else:
        kube = await stack.enter_async_context(Kube.connect(settings.kubeconfig))
        podlist = PodResources(settings.pod_resources_socket, _vendor(settings).resources.count)
        stack.callback(podlist.close)
        pods = NodePods(registry(settings.config), _vendor(settings))
        left = _inherited(settings, partial(_name, pods), stack)
        grants, work = _plugin(settings, probe, store, regions, kube, podlist, caps, pods, left)
        monitor = _monitor(settings, probe, regions, left, lambda: grants.grants, held)
    if settings.role != "plugin":
        work.append(("monitor", monitor.run))
        if settings.metrics_bind is not None:
            serving = metrics.serve(
                monitor, settings.metrics_bind, simulated=settings.simulated, legacy=settings.legacy_metrics
            )
            await stack.enter_async_context(serving)
    return work


def _plugin(
    settings: AgentSettings,
    probe: NvidiaProbe,
    store: GrantStore,
    regions: RegionFiles,
    kube: Kube,
    podlist: PodResources,
    caps: ContainerCaps | None,
    pods: NodePods,
    left: Inherited,
) -> tuple[Grants, list[_Task]]:
    """What serves the kubelet and the API server: the grants, and the tasks that keep them true."""
    known, vendor = registry(settings.config), _vendor(settings)
    resource = vendor.resources.count
    nvidia = apply_node_overrides(settings.config.nvidia, settings.overrides)
    writer = PodWriter(kube, settings.node, time.time)
    announcer = Announcer(kube, settings.node, time.time)
    devices = DeviceList()
    inventory: list[NodeInventory] = []
    links_told = _LinksTold()
    left_out_told: dict[DeviceUuid, str] = {}
    pods_listed = anyio.Event()

    def node() -> NodeRecord | None:
        if not inventory:
            return None
        own = frozenset({vendor.name})
        return NodeRecord(name=settings.node, inventories=(inventory[0],), cordoned=announcer.cordoned, own_agent=own)

    def found(now: NodeInventory) -> None:
        inventory[:] = [now]
        links_told.tell(probe.asymmetric, writer)
        for uuid, why in probe.left_out.items():
            if left_out_told.get(uuid) != why:
                writer.tell_node(LEFT_OUT, f"device {uuid} is left out: {why}")
        left_out_told.clear()
        left_out_told.update(probe.left_out)
        devices.set(now.devices)
        announcer.say(
            Announcement(inventory=now, vendor=vendor, devices=settings.strategy, form=settings.inventory_format)
        )

    folder = settings.tree.vgpu / "simulated"
    sharers = _sharers(settings)
    broker = Broker(settings.host_pid) if settings.host_pid is not None else None
    wording = Wording(
        store=store,
        vendor=vendor,
        nvidia=nvidia,
        library=settings.library,
        strategy=settings.strategy,
        additions=settings.additions,
        driver=None if settings.simulated else DriverSpecs((ETC_CDI, settings.cdi_dir)),
        caps=caps,
        host_pid=broker.served if broker is not None else lambda: None,
        mps=sharers.ready if sharers is not None else lambda: None,
        places=sharers.mps if sharers is not None else None,
    )
    mig = MigInstances(settings.tree.vgpu / INSTANCES)
    mig.load()
    grants = Grants(
        Opening(wording, pods, regions),
        pods,
        Inquiry(pods, podlist, lambda: read_checkpoint_file(settings.device_plugin_dir, resource), writer),
        Assignments(pods, vendor, known, settings.node, writer, time.time, announcer.served),
        regions,
        node,
        time.time,
        mig,
    )
    grants.load()
    plugin = DevicePlugin(grants, devices, numa=nvidia.enable_numa_topology, observe=metrics.note_answer)
    static = StaticPlugins(
        settings.device_plugin_dir,
        prefix=resource.partition("/")[0],
        visible=vendor.env.visible,
        additions=settings.additions,
        numa=nvidia.enable_numa_topology,
    )
    serve = partial(
        stay_registered,
        plugin,
        settings.device_plugin_dir,
        endpoint=ENDPOINT,
        resource=resource,
        registered=metrics.note_registered,
    )
    return grants, [
        ("pods", partial(loops.follow_pods, kube, settings.node, pods, grants, pods_listed)),
        ("node", announcer.follow),
        ("announce", announcer.run),
        ("writes", writer.run),
        ("probe", partial(loops.probe, probe, partial(loops.look, probe, mig, grants), found, static)),
        ("settle", partial(loops.settle, settings.device_plugin_dir, grants)),
        ("sweep", partial(loops.sweep, grants, pods_listed, pods, left)),
        ("guard", Guard(grants, regions, caps, writer.tell).run),
        ("kubelet", serve),
        ("static", static.run),
        *([("host pids", broker.run)] if broker is not None else []),
        *([("MPS", sharers.run)] if sharers is not None else []),
        *simulated_plugin.tasks(
            settings.cards, settings.config, kube, announcer, podlist, settings.device_plugin_dir, folder
        ),
        *amd.tasks(settings, amd.maker(settings), kube, announcer, podlist, writer),
    ]


class _LinksTold:
    """Tells about links that contradict themselves, at most once an hour."""

    def __init__(self) -> None:
        self._told_s = float("-inf")

    def tell(self, pairs: Sequence[tuple[DeviceUuid, DeviceUuid]], writer: PodWriter) -> None:
        if pairs and time.monotonic() - self._told_s >= LINKS_EVERY_S:
            self._told_s = time.monotonic()
            shown = ", ".join(f"{a} and {b}" for a, b in pairs)
            writer.tell_node(ASYMMETRIC, f"links look different from each side and score 0 between {shown}")


class _GrantsOnDisk:
    """The grants as another process keeps them, read at most once a second."""

    def __init__(self, store: GrantStore) -> None:
        self._store = store
        self._read_s = float("-inf")
        self._grants: tuple[Grant, ...] = ()

    def __call__(self) -> tuple[Grant, ...]:
        if time.monotonic() - self._read_s >= RECHECK_S:
            self._read_s = time.monotonic()
            self._grants = tuple(self._store.load().values())
        return self._grants


async def _signal() -> None:
    """Until the process is asked to stop."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for received in signals:
            log.info("%s: stopping", received.name)
            return


def _name(pods: NodePods, uid: PodUid) -> PodKey | None:
    pod = pods.by_kubelet_uid(uid)
    return pod.key if pod is not None else None


def _inherited(settings: AgentSettings, key: Callable[[PodUid], PodKey | None], stack: AsyncExitStack) -> Inherited:
    left = Inherited(settings.tree, key)
    stack.callback(left.close)
    return left


def _monitor(
    settings: AgentSettings,
    probe: NvidiaProbe,
    regions: RegionFiles,
    left: Inherited,
    grants: Callable[[], Sequence[Grant]],
    held: Callable[[Grant], Mapping[DeviceUuid, int]] | None,
) -> Monitor:
    """The looks at our own containers and at those that HAMi started here."""
    return Monitor(AllRegions(regions, left), lambda: (*grants(), *left.grants()), probe, settings.node, held=held)


def _sharers(settings: AgentSettings) -> Sharers | None:
    """Of a node whose sharers run side by side: our word for it, or HAMi's."""
    if "mps" not in (settings.overrides.sharing, settings.overrides.operating_mode):
        return None
    if settings.simulated:
        return Sharers(SimulatedMps(mps_paths(settings.tree, None), named=driver_release() >= FIRST_RELEASE))
    return Sharers(MpsDaemon(mps_paths(settings.tree, settings.mps_shm)))


def _caps(settings: AgentSettings) -> ContainerCaps | None:
    if settings.cgroups is None:
        return None
    nvidia = apply_node_overrides(settings.config.nvidia, settings.overrides)
    played = settings.simulated and not is_version_2(settings.cgroups)
    return ContainerCaps(
        driver=DriverCap(settings.cgroups, played=played),
        groups=Cgroups(settings.cgroups),
        scaled=nvidia.device_memory_scaling > 1,
    )


def _vendor(settings: AgentSettings) -> Vendor:
    return registry(settings.config)[NVIDIA.name]


def _sysfs(settings: AgentSettings) -> Path | None:
    return None if settings.simulated else Path("/sys")
