"""A request and candidate nodes in, a decision with its reasons out.

Pure and synchronous: nothing is held by deciding; the caller puts what it accepts into the ledger. All containers of a
pod are decided together; on cards in MIG mode a share is an instance, and the assignment says where it lies.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from struct import Struct
from typing import Final, overload

from hami.alloc._ask import NUMBERS, Ask
from hami.alloc._fit import Survey
from hami.alloc.ledger import Ledger
from hami.alloc.policy import names_direction, spreads_nodes, weighs_nodes
from hami.alloc.quota import Quotas
from hami.alloc.table import salt
from hami.model.claim import Assignment, NodeRefusal, Placed, PodRequest, Refused, Why
from hami.model.names import NodeName, PodUid, VendorWord
from hami.model.vendor import Registry, Vendor

_COUNTED: Final = NUMBERS["WHYS"] * array("i").itemsize
"""Bytes of a tally's counters; what follows are these amounts."""
_AFTER: Final = ("DEVICES", "LARGEST_FREE", "FAMILY", "SHORT_CORES", "SHORT_A", "SHORT_B")
_AMOUNTS: Final = Struct(f"={len(_AFTER)}i")
assert [NUMBERS[word] - NUMBERS["WHYS"] for word in _AFTER] == list(range(len(_AFTER))), "a tally is laid out otherwise"
_UNREGISTERED: Final = NodeRefusal(counts={Why.UNREGISTERED: 1})


class Refusals(Mapping[NodeName, NodeRefusal]):
    """Why each refusing candidate refuses, made into values only where somebody looks.

    A filter over thousands of nodes mostly wants the winner. Nodes that refuse for the same reasons and numbers share
    one value.
    """

    __slots__ = ("_families", "_index", "_made", "_survey", "_told", "_unknown")

    def __init__(self, survey: Survey, families: Sequence[Vendor]) -> None:
        self._survey = survey
        self._families = families
        self._unknown = dict.fromkeys(survey.unknown)
        self._index: dict[NodeName, int] | None = None
        self._made: dict[bytes, NodeRefusal] = {}
        self._told: dict[tuple[bytes, int], Mapping[Why, int]] = {}

    def __len__(self) -> int:
        return self._survey.refused + len(self._unknown)

    def __iter__(self) -> Iterator[NodeName]:
        yield from self._survey.refusals()
        yield from map(NodeName, self._unknown)

    def __getitem__(self, name: NodeName) -> NodeRefusal:
        if self._index is None:
            self._index = {known: position for position, known in enumerate(self._survey.refusals())}
        position = self._index.get(name)
        if position is None:
            if name in self._unknown:
                return _UNREGISTERED
            raise KeyError(name)
        tally = self._survey.tally(position)
        refusal = self._made.get(tally)
        if refusal is None:
            refusal = self._made[tally] = _refusal(tally, self._families, self._told)
        return refusal

    def __repr__(self) -> str:
        return f"Refusals({dict(self)!r})"


class Ranking(Sequence[tuple[NodeName, float]]):
    """Every fitting node with its score, best first, ordered only as far as somebody looks."""

    __slots__ = ("_survey",)

    def __init__(self, survey: Survey) -> None:
        self._survey = survey

    def __len__(self) -> int:
        return self._survey.fitting

    @overload
    def __getitem__(self, index: int) -> tuple[NodeName, float]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[NodeName, float]]: ...
    def __getitem__(self, index: int | slice) -> tuple[NodeName, float] | Sequence[tuple[NodeName, float]]:
        if isinstance(index, slice):
            places = range(len(self))[index]
            listed = self._survey.ranking(max(places, default=-1) + 1)
            return [listed[place] for place in places]
        place = range(len(self))[index]
        return self._survey.ranking(place + 1)[place]

    def __iter__(self) -> Iterator[tuple[NodeName, float]]:
        return iter(self._survey.ranking(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Ranking({list(self)!r})"


def place(
    ledger: Ledger,
    request: PodRequest,
    nodes: Sequence[str] | None,
    *,
    node_policy: str,
    card_policy: str,
    quota: Quotas | None = None,
    exclude: PodUid | None = None,
    request_scored: bool = False,
) -> Placed | Refused:
    """Choose a node among `nodes` (None = all) and devices on it.

    The request's own policies win over the given ones. `exclude` is a pod whose holdings do not count, as when it is
    placed anew. Scores are HAMi's, before the pod is placed: 0 idle, 30 full; `binpack` prefers the highest, `spread`
    the lowest, and equal nodes rank by a hash of pod and node; a pod that puts links first ranks nodes by those first.
    With `fragmentation` a score is what the node loses, in thousandths of a device, and the lowest is best.
    `request_scored` lets cards be ranked by their use with the request, instead of without it as HAMi does.
    """
    table = ledger.table
    word = request.node_policy or node_policy
    spread, by_price = spreads_nodes(word), weighs_nodes(word)
    with ledger.without(exclude), table.marked(request):
        direction = spread if names_direction(word) else None
        ask = _pack(ledger, request, card_policy, quota, request_scored, by_price, direction)
        survey = table.engine.survey(ask, table.names, table.ids, nodes, salt(request.uid), spread)
        families = _families(request, ledger.registry)
        refusals = Refusals(survey, families)
        best = survey.best
        if best < 0:
            return Refused(refusals=refusals)
        choices, _ = table.engine.assign(ask, best)
        assert choices is not None, "a surveyed node no longer fits"
        chosen = table.assignment(request, ledger.registry, table.names[best], choices)
        assignment = _settled(ledger, request, chosen, families)
    return Placed(assignment=assignment, scores=Ranking(survey), refusals=refusals)


def place_on(
    ledger: Ledger,
    request: PodRequest,
    node: NodeName,
    *,
    card_policy: str,
    quota: Quotas | None = None,
    exclude: PodUid | None = None,
    request_scored: bool = False,
) -> Assignment | NodeRefusal:
    """Choose devices on the one node that somebody else chose."""
    table = ledger.table
    number = table.ids.get(node)
    if number is None:
        return _UNREGISTERED
    with ledger.without(exclude), table.marked(request):
        ask = _pack(ledger, request, card_policy, quota, request_scored)
        families = _families(request, ledger.registry)
        choices, tally = table.engine.assign(ask, number)
        if choices is None:
            return _refusal(tally, families)
        return _settled(ledger, request, table.assignment(request, ledger.registry, node, choices), families)


def _pack(
    ledger: Ledger,
    request: PodRequest,
    card_policy: str,
    quota: Quotas | None,
    request_scored: bool,
    by_price: bool = False,
    spread: bool | None = False,
) -> Ask:
    left: dict[VendorWord, tuple[int | None, int | None]] = {}
    if quota is not None:
        namespace = request.key.namespace
        for vendor in request.vendors:
            limits = quota.limits(namespace, vendor)
            memory_mib, cores = ledger.namespace_usage(namespace, vendor)
            left[vendor] = (
                None if limits.memory_mib is None else limits.memory_mib - memory_mib,
                None if limits.cores is None else limits.cores - cores,
            )
    return ledger.table.pack(
        request,
        ledger.registry,
        card_policy_word=request.card_policy or card_policy,
        left=left,
        request_scored=request_scored,
        by_price=by_price,
        spread=spread,
    )


def _families(request: PodRequest, registry: Registry) -> list[Vendor]:
    """The families that a request asks for, as its packed form numbers them."""
    asked = dict.fromkeys(need.vendor for container in request.containers for need in container.needs)
    return [registry[vendor] for vendor in asked]


def _settled(ledger: Ledger, request: PodRequest, chosen: Assignment, families: Sequence[Vendor]) -> Assignment:
    """The assignment with what those of its families add that give out single units of a device."""
    if not any(vendor.settle is not None for vendor in families):
        return chosen
    segments = dict(chosen.segments)
    roles = tuple(container.role for container in request.containers)
    inventories = ledger.nodes[chosen.node].inventories
    for vendor in families:
        if vendor.settle is not None:
            own = (inventory.devices for inventory in inventories if inventory.vendor == vendor.name)
            devices = {device.uuid: device for listed in own for device in listed}
            shares = ledger.shares_on(chosen.node, vendor.name)
            segments[vendor.name] = vendor.settle(segments[vendor.name], roles, devices, shares)
    return replace(chosen, segments=segments)


def _refusal(
    packed: bytes, families: Sequence[Vendor], told: dict[tuple[bytes, int], Mapping[Why, int]] | None = None
) -> NodeRefusal:
    """A tally as a value; `told` keeps the counts, which are few different ones even where the free amounts differ."""
    devices, largest_free_mib, family, cores, part_a, part_b = _AMOUNTS.unpack_from(packed, _COUNTED)
    vendor = families[family]
    key = packed[:_COUNTED], family
    if told is None or (counts := told.get(key)) is None:
        counted = enumerate(memoryview(packed)[:_COUNTED].cast("i"))
        counts = {Why(number): count for number, count in counted if count}
        counts = counts if vendor.reasons is None else vendor.reasons(counts)
        if told is not None:
            told[key] = counts
    return NodeRefusal(
        counts=counts,
        devices=devices,
        largest_free_mib=largest_free_mib,
        largest_free_cores=cores - 1 if cores else None,
        largest_free_parts=(part_a - 1 if part_a else None, part_b - 1 if part_b else None),
        vendor=vendor.name,
    )
