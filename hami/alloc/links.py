"""Pair scores of the nodes' cards, compiled once for all nodes of one build.

Nodes with equal matrices share one number, and by it one set of tables; the tables are filled when the first request
needs them, and go when the last such node goes.
"""

from collections.abc import Mapping, Sequence

from hami.alloc import topology
from hami.alloc._topology import Links as Tables
from hami.alloc.topology import Matrix
from hami.model.device import Links
from hami.model.names import DeviceUuid, NodeName, VendorWord


class LinkTables:
    """Hands out numbers of matrices by content."""

    def __init__(self) -> None:
        self.tables: list[Tables | None] = []
        """By number, None where a number is free."""
        self._users: list[int] = []
        self._numbers: dict[Matrix, int] = {}
        self._of_node: dict[NodeName, int] = {}
        self._ready: set[tuple[int, bool]] = set()

    def connect(
        self,
        name: NodeName,
        cards: Sequence[tuple[VendorWord, DeviceUuid]],
        links: Mapping[VendorWord, Links],
    ) -> int:
        """The number of the matrix of a node's cards, in the order given, or -1 when nothing is known of them.

        Cards of different families are not linked.
        """
        scores = _matrix(cards, links)
        if scores is None:
            return -1
        number = self._numbers.get(scores)
        if number is None:
            number = next((i for i, known in enumerate(self.tables) if known is None), len(self.tables))
            if number == len(self.tables):
                self.tables.append(None)
                self._users.append(0)
            self.tables[number] = topology.compiled(scores)
            self._numbers[scores] = number
            self._ready.clear()
        self._users[number] += 1
        self._of_node[name] = number
        return number

    def disconnect(self, name: NodeName) -> None:
        """The node is gone, or comes again with other cards."""
        number = self._of_node.pop(name, None)
        if number is None:
            return
        self._users[number] -= 1
        if not self._users[number]:
            self._numbers = {scores: known for scores, known in self._numbers.items() if known != number}
            self.tables[number] = None

    def prepare(self, want: int, joined: bool) -> None:
        """Fill in what a request for so many cards looks up."""
        if (want, joined) not in self._ready:
            for tables in self.tables:
                if tables is not None:
                    tables.make_ready(want, joined)
            self._ready.add((want, joined))


def _matrix(cards: Sequence[tuple[VendorWord, DeviceUuid]], links: Mapping[VendorWord, Links]) -> Matrix | None:
    if not links or len(cards) > topology.MOST_CARDS:
        return None
    rows = [[0] * len(cards) for _ in cards]
    for vendor, known in links.items():
        places = [i for i, (family, _) in enumerate(cards) if family == vendor]
        scores = topology.matrix([cards[i][1] for i in places], known)
        for i, row in zip(places, scores or (), strict=False):
            for j, score in zip(places, row, strict=True):
                rows[i][j] = score
    return tuple(map(tuple, rows)) if any(map(any, rows)) else None
