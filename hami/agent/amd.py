"""AMD's GPUs, served by this agent instead of by the vendor's plug-in, as far as nobody has seen it on hardware.

What schedulers and pods see is that plug-in's contract: its annotations, the node's lock, the runtime's variables. The
node does not name AMD among our agent's own families, so schedulers lock the node for its pods, HAMi's as well as ours.
"""

import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio

from hami.agent.announce import Announcement, Announcer
from hami.agent.family import Book, DeviceGone, Family, Maker
from hami.agent.family_answer import Answer, Given, Units, amd_environment
from hami.agent.family_plugin import FamilyPlugin
from hami.agent.pb import deviceplugin_pb2 as pb
from hami.agent.plugin import DeviceList, list_answer
from hami.agent.podresources import PodList
from hami.agent.settings import AgentSettings
from hami.agent.writes import PodWriter
from hami.kube.client import Kube
from hami.model.claim import Share
from hami.model.device import Device, NodeInventory
from hami.model.names import DeviceUuid
from hami.model.settings import apply_node_overrides
from hami.model.vendor import Registry, Vendor
from hami.model.wire import node as wire
from hami.node.probe import ProbeError
from hami.node.probe_amd import KFD, AmdGpu, AmdProbe, NotInstalled, unhealthy
from hami.vendors import registry
from hami.vendors.amd import AMD

log = logging.getLogger(__name__)

ENDPOINT: Final = "hami-amd.sock"
FOLDER: Final = "amd"
"""Beside the grants: what must outlive the agent."""
LOOK_EVERY_S: Final = 5.0
LOOK_FOR_S: Final = 30.0
"""Between two looks where there is nothing yet, and two initializations where some GPU cannot be handed out."""
LOST_AFTER: Final = 2
"""Looks in a row that the library refuses before its GPUs count as unhealthy."""
LEFT_OUT: Final = "DeviceLeftOut"
"""Reason word of the event that a GPU cannot be handed out."""

Task = tuple[str, Callable[[], Coroutine[Any, Any, None]]]


Make = Callable[[], AmdProbe]
"""Raises NotInstalled where there is no library."""


def maker(settings: AgentSettings) -> Make | None:
    """How this agent looks at AMD's GPUs; None where it is not to. A simulated machine has the GPUs of its description,
    unless somebody asks."""
    if settings.amd is False or (settings.simulated and not settings.amd):
        return None
    nvidia = apply_node_overrides(settings.config.nvidia, settings.overrides)
    return partial(AmdProbe, slots=nvidia.device_split_count, hidden=settings.overrides.hidden_uuids)


def opened(make: Make) -> AmdProbe:
    """The library, initialized, on a machine with GPUs. Raises ProbeError elsewhere."""
    probe = make()
    probe.open()
    try:
        if not probe.gpus():
            reasons = "; ".join(f"GPU {index}: {why}" for index, why in probe.left_out.items())
            raise ProbeError(f"amdsmi shows no AMD GPU that can be handed out{reasons and ': '}{reasons}")
    except BaseException:
        probe.close()
        raise
    return probe


class AmdService:
    """The looks at this node's GPUs, and from the first one on the plug-in that hands them out."""

    def __init__(
        self,
        vendor: Vendor,
        kube: Kube,
        announcer: Announcer,
        podlist: PodList,
        writer: PodWriter,
        directory: Path,
        folder: Path,
        *,
        probe: Make,
        wanted: bool = False,
        numa: bool = False,
        look_every_s: float = LOOK_EVERY_S,
        look_for_s: float = LOOK_FOR_S,
    ) -> None:
        """`directory` is the kubelet's, `folder` for what must outlive the agent; `wanted`: somebody asked for it, so
        that it is an error if there is no library; `numa`: tell the kubelet each GPU's NUMA node."""
        self._vendor = vendor
        self._announcer = announcer
        self._writer = writer
        self._directory = directory
        self._make = probe
        self._wanted = wanted
        self._numa = numa
        self._look_every_s = look_every_s
        self._look_for_s = look_for_s
        self._gpus: Mapping[DeviceUuid, AmdGpu] = {}
        self._devices = DeviceList()
        self._found = anyio.Event()
        self._failures = 0
        self._opened_s = time.monotonic()
        self._told: Mapping[int, str] = {}
        self._said = ""
        book = Book(
            registry=Registry((vendor,)), kube=kube, node=announcer.node, folder=folder / FOLDER, podlist=podlist
        )
        own = Maker(called="AMD GPU", answer=self._answer, units=self._units)
        self._family = Family(vendor, self._now, book, own)

    async def run(self) -> None:
        """Serve, for ever; ends at once where the library is not installed, and says so."""
        try:
            probe = await anyio.to_thread.run_sync(self._make)
        except NotInstalled as error:
            log.log(logging.ERROR if self._wanted else logging.INFO, "AMD's GPUs are not served: %s", error)
            return
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._serve, name=f"AMD {self._vendor.resources.count}")
                while True:
                    await self._look(probe)
                    await anyio.sleep(self._look_every_s if self._gpus else self._look_for_s)
        finally:
            probe.close()

    async def _serve(self) -> None:
        """Not before there is a GPU: a resource that a node has none of is none of its resources."""
        await self._found.wait()
        plugin = FamilyPlugin(self._family, self._vendor.resources.count, self._lists)
        await plugin.serve(self._directory, ENDPOINT)

    async def _lists(self) -> AsyncIterator[pb.ListAndWatchResponse]:
        known: tuple[Device, ...] | None = None
        while True:
            known = await self._devices.next(known)
            yield list_answer(known, numa=self._numa)

    async def _look(self, probe: AmdProbe) -> None:
        try:
            gpus = await anyio.to_thread.run_sync(self._ask, probe)
        except ProbeError as error:
            self._failures += 1
            if str(error) != self._said:
                self._said = str(error)
                log.warning("AMD's GPUs cannot be looked at: %s", error)
            if self._failures >= LOST_AFTER:
                self._take({uuid: unhealthy(gpu) for uuid, gpu in self._gpus.items()}, "its driver does not answer")
            return
        self._failures, self._said = 0, ""
        for index, why in probe.left_out.items():
            if self._told.get(index) != why:
                self._writer.tell_node(LEFT_OUT, f"AMD GPU {index} is left out: {why}")
        self._told = dict(probe.left_out)
        self._take({gpu.device.uuid: gpu for gpu in gpus}, "memory errors that cannot be corrected")

    def _ask(self, probe: AmdProbe) -> tuple[AmdGpu, ...]:
        """One look. Only a library that is initialized anew sees a driver that was loaded meanwhile, so it is after a
        failure, and now and then while it shows less than there may be."""
        due = time.monotonic() - self._opened_s >= self._look_for_s
        if not probe.is_open or self._failures or ((probe.left_out or not self._gpus) and due):
            self._opened_s = time.monotonic()
            probe.open()
        return probe.gpus()

    def _take(self, gpus: Mapping[DeviceUuid, AmdGpu], why: str) -> None:
        """From now on these are the node's GPUs; `why` some of them are unhealthy."""
        for uuid in self._gpus.keys() - gpus.keys():
            log.warning("AMD GPU %s is not there any more", uuid)
        for uuid, gpu in gpus.items():
            before = self._gpus.get(uuid)
            if not gpu.device.healthy and (before is None or before.device.healthy):
                log.warning("AMD GPU %s is unhealthy: %s", uuid, why)
        self._gpus = gpus
        if not gpus and not self._found.is_set():
            return
        devices = tuple(gpu.device for gpu in gpus.values())
        self._devices.set(devices)
        self._announcer.say(
            Announcement(
                inventory=NodeInventory(vendor=self._vendor.name, devices=devices),
                vendor=self._vendor,
                devices="env",
                foreign={self._vendor.node_key: wire.write_inventory(devices, "json")},
            )
        )
        self._found.set()

    def _now(self) -> Mapping[DeviceUuid, Device]:
        return {uuid: gpu.device for uuid, gpu in self._gpus.items()}

    def _units(self, share: Share, device: Device) -> Units:
        return Units(want=share.cores, total=device.cores, pairs=self._gpus[device.uuid].paired)

    def _answer(self, given: Given) -> Answer:
        """The compute driver and the granted GPUs' own nodes, and no others: a program sees the GPUs whose render nodes
        it may open. AMD's container runtime, where it is the node's, would add every GPU to an image that asks so."""
        gone = [share.uuid for share in given.shares if share.uuid not in self._gpus]
        if gone:
            raise DeviceGone(f"AMD GPU {', '.join(gone)} went while it was handed out")
        nodes = [node for share in given.shares for node in self._gpus[share.uuid].nodes]
        env = {**amd_environment(given), "AMD_VISIBLE_DEVICES": "void"}
        return Answer(env=env, nodes=(KFD, *dict.fromkeys(nodes)))


def tasks(
    settings: AgentSettings, probe: Make | None, kube: Kube, announcer: Announcer, podlist: PodList, writer: PodWriter
) -> list[Task]:
    """The service as a task of the agent; none without `probe`, or without a section for AMD in the configuration."""
    if probe is None:
        return []
    vendor, wanted = registry(settings.config).get(AMD.name), settings.amd is True
    if vendor is None:
        log.log(logging.ERROR if wanted else logging.INFO, "AMD's GPUs are not served: no section amd is configured")
        return []
    directory, folder = settings.device_plugin_dir, settings.tree.vgpu
    numa = apply_node_overrides(settings.config.nvidia, settings.overrides).enable_numa_topology
    service = AmdService(
        vendor, kube, announcer, podlist, writer, directory, folder, probe=probe, wanted=wanted, numa=numa
    )
    return [("AMD", service.run)]
