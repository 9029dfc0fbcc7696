"""The device plug-ins of simulated families: their resources on the kubelet, their annotations on the node.

They stand in for plug-ins of other makers. So the node does not name them as our agent's families, the scheduler locks
the node for them where it does for the real ones, and everything else that a vendor's plug-in does is done here, too.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from hami.agent.announce import Announcement, Announcer
from hami.agent.family import Book, Family, Maker
from hami.agent.family_plugin import FamilyPlugin, Lists
from hami.agent.pb import deviceplugin_pb2 as pb
from hami.agent.plugin import HEALTHY, UNHEALTHY
from hami.agent.podresources import PodList
from hami.agent.simulated_answers import answer, units
from hami.kube.client import Kube
from hami.model.machine_cards import MachineCard
from hami.model.names import NodeName, VendorWord, WireError
from hami.model.settings import DeviceConfig
from hami.model.vendor import Registry
from hami.node.probe_simulated import SimulatedProbe
from hami.vendors import registry
from hami.vendors.nvidia import NVIDIA

Task = tuple[str, Callable[[], Coroutine[Any, Any, None]]]


def probes(registry: Registry, cards: Sequence[MachineCard], node: NodeName) -> tuple[SimulatedProbe, ...]:
    """A probe for each family that the machine's description names. Raises WireError for a family nobody declares."""
    found: dict[VendorWord, list[MachineCard]] = {}
    for card in cards:
        found.setdefault(card.family, []).append(card)
    for word in found:
        if registry.get(word) is None:
            known = ", ".join(vendor.name for vendor in registry)
            raise WireError("machine.devices.family", f"one of {known}, with a section in the configuration", word)
    return tuple(SimulatedProbe(registry[word], own, node) for word, own in found.items())


def tasks(
    cards: Sequence[MachineCard],
    config: DeviceConfig,
    kube: Kube,
    announcer: Announcer,
    podlist: PodList,
    directory: Path,
    folder: Path,
) -> list[Task]:
    """Say what the simulated `cards` are, and serve them in the kubelet's `directory`; `folder` is for their files.

    Raises WireError for a family that is not configured, ProbeError for devices that its declaration would not see.
    """
    every = registry(config, ascend=True, iluvatar=True)
    others = Registry(tuple(vendor for vendor in every if vendor.name != NVIDIA.name))
    found = probes(others, cards, announcer.node)
    book = Book(
        registry=Registry(tuple(probe.vendor for probe in found)),
        kube=kube,
        node=announcer.node,
        folder=folder,
        podlist=podlist,
    )
    work: list[Task] = []
    for probe in found:
        foreign = probe.published.annotations
        announcer.say(Announcement(inventory=probe.inventory(), vendor=probe.vendor, devices="env", foreign=foreign))
        family, ill = family_of(probe, book), probe.health()
        for resource, ids in probe.published.ids.items():
            states = {one: UNHEALTHY if one.rpartition("-")[0] in ill else HEALTHY for one in ids}
            plugin = FamilyPlugin(family, resource, _lists(states))
            # A socket's path has a hundred characters; resources' names can be as long.
            endpoint = f"hami-sim-{len(work)}.sock"
            work.append((f"simulated {resource}", partial(plugin.serve, directory, endpoint)))
    return work


def family_of(probe: SimulatedProbe, book: Book) -> Family:
    """The family whose devices `probe` describes."""
    vendor = probe.vendor
    maker = Maker(called=f"simulated {vendor.name}", answer=answer, units=partial(units, vendor))
    return Family(vendor, lambda: {device.uuid: device for device in probe.inventory().devices}, book, maker)


def _lists(ids: Mapping[str, str]) -> Lists:
    """The kubelet's ids, each with its health: what is described stays."""

    async def lists() -> AsyncIterator[pb.ListAndWatchResponse]:
        answer = pb.ListAndWatchResponse()
        answer.devices.extend(pb.Device(ID=one, health=health) for one, health in ids.items())
        yield answer
        await anyio.sleep_forever()

    return lists
