"""Pair scores of the nodes' cards as square matrices, one for all nodes of one build.

A matrix stands somewhere in one flat array, which the engine sees; what a node keeps is the place. A matrix that no
node uses any more makes room for the next one of its size.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hami.model.device import Links
from hami.model.names import DeviceUuid, NodeName, VendorWord

MOST_CARDS: Final = 128
"""Cards of a node whose links are kept; no machine has as many, and the matrix grows with the square."""


@dataclass(slots=True)
class _Shared:
    place: int
    size: int
    users: int = 0


class LinkMatrices:
    """Hands out places of matrices by content."""

    def __init__(self) -> None:
        self.pairs = array("i", [0])
        """All matrices one after another; replaced by a larger array when it grows."""
        self._shared: dict[bytes, _Shared] = {}
        self._of_node: dict[NodeName, bytes] = {}
        self._free: dict[int, list[int]] = {}

    def connect(
        self,
        name: NodeName,
        cards: Sequence[tuple[VendorWord, DeviceUuid]],
        links: Mapping[VendorWord, Links],
    ) -> int:
        """Where the matrix of a node's cards stands, in the order given, or -1 when nothing is known of them."""
        matrix = _matrix(cards, links)
        if not any(matrix):
            return -1
        key = matrix.tobytes()
        if key not in self._shared:
            self._shared[key] = _Shared(self._claim(matrix), len(matrix))
        self._shared[key].users += 1
        self._of_node[name] = key
        return self._shared[key].place

    def disconnect(self, name: NodeName) -> None:
        """The node is gone, or comes again with other cards."""
        key = self._of_node.pop(name, None)
        if key is None:
            return
        shared = self._shared[key]
        shared.users -= 1
        if not shared.users:
            del self._shared[key]
            self._free.setdefault(shared.size, []).append(shared.place)

    def _claim(self, matrix: "array[int]") -> int:
        if free := self._free.get(len(matrix)):
            place = free.pop()
            self.pairs[place : place + len(matrix)] = matrix
            return place
        place = len(self.pairs)
        self.pairs = self.pairs + matrix
        return place


def _matrix(cards: Sequence[tuple[VendorWord, DeviceUuid]], links: Mapping[VendorWord, Links]) -> "array[int]":
    """Pair scores row by row; empty when there are none, or too many cards."""
    size = len(cards)
    if not links or size > MOST_CARDS:
        return array("i")
    matrix = array("i", bytes(4 * size * size))
    position = {card: i for i, card in enumerate(cards)}
    for vendor, known in links.items():
        for uuid, row in known.scores:
            left = position.get((vendor, uuid))
            if left is None:
                continue
            for other, score in row:
                right = position.get((vendor, other), left)
                if right != left:
                    matrix[left * size + right] = score
    return matrix
