"""A request and candidate nodes in, a decision with its reasons out.

Pure and synchronous: nothing is held by deciding; the caller puts what it accepts into the ledger. All containers of a
pod are decided together. Requests land on cards in MIG mode only once instances are placed: until then such a card
refuses with `CardMigTopologyInfeasible`.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from hami.alloc._fit import NUMBERS, Ask
from hami.alloc.ledger import Ledger
from hami.alloc.policy import spreads_nodes
from hami.alloc.quota import Quotas
from hami.alloc.table import salt
from hami.model.claim import Assignment, NodeRefusal, Placed, PodRequest, Refused, Why
from hami.model.names import NodeName, PodUid, VendorWord

_DEVICES: Final = NUMBERS["DEVICES"]
_LARGEST_FREE: Final = NUMBERS["LARGEST_FREE"]
_BYTES: Final = 8 * NUMBERS["TALLY_WIDTH"]
_UNREGISTERED: Final = NodeRefusal(counts={Why.UNREGISTERED: 1})


class Refusals(Mapping[NodeName, NodeRefusal]):
    """Why each refusing candidate refuses, made into values only where somebody looks.

    A filter over thousands of nodes mostly wants the winner. Nodes that refuse for the same reasons and numbers share
    one value.
    """

    __slots__ = ("_index", "_made", "_names", "_tallies", "_unknown")

    def __init__(self, names: Sequence[NodeName], tallies: bytes, unknown: Sequence[str]) -> None:
        self._names = names
        self._tallies = tallies
        self._unknown = dict.fromkeys(unknown)
        self._index: dict[NodeName, int] | None = None
        self._made: dict[bytes, NodeRefusal] = {}

    def __len__(self) -> int:
        return len(self._names) + len(self._unknown)

    def __iter__(self) -> Iterator[NodeName]:
        yield from self._names
        yield from map(NodeName, self._unknown)

    def __getitem__(self, name: NodeName) -> NodeRefusal:
        if self._index is None:
            self._index = {known: position for position, known in enumerate(self._names)}
        position = self._index.get(name)
        if position is None:
            if name in self._unknown:
                return _UNREGISTERED
            raise KeyError(name)
        tally = self._tallies[position * _BYTES : (position + 1) * _BYTES]
        refusal = self._made.get(tally)
        if refusal is None:
            refusal = self._made[tally] = _refusal(tally)
        return refusal

    def __repr__(self) -> str:
        return f"Refusals({dict(self)!r})"


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
    the lowest, and equal nodes rank by a hash of pod and node. `request_scored` lets cards be ranked by their use with
    the request, instead of without it as HAMi does.
    """
    table = ledger.table
    spread = spreads_nodes(request.node_policy or node_policy)
    with ledger.without(exclude), table.marked(request):
        ask = _pack(ledger, request, card_policy, quota, request_scored)
        scores, best, refusing, tallies, unknown = table.rows.survey(
            ask, table.names, table.ids, nodes, salt(request.uid), spread
        )
        refusals = Refusals(refusing, tallies, unknown)
        if best < 0:
            return Refused(refusals=refusals)
        choices, _ = table.rows.assign(ask, best)
        assert choices is not None, "a surveyed node no longer fits"
        assignment = table.assignment(request, table.names[best], choices)
    return Placed(assignment=assignment, scores=scores, refusals=refusals)


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
        choices, tally = table.rows.assign(ask, number)
        if choices is None:
            return _refusal(tally)
        return table.assignment(request, node, choices)


def _pack(ledger: Ledger, request: PodRequest, card_policy: str, quota: Quotas | None, request_scored: bool) -> Ask:
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
    )


def _refusal(packed: bytes) -> NodeRefusal:
    tally = array("q", packed)
    counts = {Why(number): count for number, count in enumerate(tally[:_DEVICES]) if count}
    return NodeRefusal(counts=counts, devices=tally[_DEVICES], largest_free_mib=tally[_LARGEST_FREE])
