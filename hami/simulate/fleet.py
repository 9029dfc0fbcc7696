"""More nodes of a kind that is there: what a purchase would change."""

from dataclasses import dataclass, replace
from typing import Final

from hami.model.device import Links, NodeInventory
from hami.model.names import DeviceUuid, NodeName, WireError
from hami.simulate.workload import Workload

MOST: Final = 10_000
"""Copies of one node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class More:
    """So many copies of a node."""

    count: int
    node: NodeName

    @classmethod
    def parse(cls, text: str) -> "More":
        """`10:NODE`. WireError for anything else."""
        count, _, node = text.partition(":")
        if not (count.isascii() and count.isdigit() and len(count) < 6 and 1 <= int(count) <= MOST and node):
            raise WireError("--more", f"COUNT:NODE with a count from 1 to {MOST:,}", text)
        return cls(count=int(count), node=NodeName(node))


def enlarged(workload: Workload, more: More) -> Workload:
    """The workload with copies of a node beside it, named `NODE+1`, `NODE+2`, ...; nothing is bound to them."""
    places = {record.name: place for place, record in enumerate(workload.nodes)}
    place = places.get(more.node)
    if place is None:
        raise WireError("--more", f"one of the {len(places):,} nodes, as {next(iter(places))}", more.node)
    record, site = workload.nodes[place], workload.sites[place]
    records, sites = list(workload.nodes), list(workload.sites)
    for number in range(1, more.count + 1):
        name = NodeName(f"{more.node}+{number}")
        if name in places:
            raise WireError("--more", "each node once", more.node)
        inventories = tuple(_copied(inventory, number) for inventory in record.inventories)
        records.append(replace(record, name=name, inventories=inventories, cordoned=frozenset()))
        sites.append(replace(site, fields={**site.fields, "metadata.name": str(name)}))
    devices = sum(len(inventory.devices) for inventory in record.inventories) * more.count
    return replace(workload, nodes=tuple(records), sites=tuple(sites), devices=workload.devices + devices)


def _copied(inventory: NodeInventory, number: int) -> NodeInventory:
    def other(uuid: DeviceUuid) -> DeviceUuid:
        return DeviceUuid(f"{uuid}+{number}")

    links = None
    if inventory.links is not None:
        links = Links(
            scores=tuple((other(a), tuple((other(b), score) for b, score in row)) for a, row in inventory.links.scores)
        )
    return replace(
        inventory,
        devices=tuple(replace(device, uuid=other(device.uuid), healthy=True) for device in inventory.devices),
        links=links,
    )
