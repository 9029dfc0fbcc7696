"""Pods come to a cluster one by one, are placed by the production engine, and may leave again.

What Kubernetes' own scheduler checks before it asks the engine (CPU and memory of the node, selectors, taints) is
checked here; everything else is `hami.alloc` as the scheduler calls it. A pod that fits nowhere is not tried again.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from hami.alloc.ledger import Ledger, hold_of
from hami.alloc.place import place
from hami.model.claim import PodRequest, Refused
from hami.model.names import NodeName, PodUid
from hami.model.vendor import Registry
from hami.simulate.constraints import Wish, allowed
from hami.simulate.room import Room
from hami.simulate.unplaced import Turned, Unplaced, nodes_by_reason
from hami.simulate.use import DeviceUse, ModelUse
from hami.simulate.workload import Task, Workload

SAMPLES: Final = 100
"""Points of the curve of one run."""


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
    """The cluster at one moment; percent of all its devices."""

    at: float | None
    """Seconds of the recording; None where pods come in an order without times."""
    offered: float
    """Asked for by everything that has arrived and not left, placed or not."""
    allocated: float
    fragments: float
    """Free, but not to be filled by pods as they have been coming."""
    unplaced: int
    """Pods that have found no place so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one run."""

    arrived: int
    placed: int
    refused: int
    bound: int
    """Pods that were there before."""
    allocated: float
    """Percent of the cluster's devices handed out at the end."""
    fragments: float
    """Percent that is free in the end, but not to be filled by pods as they have been coming."""
    peak: float
    """The most that was handed out at a time."""
    mean: float | None
    """The mean over time, from the first arrival to the last; None without times."""
    curve: tuple[Sample, ...]
    models: dict[str, ModelUse]
    unplaced: tuple[Unplaced, ...]
    """By count, most first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stay:
    """A pod that leaves again."""

    request: PodRequest
    milli: int
    node: NodeName | None
    """None where it found no place: it still asks until then."""


class Replay:
    """One run. The ledger can be looked at afterwards."""

    def __init__(self, workload: Workload, registry: Registry, policy: Policy) -> None:
        self._policy = policy
        self._milli = max(1, workload.milli)
        self.ledger = Ledger(registry)
        self._use = DeviceUse(workload.nodes)
        self._leaving: list[tuple[float, int, _Stay]] = []
        self._turned = Turned(registry)
        self._offered = 0
        self._peak = 0.0
        self._bound = len(workload.bound)
        for record in workload.nodes:
            self.ledger.put_node(record)
        equipped = [(r, site) for r, site in zip(workload.nodes, workload.sites, strict=True) if r.inventories]
        # Nodes without devices are no business of the engine, but pods that ask for none may go there.
        plain = [(r, site) for r, site in zip(workload.nodes, workload.sites, strict=True) if not r.inventories]
        self._room = Room({record.name: record.host for record, _ in equipped})
        self._plain = Room({record.name: record.host for record, _ in plain})
        self._sites = [site for _, site in equipped]
        self._plain_sites = [site for _, site in plain]
        self._allowed: dict[Wish, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        for pod in workload.bound:
            self._room_of(pod.node).take(pod.node, pod.host)
            if pod.record is None:
                self.ledger.put_guest(pod.uid, pod.node, pod.host)
            else:
                self.ledger.put_pod(pod.record)
                self._use.change(pod.node, self.ledger.held_by(pod.uid), 1)

    def run(self, tasks: Sequence[Task]) -> Outcome:
        """Let these pods arrive in this order; those that say when they leave do so, if their arrival has a time."""
        placed = 0
        # What is bound already is asked for as well, as far as it can be told from what it holds.
        self._offered = round(self._use.percent * self._milli / 100)
        self._peak = self._use.percent
        clock = _Clock(tasks)
        step = max(1, len(tasks) // SAMPLES)
        curve: list[Sample] = [self._sample(None)] if tasks and tasks[0].arrives is None else []
        for number, task in enumerate(tasks):
            if task.arrives is not None:
                for moment in clock.passed(task.arrives):
                    self._depart(moment, clock)
                    curve.append(self._sample(moment))
                self._depart(task.arrives, clock)
            request = replace(task.request, uid=PodUid(f"{task.request.uid}#{number}"))
            self.ledger.note(request)
            self._offered += task.milli
            node = self._place(task, request)
            placed += node is not None
            if task.arrives is not None and task.leaves is not None:
                stay = _Stay(request=request, milli=task.milli, node=node)
                heapq.heappush(self._leaving, (task.leaves, number, stay))
            self._peak = max(self._peak, self._use.percent)
            if task.arrives is None and ((number + 1) % step == 0 or number + 1 == len(tasks)):
                curve.append(self._sample(None))
        if tasks and (end := tasks[-1].arrives) is not None:
            curve.append(self._sample(end))
        return Outcome(
            fragments=100 * self.ledger.fragments() / self._milli,
            arrived=len(tasks),
            placed=placed,
            refused=len(tasks) - placed,
            bound=self._bound,
            allocated=self._use.percent,
            peak=self._peak,
            mean=clock.mean,
            curve=tuple(curve),
            models=self._use.by_model(),
            unplaced=self._turned.listed(),
        )

    def _place(self, task: Task, request: PodRequest) -> NodeName | None:
        equipped, plain = self._places(task.wish)
        if not request.vendors and (free := self._plain.fitting(request.host, plain)):
            self._plain.take(free[0], request.host)
            self.ledger.put_guest(request.uid, free[0], request.host)
            return free[0]
        candidates = self._room.fitting(request.host, equipped)
        verdict: Refused | None = None
        if candidates:
            found = place(
                self.ledger, request, candidates, node_policy=self._policy.nodes, card_policy=self._policy.cards
            )
            if not isinstance(found, Refused):
                node = found.assignment.node
                self._room.take(node, request.host)
                if request.vendors:
                    self.ledger.put_pod(hold_of(request, found.assignment))
                    self._use.change(node, self.ledger.held_by(request.uid), 1)
                else:
                    self.ledger.put_guest(request.uid, node, request.host)
                return node
            verdict = found
        may = len(self._sites) if equipped is None else len(equipped)
        self._turned.add(
            task,
            100 * self._offered / self._milli,
            lambda: nodes_by_reason(verdict, full=may - len(candidates), unselected=len(self._sites) - may),
        )
        return None

    def _depart(self, now: float, clock: "_Clock") -> None:
        while self._leaving and self._leaving[0][0] <= now:
            moment, _, stay = heapq.heappop(self._leaving)
            clock.hold(moment, self._use.percent)
            self._offered -= stay.milli
            if stay.node is None:
                continue
            uid = stay.request.uid
            self._use.change(stay.node, self.ledger.held_by(uid), -1)
            self.ledger.drop_pod(uid)
            self.ledger.drop_guest(uid)
            self._room_of(stay.node).give(stay.node, stay.request.host)
        clock.hold(now, self._use.percent)

    def _places(self, wish: Wish) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
        """Which nodes a pod may go to, with devices and without; None = all, when nothing stands against any."""
        if wish not in self._allowed:
            self._allowed[wish] = allowed(wish, self._sites), allowed(wish, self._plain_sites)
        equipped, plain = self._allowed[wish]
        return (
            None if len(equipped) == len(self._sites) else equipped,
            None if len(plain) == len(self._plain_sites) else plain,
        )

    def _room_of(self, node: NodeName) -> Room:
        return self._room if node in self._room else self._plain

    def _sample(self, at: float | None) -> Sample:
        return Sample(
            at=at,
            offered=100 * self._offered / self._milli,
            allocated=self._use.percent,
            fragments=100 * self.ledger.fragments() / self._milli,
            unplaced=self._turned.total,
        )


class _Clock:
    """Times of a run: evenly spaced moments for samples, and the mean of what was handed out."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        times = [task.arrives for task in tasks if task.arrives is not None]
        self._start, self._end = (times[0], times[-1]) if times else (0.0, 0.0)
        self._ticks = [self._start + (self._end - self._start) * i / SAMPLES for i in range(SAMPLES)]
        self._next = 0
        self._now = self._start
        self._area = 0.0

    def passed(self, now: float) -> list[float]:
        """The moments for samples that lie before `now` and were not given before."""
        first = self._next
        while self._next < len(self._ticks) and self._ticks[self._next] < now:
            self._next += 1
        return self._ticks[first : self._next]

    def hold(self, until: float, percent: float) -> None:
        """This much has been handed out since the last call."""
        if until > self._now:
            self._area += percent * (until - self._now)
            self._now = until

    @property
    def mean(self) -> float | None:
        length = self._end - self._start
        return self._area / length if length > 0 else None
