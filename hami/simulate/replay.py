"""Pods come to a cluster one by one, are placed by the production engine, and may leave again.

What Kubernetes' own scheduler checks before it asks the engine, CPU and memory of the node, is checked here; everything
else is `hami.alloc` as the scheduler calls it. A pod that fits nowhere is not tried again.
"""

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from hami.alloc.demand import Kind, kind_of
from hami.alloc.ledger import Ledger, hold_of
from hami.alloc.place import place
from hami.model.claim import Placed, Refused
from hami.model.host import NO_HOST, Host
from hami.model.names import NodeName, PodUid
from hami.model.vendor import Registry
from hami.simulate.workload import Task, Workload

SAMPLES: Final = 100
"""Points of the curve of one run."""
HOST_FULL: Final = "NodeCpuOrMemory"
"""No node has the CPU and host memory left that the pod asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How nodes and cards are chosen, in the words of the scheduler's flags."""

    nodes: str
    cards: str

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """`binpack`, or `binpack/spread` where nodes and cards differ."""
        nodes, _, cards = text.partition("/")
        return cls(nodes=nodes, cards=cards or nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The cluster after some arrivals; percent of all its devices."""

    offered: float
    """Asked for by everything that has arrived and not left."""
    allocated: float
    fragments: float
    """Free, but not to be filled by pods as they have been coming."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUse:
    """One GPU model at the end of a run."""

    devices: int
    allocated: float
    """Percent of these devices' memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplaced:
    """Pods of one kind that did not fit."""

    where: str
    """The first of them in its file."""
    name: str
    milli: int
    count: int
    reason: str
    """Why the first one did not: the reason that most nodes gave, with their number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one run."""

    arrived: int
    placed: int
    refused: int
    allocated: float
    """Percent of the cluster's devices handed out at the end."""
    peak: float
    """The most that was handed out at a time."""
    curve: tuple[Sample, ...]
    models: dict[str, ModelUse]
    unplaced: tuple[Unplaced, ...]
    """By count, most first."""


class Replay:
    """One run. The ledger can be looked at afterwards."""

    def __init__(self, workload: Workload, registry: Registry, policy: Policy) -> None:
        self._policy = policy
        self._workload = workload
        self.ledger = Ledger(registry)
        self._names: list[NodeName] = []
        self._left: dict[NodeName, Host | None] = {}
        self._plain: list[NodeName] = []
        """Nodes without devices: no business of the engine, but pods that ask for none may go there."""
        self._memory = 0
        for record in workload.nodes:
            self.ledger.put_node(record)
            self._left[record.name] = record.host
            (self._names if record.inventories else self._plain).append(record.name)
        self._total = sum(usage.device.memory_mib for name in self._names for usage in self.ledger.usage(name))
        self._leaving: list[tuple[float, int, Task, NodeName | None]] = []
        self._held: dict[PodUid, int] = {}
        self._offered = 0

    def run(self, tasks: Sequence[Task]) -> Outcome:
        """Let these pods arrive in this order; those that say when they leave do so, if their arrival has a time."""
        placed = 0
        peak = 0
        curve: list[Sample] = []
        lost: Counter[Kind] = Counter()
        first: dict[Kind, tuple[Task, str]] = {}
        step = max(1, len(tasks) // SAMPLES)
        for number, task in enumerate(tasks):
            if task.arrives is not None:
                self._depart(task.arrives)
            uid = PodUid(f"{task.request.uid}#{number}")
            request = replace(task.request, uid=uid)
            self.ledger.note(request)
            self._offered += task.milli
            node, reason = self._place(replace(task, request=request))
            if node is not None:
                placed += 1
                peak = max(peak, self._memory)
            else:
                kind = kind_of(request)
                lost[kind] += 1
                if kind not in first:
                    first[kind] = task, self._why(reason)
            if task.arrives is not None and task.leaves is not None and task.leaves > task.arrives:
                heapq.heappush(self._leaving, (task.leaves, number, replace(task, request=request), node))
            if number % step == 0 or number + 1 == len(tasks):
                curve.append(self._sample())
        return Outcome(
            arrived=len(tasks),
            placed=placed,
            refused=len(tasks) - placed,
            allocated=self._percent(self._memory),
            peak=self._percent(peak),
            curve=tuple(curve),
            models=self._models(),
            unplaced=tuple(
                Unplaced(
                    where=first[kind][0].where,
                    name=str(first[kind][0].request.key),
                    milli=first[kind][0].milli,
                    count=count,
                    reason=first[kind][1],
                )
                for kind, count in lost.most_common()
            ),
        )

    def _place(self, task: Task) -> tuple[NodeName | None, Refused | None]:
        request = task.request
        if not request.vendors:
            for name in self._plain:
                if self._has_room(name, request.host):
                    self._settle(name, request.host)
                    return name, None
        candidates = [name for name in self._names if self._has_room(name, request.host)]
        if not candidates:
            return None, None
        verdict = place(
            self.ledger, request, candidates, node_policy=self._policy.nodes, card_policy=self._policy.cards
        )
        match verdict:
            case Refused():
                return None, verdict
            case Placed():
                name = verdict.assignment.node
                self._settle(name, request.host)
                if request.vendors:
                    self.ledger.put_pod(hold_of(request, verdict.assignment))
                    taken = sum(held.memory_mib for held in self.ledger.held_by(request.uid).values())
                    self._held[request.uid] = taken
                    self._memory += taken
                else:
                    self.ledger.put_guest(request.uid, name, request.host)
                return name, None

    def _depart(self, now: float) -> None:
        while self._leaving and self._leaving[0][0] <= now:
            _, _, task, node = heapq.heappop(self._leaving)
            self._offered -= task.milli
            if node is None:
                continue
            uid = task.request.uid
            self.ledger.drop_pod(uid)
            self.ledger.drop_guest(uid)
            self._memory -= self._held.pop(uid, 0)
            left = self._left[node]
            if left is not None:
                self._left[node] = left.plus(task.request.host)

    def _has_room(self, name: NodeName, host: Host) -> bool:
        left = self._left[name]
        return host == NO_HOST or left is None or left.covers(host)

    def _settle(self, name: NodeName, host: Host) -> None:
        left = self._left[name]
        if left is not None:
            self._left[name] = left.minus(host)

    def _why(self, refused: Refused | None) -> str:
        if refused is None:
            return HOST_FULL
        # Each card of a node has its own reason; the node is told by the one that most of its cards give.
        words = Counter(
            max(refusal.counts, key=lambda why: refusal.counts[why]).word
            for refusal in refused.refusals.values()
            if refusal.counts
        )
        if short := len(self._names) - len(refused.refusals):
            words[HOST_FULL] += short
        return ", ".join(f"{count} {word}" for word, count in words.most_common(3))

    def _sample(self) -> Sample:
        return Sample(
            offered=100 * self._offered / max(1, self._workload.milli),
            allocated=self._percent(self._memory),
            fragments=100 * self.ledger.fragments() / max(1, self._workload.milli),
        )

    def _models(self) -> dict[str, ModelUse]:
        memory: Counter[str] = Counter()
        used: Counter[str] = Counter()
        devices: Counter[str] = Counter()
        for name in self._names:
            for usage in self.ledger.usage(name):
                devices[usage.device.model] += 1
                memory[usage.device.model] += usage.device.memory_mib
                used[usage.device.model] += usage.used_memory_mib
        return {
            model: ModelUse(devices=count, allocated=100 * used[model] / max(1, memory[model]))
            for model, count in sorted(devices.items())
        }

    def _percent(self, memory_mib: int) -> float:
        return 100 * memory_mib / max(1, self._total)
