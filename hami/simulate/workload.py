"""A cluster and the pods that come to it, as the API would show them; and in which order they come.

Nodes and pods are API objects, so that they are read by the same code that reads a cluster's. What is added is only
time: when a pod arrives, and when it leaves.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

from hami.alloc import host
from hami.alloc.record import read_node, read_pod
from hami.alloc.request import RequestError, pod_uid, read_request
from hami.model.claim import Percent, PodRecord, PodRequest
from hami.model.device import NodeRecord
from hami.model.host import Host
from hami.model.names import NodeName, PodUid, WireError
from hami.model.vendor import Registry
from hami.simulate.admission import admitted
from hami.simulate.constraints import ANY_NODE, Site, Wish, read_site, read_wish

Document = Mapping[str, Any]
MOST_PODS: Final = 2_000_000
"""Arrivals of one run; a load that asks for more is a mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One object of a file, and where it stands there, for messages."""

    where: str
    document: Document
    arrives: float | None = None
    """Seconds since the start of the recording; None = it does not say."""
    leaves: float | None = None
    finished: bool = False
    """It has run and holds nothing any more: it only comes when pods come by their times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One pod of the list, read once."""

    where: str
    request: PodRequest
    milli: int
    """Thousandths of a device that it asks for, on a device of usual memory."""
    arrives: float | None = None
    leaves: float | None = None
    finished: bool = False
    wish: Wish = ANY_NODE


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A pod that has its place already and keeps it."""

    where: str
    uid: PodUid
    node: NodeName
    host: Host
    record: PodRecord | None
    """What it holds of devices; None = nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Everything a run needs; equal for every policy and seed."""

    nodes: tuple[NodeRecord, ...]
    sites: tuple[Site, ...]
    """Labels and taints, one a node."""
    tasks: tuple[Task, ...]
    bound: tuple[Bound, ...]
    refused: tuple[tuple[str, str], ...]
    """Pods whose request cannot be served as written: where they stand, and why."""
    problems: tuple[tuple[str, str], ...]
    """Parts of nodes and of bound pods that cannot be read, and so count nothing, as in a cluster."""
    devices: int

    @property
    def milli(self) -> int:
        """The cluster's devices in thousandths of one."""
        return 1000 * self.devices


class Order(enum.Enum):
    """How pods arrive."""

    FILE = "file"
    SHUFFLE = "shuffle"
    TIME = "time"


def read_workload(
    nodes: Sequence[Item], pods: Sequence[Item], registry: Registry, *, keep_bound: bool = False
) -> Workload:
    """Read API objects as the scheduler does. WireError names the place of what no cluster would have.

    With `keep_bound`, pods that are bound to one of the nodes keep their place and devices, and do not arrive.
    """
    records: list[NodeRecord] = []
    sites: list[Site] = []
    problems: list[tuple[str, str]] = []
    first: dict[NodeName, str] = {}
    for item in nodes:
        record, wrong = read_node(item.document, registry)
        if not record.name:
            raise WireError(f"{item.where}: metadata.name", "a name")
        if record.name in first:
            raise WireError(
                f"{item.where}: metadata.name", f"another name than that of {first[record.name]}", record.name
            )
        first[record.name] = item.where
        problems += [(f"{item.where}: node {record.name}", str(problem)) for problem in wrong]
        records.append(record)
        sites.append(read_site(item.document, item.where))
    memory = [device.memory_mib for record in records for part in record.inventories for device in part.devices]
    if not memory:
        reason = f" ({'; '.join(problem for _, problem in problems[:3])})" if problems else ""
        raise WireError(nodes[0].where if nodes else "nodes", f"a registered device on one of the nodes{reason}")
    usual = sum(memory) / len(memory)
    tasks: list[Task] = []
    bound: list[Bound] = []
    refused: list[tuple[str, str]] = []
    for item in pods:
        node = _node_of(item.document) if keep_bound and not item.finished else None
        if node is not None:
            holding, wrong = read_pod(item.document, registry)
            problems += [(item.where, str(problem)) for problem in wrong]
            if node not in first:
                problems.append((item.where, f"bound to {node}, which is not among the nodes"))
                continue
            bound.append(
                Bound(
                    where=item.where,
                    uid=pod_uid(item.document),
                    node=node,
                    host=host.asked(item.document),
                    record=holding,
                )
            )
            continue
        try:
            request = read_request(admitted(item.document, registry), registry)
        except RequestError as error:
            refused.append((item.where, str(error)))
            continue
        tasks.append(
            Task(
                where=item.where,
                request=request,
                milli=size_of(request, usual),
                arrives=item.arrives,
                leaves=item.leaves,
                finished=item.finished,
                wish=read_wish(item.document, item.where),
            )
        )
    return Workload(
        nodes=tuple(records),
        sites=tuple(sites),
        tasks=tuple(tasks),
        bound=tuple(bound),
        refused=tuple(refused),
        problems=tuple(problems),
        devices=len(memory),
    )


def _node_of(pod: Document) -> NodeName | None:
    spec = pod.get("spec")
    name = spec.get("nodeName") if isinstance(spec, Mapping) else None
    return NodeName(name) if isinstance(name, str) and name else None


def size_of(request: PodRequest, usual_mib: float) -> int:
    """Thousandths of devices that a pod asks for: the larger of its memory and cores on each, devices added up."""
    total = 0.0
    for container in request.containers:
        for need in container.needs:
            memory = need.memory.amount / 100 if isinstance(need.memory, Percent) else need.memory.amount / usual_mib
            total += need.count * min(1.0, max(memory, need.cores / 100))
    return round(1000 * total)


def arrivals(workload: Workload, order: Order, *, seed: int | None = None, load: float | None = None) -> list[Task]:
    """The tasks in the order in which they come; only by time do they also leave.

    With `load`, tasks are dropped at random while they ask for more than that multiple of the cluster's devices, then
    copies of random ones appended while they ask for less. Equal seeds give equal orders; no seed acts as 0.
    WireError where the list allows no such load.
    """
    tasks = list(workload.tasks)
    random = Random(0 if seed is None else seed)
    if order is Order.TIME:
        if missing := [task.where for task in tasks if task.arrives is None]:
            raise WireError(missing[0], "an arrival time, because the order is by time")
        tasks.sort(key=lambda task: task.arrives or 0.0)
        if load is not None:
            raise WireError("load", "no load to tune to when pods come and leave by time", load)
        return tasks
    staying = [replace(task, arrives=None, leaves=None) for task in tasks if not task.finished]
    tasks = list(staying)
    if order is Order.SHUFFLE:
        random.shuffle(tasks)
    if load is None:
        return tasks
    asked, goal = sum(task.milli for task in tasks), load * workload.milli
    while asked > goal:
        dropped = tasks.pop(random.randrange(len(tasks)))
        asked -= dropped.milli
    if asked < goal and not any(task.milli for task in staying):
        raise WireError("load", "pods that ask for devices", load)
    while asked < goal:
        copied = random.choice(staying)
        tasks.append(copied)
        asked += copied.milli
        if len(tasks) > MOST_PODS:
            raise WireError("load", f"a load of at most {MOST_PODS:,} pods", load)
    return tasks
