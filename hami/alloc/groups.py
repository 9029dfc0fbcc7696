"""Families whose devices form groups, asked by number: the engine knows neither devices nor families.

A board is what the devices of one family on one node have to do with each other: their indices and what their plug-in
says of each. Nodes of one build share a board, and with it every answer. A kind of need is numbered likewise.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from hami.alloc._boards import Boards
from hami.model.device import Device
from hami.model.names import VendorWord
from hami.model.vendor import Choose, Registry, Spot, Wanted

MOST_SPOTS: Final = 64
"""Devices of one such family on a node (`_boards.pxd`); a node with more offers none of them."""
MOST_WANTED: Final = 4096
"""Kinds of needs kept; pods of one workload ask alike."""
MOST_ANSWERS: Final = 65536
"""Answers kept by the order that the card policy prefers."""

Facts = Mapping[str, str | int | float | bool]
_Answer = tuple[tuple[int, ...], float] | None


class Groups:
    """Boards and kinds of needs by number, and what families choose."""

    def __init__(self, registry: Registry, boards: Boards) -> None:
        self._choosers: dict[VendorWord, Choose] = {
            vendor.name: vendor.choose for vendor in registry if vendor.choose is not None
        }
        self._boards = boards
        self._numbers: dict[tuple[VendorWord, tuple[object, ...]], int] = {}
        self._places: list[tuple[VendorWord, tuple[tuple[int, Facts], ...]]] = []
        self._wanted: dict[Wanted, int] = {}
        self._wanted_by_number: list[Wanted] = []
        self._answers: dict[tuple[int, int, tuple[int, ...], int, int], _Answer] = {}
        boards.choose_by = self._choose

    def lay(self, cards: Sequence[tuple[VendorWord, Device]]) -> Iterator[tuple[int, int, int]]:
        """Position, board and spot of every card of a node; board -1 where its family knows no groups."""
        for position in range(len(cards)):
            yield position, -1, 0
        for family in {vendor for vendor, _ in cards if vendor in self._choosers}:
            own = [(position, device) for position, (vendor, device) in enumerate(cards) if vendor == family]
            if len(own) > MOST_SPOTS:
                continue
            board = self._board(family, tuple(device for _, device in own))
            for spot, (position, _) in enumerate(own):
                yield position, board, spot

    def trim(self) -> bool:
        """Forget old kinds of needs where there are too many: then requests that were packed name numbers of others."""
        if len(self._wanted) < MOST_WANTED:
            return False
        self._wanted.clear()
        self._wanted_by_number.clear()
        self._answers.clear()
        self._boards.forget()
        return True

    def number(self, wanted: Wanted) -> int:
        """The number of a kind of need."""
        known = self._wanted.get(wanted)
        if known is None:
            known = self._wanted[wanted] = len(self._wanted_by_number)
            self._wanted_by_number.append(wanted)
        return known

    def _board(self, family: VendorWord, devices: tuple[Device, ...]) -> int:
        key = family, tuple((device.index, device.custom) for device in devices)
        known = self._numbers.get(key)
        if known is None:
            known = self._numbers[key] = len(self._places)
            self._places.append((family, tuple((device.index, dict(device.custom)) for device in devices)))
        return known

    def _choose(self, board: int, wanted: int, order: tuple[int, ...], idle: int, own: int) -> _Answer:
        key = board, wanted, order, idle, own
        if key not in self._answers:
            if len(self._answers) >= MOST_ANSWERS:
                self._answers.clear()
            family, places = self._places[board]
            spots = [
                Spot(index=index, facts=facts, idle=bool(idle >> spot & 1), own=bool(own >> spot & 1))
                for spot, (index, facts) in enumerate(places)
            ]
            chosen = self._choosers[family](spots, order, self._wanted_by_number[wanted])
            self._answers[key] = None if chosen is None else (chosen.places, chosen.rank)
        return self._answers[key]
