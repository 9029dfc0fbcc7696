"""Refusals in words, for events, the terminal and logs (the wire's own reason text is `NodeRefusal.text`)."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from hami.model import units
from hami.model.claim import NodeRefusal, PodRequest, Why
from hami.model.names import VendorWord
from hami.model.vendor import Registry, Vendor

_PHRASES: Final = {
    Why.UNHEALTHY: "unhealthy",
    Why.CORDONED: "cordoned",
    Why.TYPE_MISMATCH: "of another model or mode than asked",
    Why.NUMA_NOT_FIT: "on another NUMA node",
    Why.LINKS_NOT_FIT: "not joined by fast links",
    Why.UUID_MISMATCH: "excluded by UUID",
    Why.SLOTS_EXHAUSTED: "with no sharing slot left",
    Why.EXCLUSIVE_CONFLICT: "in use where exclusive use is asked",
    Why.QUOTA: "over the namespace's quota",
    Why.NO_MEMORY: "short of memory",
    Why.NO_CORES: "short of compute",
    Why.CORES_EXHAUSTED: "with all compute given away",
    Why.MIG_INFEASIBLE: "with no free MIG placement",
    Why.MODE_NOT_FIT: "of a node that does not split them as asked",
    Why.CARD_UNHEALTHY: "unhealthy",
    Why.CLASS_MISMATCH: "with another class of work",
    Why.QOS_MISMATCH: "shared in another way than asked",
    Why.TOO_FEW_PICKED: "fitting, but fewer than asked",
}
_NODE_PHRASES: Final = {
    Why.TOO_FEW_DEVICES: "with fewer devices than asked",
    Why.UNREGISTERED: "without registered devices",
    Why.INVALID_REQUEST: "refusing an invalid request",
}


@dataclass(slots=True)
class _Largest:
    """The most that any refusing card of a family has left."""

    mib: int = 0
    cores: int | None = None
    parts: tuple[int | None, int | None] = (None, None)

    def meet(self, refusal: NodeRefusal) -> None:
        # Thousands of nodes refuse one pod, mostly for memory alone.
        if refusal.largest_free_mib > self.mib and Why.NO_MEMORY in refusal.counts:
            self.mib = refusal.largest_free_mib
        if refusal.largest_free_cores is not None:
            self.cores = _more(self.cores, refusal.largest_free_cores)
        if refusal.largest_free_parts != (None, None):
            a, b = zip(self.parts, refusal.largest_free_parts, strict=True)
            self.parts = _more(*a), _more(*b)


def in_words(refusals: Iterable[NodeRefusal], registry: Registry | None = None) -> str:
    """One line for all refusing nodes: `3 nodes: 12 devices short of memory (largest free 2,048 MiB), 4 unhealthy`.

    Device counts are summed over nodes, most frequent first; nodes refused as a whole are counted after them. With the
    registry amounts are told in the units of the family that was asked for.
    """
    nodes = 0
    devices: Counter[Why] = Counter()
    whole: Counter[str] = Counter()
    largest: dict[VendorWord | None, _Largest] = {}
    for refusal in refusals:
        nodes += 1
        for why, count in refusal.counts.items():
            if why in _NODE_PHRASES:
                whole[_NODE_PHRASES[why]] += 1
            elif why is Why.NUMA_NOT_FIT and (apart := _apart(registry, refusal.vendor)):
                whole[apart] += 1
            else:
                devices[why] += count
        if Why.NO_MEMORY in refusal.counts or Why.NO_CORES in refusal.counts:
            met = largest.get(refusal.vendor)
            if met is None:
                met = largest[refusal.vendor] = _Largest()
            met.meet(refusal)
    parts: list[str] = []
    for why, count in devices.most_common():
        noun = (" device" if count == 1 else " devices") if not parts else ""
        parts.append(f"{count}{noun} {_PHRASES[why]}{_left(why, largest, registry)}")
    parts += [f"{count} {'node' if count == 1 else 'nodes'} {phrase}" for phrase, count in whole.most_common()]
    return f"{nodes} {'node' if nodes == 1 else 'nodes'}: {', '.join(parts) or 'no reason given'}"


def asks(request: PodRequest, registry: Registry) -> str:
    """What a pod asks for, container by container, equal ones once: `2 x 1 device, 3,000 MiB, 30 % cores`.

    Of several families each is named: `NVIDIA: 1 device, 3,000 MiB and kunlun: 2 devices`.
    """
    needs = [need for container in request.containers for need in container.needs]
    several = len({need.vendor for need in needs}) > 1
    found = Counter(
        f"{f'{need.vendor}: ' if several else ''}{units.asked(registry[need.vendor], need)}" for need in needs
    )
    return " and ".join(f"{count} x {text}" if count > 1 else text for text, count in found.items())


def _left(why: Why, largest: Mapping[VendorWord | None, _Largest], registry: Registry | None) -> str:
    """` (largest free 2,048 MiB)`: of what cards are short of, by family where several are."""
    told = []
    for name, left in largest.items():
        vendor = _known(registry, name)
        amounts: list[str] = []
        if why is Why.NO_MEMORY:
            amounts = [f"{left.mib:,} MiB" if vendor is None else units.memory(vendor, left.mib)]
        elif why is Why.NO_CORES:
            if left.cores is not None:
                amounts.append(f"{left.cores} %" if vendor is None else units.left_cores(vendor, left.cores))
            amounts += [] if vendor is None else units.parts(vendor, left.parts)
        if amounts:
            told.append(", ".join(amounts) + (f" of {name}" if len(largest) > 1 else ""))
    return f" (largest free {'; '.join(told)})" if told else ""


def _apart(registry: Registry | None, name: VendorWord | None) -> str:
    vendor = _known(registry, name)
    return "" if vendor is None else vendor.terms.apart


def _known(registry: Registry | None, name: VendorWord | None) -> Vendor | None:
    return None if registry is None or name is None else registry.get(name)


def _more(a: int | None, b: int | None) -> int | None:
    return max((one for one in (a, b) if one is not None), default=None)
