"""The pods that found no place, by kind, and why."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from hami.alloc.demand import Kind, kind_of
from hami.model import units
from hami.model.claim import ANY_DEVICE, PodRequest, Refused, Why
from hami.model.host import NO_HOST
from hami.model.vendor import Registry
from hami.simulate.constraints import Wish
from hami.simulate.workload import Task

HOST_FULL: Final = "NodeCpuOrMemory"
"""The node has not the CPU or host memory left that the pod asks for: kube-scheduler would not offer it."""
NOT_SELECTED: Final = "NodeNotSelected"
"""The pod's node selector or affinity, or the node's taints, rule it out."""

WORDS: Final[Mapping[str, str]] = {
    HOST_FULL: "out of CPU or memory",
    NOT_SELECTED: "not allowed by selector, affinity or taint",
    Why.UNHEALTHY.word: "devices unhealthy",
    Why.CORDONED.word: "devices cordoned",
    Why.TYPE_MISMATCH.word: "devices of another model",
    Why.NUMA_NOT_FIT.word: "devices on several NUMA nodes",
    Why.LINKS_NOT_FIT.word: "devices without fast links",
    Why.UUID_MISMATCH.word: "devices excluded by UUID",
    Why.SLOTS_EXHAUSTED.word: "no sharing slot left",
    Why.EXCLUSIVE_CONFLICT.word: "devices in use, and the pod wants its own",
    Why.QUOTA.word: "over the namespace's quota",
    Why.NO_MEMORY.word: "too little device memory left",
    Why.NO_CORES.word: "too little compute left",
    Why.CORES_EXHAUSTED.word: "all compute given away",
    Why.MIG_INFEASIBLE.word: "no room for the MIG instance",
    Why.MODE_NOT_FIT.word: "another way of splitting",
    Why.CARD_UNHEALTHY.word: "not healthy",
    Why.CLASS_MISMATCH.word: "another class of work on it",
    Why.QOS_MISMATCH.word: "shared in another way",
    Why.TOO_FEW_PICKED.word: "fewer fitting devices than asked",
    Why.TOO_FEW_DEVICES.word: "fewer devices than asked",
    Why.UNREGISTERED.word: "no registered device",
    Why.INVALID_REQUEST.word: "the request is invalid",
}
"""What each reason says of a node, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplaced:
    """Pods of one kind that did not fit."""

    where: str
    """The first of them in its file."""
    name: str
    asks: str
    """What each asks for, for people."""
    milli: int
    count: int
    load: float
    """What had been asked for when the first one came, that one included: percent of all devices."""
    nodes: Mapping[str, int]
    """Why the first one found no place: nodes by reason, most first. A node has the reason most of its cards give."""

    @property
    def reason(self) -> str:
        """The same in words."""
        return ", ".join(
            f"{count:,} node{'' if count == 1 else 's'} {WORDS[word]}" for word, count in self.nodes.items()
        )


class Turned:
    """Collects pods without a place while a run goes on."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._counts: Counter[tuple[Kind, Wish]] = Counter()
        self._first: dict[tuple[Kind, Wish], tuple[Task, float, Mapping[str, int]]] = {}
        self.total = 0

    def add(self, task: Task, load: float, nodes: Callable[[], Mapping[str, int]]) -> None:
        """One more. Only of the first of each kind is asked why, because that looks at every node."""
        kind = kind_of(task.request), task.wish
        self.total += 1
        self._counts[kind] += 1
        if kind not in self._first:
            self._first[kind] = task, load, nodes()

    def listed(self) -> tuple[Unplaced, ...]:
        """By count, most first."""
        found = []
        for kind, count in self._counts.most_common():
            task, load, nodes = self._first[kind]
            found.append(
                Unplaced(
                    where=task.where,
                    name=str(task.request.key),
                    asks=asks(task.request, self._registry),
                    milli=task.milli,
                    count=count,
                    load=load,
                    nodes=nodes,
                )
            )
        return tuple(found)


def nodes_by_reason(refused: Refused | None, *, full: int, unselected: int) -> dict[str, int]:
    """How many nodes had which reason, most first; `full` and `unselected` ones were not even asked."""
    words: Counter[str] = Counter()
    # Each card of a node has its own reason; the node is told by the one that most of its cards give.
    for refusal in () if refused is None else refused.refusals.values():
        if refusal.counts:
            words[max(refusal.counts, key=lambda why: refusal.counts[why]).word] += 1
    words[HOST_FULL] += full
    words[NOT_SELECTED] += unselected
    return {word: count for word, count in words.most_common() if count}


def asks(request: PodRequest, registry: Registry) -> str:
    """A request in one line, amounts in its family's units: `1 NVIDIA with 810 MiB; 8 CPU, 30 GiB`."""
    parts = []
    for container in request.containers:
        for need in container.needs:
            vendor = registry[need.vendor]
            each = [vendor.terms.asked(need)] if vendor.terms.asked else units.amounts(vendor, need)
            share = f" with {', '.join(each)}" if each else ""
            count = need.vendor if vendor.terms.asked else f"{need.count} {need.vendor}"
            models = request.selections.get(need.vendor, ANY_DEVICE).type_in
            only = f" on {' or '.join(models)}" if models else ""
            parts.append(f"{count}{share}{only}")
    if request.host != NO_HOST:
        parts.append(f"{request.host.cpu_milli / 1000:g} CPU, {request.host.memory_mib / 1024:,.4g} GiB")
    return "; ".join(parts) or "nothing"
