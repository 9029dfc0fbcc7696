"""A running picture of what is asked, learned from the pods as they arrive.

Each distinct kind of request has a weight that fades as others arrive, so that the picture follows a changing load.
The `fragmentation` policy draws from it what a node's free part could still be used for. Nothing is known of the
future: the picture is the past, the pods that fitted nowhere included.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from hami.model.claim import ANY_DEVICE, Memory, PodRequest, Role, Selection
from hami.model.host import Host
from hami.model.names import PodUid, VendorWord

HORIZON: Final = 10_000
"""Arrivals after which a pod has lost most (1 - 1/e) of its weight."""
KINDS: Final = 1_024
"""Kinds of requests told apart; beyond that the lightest half is forgotten."""
SEEN: Final = 50_000
"""Pods remembered, so that one that is tried again counts once."""


@dataclass(frozen=True, slots=True)
class Want:
    """What one container asks of one family, as far as it can be compared between pods."""

    vendor: VendorWord
    count: int
    memory: Memory
    cores: int
    selection: Selection
    """Without names of single devices."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A class of pods: equal in everything that decides where they fit."""

    host: Host
    wants: tuple[Want, ...]


class Demand:
    """Weights by kind of request. `fresh` says that enough has arrived since the last drawing for a new one."""

    def __init__(self) -> None:
        self._weights: dict[Kind, float] = {}
        self._seen: dict[PodUid, None] = {}
        self._unit = 1.0
        self._noted = 0
        self._due = 1

    def note(self, request: PodRequest) -> None:
        """A pod has arrived. One that was noted before says nothing new."""
        if request.uid in self._seen:
            return
        self._seen[request.uid] = None
        if len(self._seen) > SEEN:
            del self._seen[next(iter(self._seen))]
        kind = kind_of(request)
        # Growing the newest weight instead of shrinking all others comes to the same.
        self._unit *= 1 + 1 / HORIZON
        self._weights[kind] = self._weights.get(kind, 0.0) + self._unit
        self._noted += 1
        if len(self._weights) > KINDS:
            kept = sorted(self._weights, key=self._weights.__getitem__, reverse=True)[: KINDS // 2]
            self._weights = {known: weight for known, weight in self._weights.items() if known in set(kept)}
        if self._unit > 1e100:
            self._weights = {known: weight / self._unit for known, weight in self._weights.items()}
            self._unit = 1.0

    def has_noted(self, uid: PodUid) -> bool:
        """Whether this pod was noted, lately at least."""
        return uid in self._seen

    @property
    def fresh(self) -> bool:
        """Whether it is time to draw from the picture anew: often at first, later every quarter of the horizon."""
        return self._noted >= self._due

    def drawn(self) -> None:
        """A drawing has been made now."""
        self._due = max(20, self._noted + 1 + min(self._noted * 3 // 10, HORIZON // 4))

    def weights(self) -> Iterator[tuple[Kind, float]]:
        """Every kind with its weight, in the order of first arrival; the weights add up to nothing in particular."""
        yield from self._weights.items()


def kind_of(request: PodRequest) -> Kind:
    """The kind a request is of. What an init container asks is free again soon, so it is left out."""
    wants = []
    for container in request.containers:
        if container.role is Role.INIT:
            continue
        for need in container.needs:
            selection = request.selections.get(need.vendor, ANY_DEVICE)
            wants.append(
                Want(
                    vendor=need.vendor,
                    count=need.count,
                    memory=need.memory,
                    cores=need.cores,
                    selection=replace(selection, uuid_in=frozenset(), uuid_out=frozenset()),
                )
            )
    return Kind(host=request.host, wants=tuple(wants))
