"""A cluster and the pods that come to it, as the API would show them; and in which order they come.

Nodes and pods are API objects, so that they are read by the same code that reads a cluster's. What is added is only
time: when a pod arrives, and when it leaves.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

from hami.alloc.record import read_node
from hami.alloc.request import RequestError, read_request
from hami.model.claim import Percent, PodRequest
from hami.model.device import NodeRecord
from hami.model.names import WireError
from hami.model.vendor import Registry

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One pod of the list, read once."""

    where: str
    request: PodRequest
    milli: int
    """Thousandths of a device that it asks for, on a device of usual memory."""
    arrives: float | None
    leaves: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Everything a run needs; equal for every policy and seed."""

    nodes: tuple[NodeRecord, ...]
    tasks: tuple[Task, ...]
    refused: tuple[tuple[str, str], ...]
    """Pods whose request cannot be served as written: where they stand, and why."""
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


def read_workload(nodes: Sequence[Item], pods: Sequence[Item], registry: Registry) -> Workload:
    """Read API objects as the scheduler does. WireError names the place of a node that cannot be used."""
    records = []
    for item in nodes:
        record, problems = read_node(item.document, registry)
        if problems:
            raise WireError(f"{item.where}: {problems[0].field}", problems[0].expected, problems[0].got)
        records.append(record)
    memory = [device.memory_mib for record in records for part in record.inventories for device in part.devices]
    usual = sum(memory) / len(memory) if memory else 1.0
    tasks: list[Task] = []
    refused: list[tuple[str, str]] = []
    for item in pods:
        try:
            request = read_request(item.document, registry)
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
            )
        )
    return Workload(nodes=tuple(records), tasks=tuple(tasks), refused=tuple(refused), devices=len(memory))


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

    With `load`, tasks are dropped at random, or copies of random ones appended, until together they ask for that
    multiple of the cluster's devices. Equal seeds give equal orders. WireError where the list allows no such load.
    """
    tasks = list(workload.tasks)
    random = Random(seed)
    if order is Order.TIME:
        if missing := [task.where for task in tasks if task.arrives is None]:
            raise WireError(missing[0], "an arrival time, because the order is by time")
        tasks.sort(key=lambda task: task.arrives or 0.0)
        if load is not None:
            raise WireError("load", "no load to tune to when pods come and leave by time", load)
        return tasks
    staying = [replace(task, arrives=None, leaves=None) for task in tasks]
    tasks = list(staying)
    if order is Order.SHUFFLE:
        random.shuffle(tasks)
    if load is None:
        return tasks
    asked, goal = sum(task.milli for task in tasks), load * workload.milli
    while asked > goal and tasks:
        dropped = tasks.pop(random.randrange(len(tasks)))
        asked -= dropped.milli
    if asked < goal and not any(task.milli for task in workload.tasks):
        raise WireError("load", "pods that ask for devices", load)
    while asked < goal:
        copied = random.choice(staying)
        tasks.append(copied)
        asked += copied.milli
        if len(tasks) > MOST_PODS:
            raise WireError("load", f"a load of at most {MOST_PODS:,} pods", load)
    return tasks
