"""What a node has of a family: registered by its plug-in in an annotation, or counted from the node's capacity.

Families whose devices need more than either of these (a mode of the node, budgets of the chip) start from one of them.
"""

from collections.abc import Callable
from typing import Final

from hami.model.device import Device
from hami.model.names import INT32_MAX, DeviceUuid, WireError
from hami.model.quantity import parse_quantity
from hami.model.vendor import NodeFacts, Read, Vendor
from hami.model.wire import node as node_wire

Problems = list[WireError]
MOST_CARDS: Final = 1024
"""Cards of one node; a capacity beyond it is a mistake that must not cost memory."""


def registered(facts: NodeFacts, vendor: Vendor, problems: Problems) -> tuple[Device, ...] | None:
    """The inventory annotation, in either form."""
    text = facts.annotations.get(vendor.node_key)
    if text is None:
        return None
    return node_wire.read_inventory(text, f"metadata.annotations[{vendor.node_key}]", problems)


def capacity(facts: NodeFacts, resource: str) -> int:
    """Whole units of a resource that a node has; 0 where it does not name it."""
    if not resource or resource not in facts.capacity:
        return 0
    path = f"status.capacity[{resource}]"
    value = parse_quantity(facts.capacity[resource], path)
    if not 0 <= value <= INT32_MAX:
        raise WireError(path, f"a number from 0 to {INT32_MAX}", str(facts.capacity[resource]))
    return int(value)


def shares_of_capacity(infix: str, *, cores_each: int, slots: int = 100) -> Read:
    """A reader for families that only say how much of all cards together a node has.

    A card has `cores_each` units of compute; memory is spread evenly, in units of the family's memory factor. What is
    left over makes a last, smaller card. Ids are `<node>-<infix>-<i>`.
    """

    def read(facts: NodeFacts, vendor: Vendor, problems: Problems) -> tuple[Device, ...] | None:
        cores = capacity(facts, vendor.resources.cores)
        if not cores:
            return None
        memory_mib = capacity(facts, vendor.resources.memory) * max(1, vendor.memory_factor)
        return tuple(
            Device(
                uuid=DeviceUuid(f"{facts.name}-{infix}-{i}"),
                index=i,
                slots=slots,
                memory_mib=memory_mib * own // cores,
                cores=own,
                model=vendor.name,
            )
            for i in range(min(-(-cores // cores_each), MOST_CARDS))
            if (own := min(cores_each, cores - i * cores_each))
        )

    return read


def cards_of_capacity(make: Callable[[NodeFacts, int, int], Device]) -> Read:
    """A reader for families that only say how many whole cards a node has; `make` is given index and count."""

    def read(facts: NodeFacts, vendor: Vendor, problems: Problems) -> tuple[Device, ...] | None:
        count = capacity(facts, vendor.resources.count)
        return tuple(make(facts, i, count) for i in range(min(count, MOST_CARDS))) or None

    return read
