"""Which cards of a node belong together: exact choice by the links between them.

The typed face of `_topology`. Pair scores come from the node (PCIe distance and NVLinks added up; a pair with an NVLink
scores at least 100). Of all sets that are equally good by the policy, the one with the highest sum of pair scores is
taken; of several, the one that leaves the best rest: the best pair, quad and octet among the cards still free, an
average link counting alike in each. For one card that is the card whose removal leaves the best rest. What is still
equal stands in the order of preference given.

Exact up to 16 cards. Above, cards that are linked alike are counted by class; counts are searched most together first,
up to `MOST_TRIES` combinations, and the rest is judged by what a single class would still give.
"""

from collections.abc import Collection, Sequence
from typing import Final

from hami.alloc import _topology
from hami.model.device import Links
from hami.model.names import DeviceUuid, WireError

FAST_LINK: Final = 100
"""Pair score from which on two cards are joined by NVLink: PCIe alone gives at most 60."""
MOST_SCORE: Final = 2**20
"""Pair scores are cut here, so that sums over sixteen cards fit 32 bits."""
MOST_CARDS: Final = _topology.NUMBERS["MOST_CARDS"]
MOST_EXACT: Final = _topology.NUMBERS["MOST_EXACT"]

Matrix = tuple[tuple[int, ...], ...]
"""Symmetric pair scores in the order of a node's cards."""


def matrix(devices: Sequence[DeviceUuid], links: Links) -> Matrix | None:
    """Pair scores of these cards; None where nothing is known, or there are too many to choose by links.

    A pair that both cards score differently counts with the lower one: a link that only one end sees is none.
    """
    if not 0 < len(devices) <= MOST_CARDS:
        return None
    rows = {uuid: dict(row) for uuid, row in links.scores}
    empty: dict[DeviceUuid, int] = {}
    found = tuple(
        tuple(
            0 if a == b else max(0, min(rows.get(a, empty).get(b, 0), rows.get(b, empty).get(a, 0), MOST_SCORE))
            for b in devices
        )
        for a in devices
    )
    return found if any(map(any, found)) else None


def check_links(links: Links, field: str) -> WireError | None:
    """The first pair that its two cards score differently, told as a problem; it is not a reason to refuse the node."""
    rows = {uuid: dict(row) for uuid, row in links.scores}
    for a, row in rows.items():
        for b, score in row.items():
            back = rows[b].get(a, 0) if b in rows else 0
            if a != b and back != score:
                return WireError(f"{field}.score", f"the same score from both ends of {a} and {b}", (score, back))
    return None


def compiled(scores: Matrix) -> _topology.Links:
    """The tables of one matrix. Nodes with equal matrices should share them."""
    joined = [[score >= FAST_LINK for score in row] for row in scores]
    return _topology.Links([list(row) for row in scores], joined)


def choose(
    links: _topology.Links,
    order: Sequence[int],
    want: int,
    *,
    sure: int = 0,
    others: Sequence[int] = (),
    joined: bool = False,
) -> tuple[int, ...] | None:
    """`want` cards (positions in the matrix): the first `sure` of `order`, and the best of the others in it.

    `order` is by preference; `others` are free cards that may not be taken but count in the rest. None when there are
    too few, or none of the sets is joined by fast links among itself where `joined` asks for it.
    """
    if not sure <= want <= len(order):
        return None
    found = links.choose(list(order), sure, want, list(others), joined)
    return None if found is None else tuple(found)


def prefer(
    links: Links | None, available: Sequence[DeviceUuid], required: Collection[DeviceUuid], want: int
) -> tuple[DeviceUuid, ...]:
    """`want` of the available cards, the required ones among them, for a node's own choice (kubelet's question).

    Ties stand in the order of `available`. All of them where there are no more than wanted.
    """
    cards = [*(uuid for uuid in available if uuid in required), *(uuid for uuid in available if uuid not in required)]
    sure = sum(uuid in required for uuid in available)
    if want >= len(cards) or want <= sure:
        return tuple(cards[: max(want, 0)])
    scores = None if links is None else matrix(cards, links)
    if scores is None:
        return tuple(cards[:want])
    found = choose(compiled(scores), range(len(cards)), want, sure=sure)
    return tuple(cards[:want]) if found is None else tuple(cards[card] for card in found)
