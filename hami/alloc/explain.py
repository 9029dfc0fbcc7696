"""Refusals in words, for events, the terminal and logs (the wire's own reason text is `NodeRefusal.text`)."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from hami.model import units
from hami.model.claim import NodeRefusal, Why
from hami.model.vendor import Vendor

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


def in_words(refusals: Iterable[NodeRefusal], vendor: Vendor | None = None) -> str:
    """One line for all refusing nodes: `3 nodes: 12 devices short of memory (largest free 2,048 MiB), 4 unhealthy`.

    Device counts are summed over nodes, most frequent first; nodes refused as a whole are counted after them. With the
    one `vendor` that was asked for, amounts are also told in its units.
    """
    nodes = 0
    devices: Counter[Why] = Counter()
    whole: Counter[Why] = Counter()
    largest = 0
    for refusal in refusals:
        nodes += 1
        largest = max(largest, refusal.largest_free_mib)
        for why, count in refusal.counts.items():
            if why in _NODE_PHRASES:
                whole[why] += 1
            else:
                devices[why] += count
    parts: list[str] = []
    for why, count in devices.most_common():
        noun = (" device" if count == 1 else " devices") if not parts else ""
        amount = f"{largest:,} MiB" if vendor is None else units.memory(vendor, largest)
        free = f" (largest free {amount})" if why is Why.NO_MEMORY else ""
        parts.append(f"{count}{noun} {_PHRASES[why]}{free}")
    parts += [f"{count} {'node' if count == 1 else 'nodes'} {_NODE_PHRASES[why]}" for why, count in whole.most_common()]
    return f"{nodes} {'node' if nodes == 1 else 'nodes'}: {', '.join(parts) or 'no reason given'}"
