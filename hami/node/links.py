"""Pair scores from what NVML says about PCIe and NVLink: higher is closer.

score(a, b) = PCIe relation + NVLink. The points are those every HAMi scheduler knows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from hami.model.device import Links
from hami.model.names import DeviceUuid

PCIE_POINTS: Final[Mapping[int, int]] = {0: 60, 10: 50, 20: 40, 30: 30, 40: 20, 50: 10}
"""By NVML's common-ancestor level: same board, one switch, several switches, host bridge, same NUMA node, neither."""
NVLINK_POINTS: Final = 100
MOST_LINKS: Final = 18
"""More links between a pair than this is no known machine and scores as none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighborhood:
    """What one card sees of the others."""

    uuid: DeviceUuid
    ancestors: Mapping[DeviceUuid, int]
    """NVML's common-ancestor level to each card it could tell."""
    direct: Mapping[DeviceUuid, int] = field(default_factory=dict)
    """Active NVLinks that end at another card."""
    to_switch: int = 0
    """Active NVLinks that end at an NVSwitch."""


def score_links(cards: Sequence[Neighborhood]) -> tuple[Links, tuple[tuple[DeviceUuid, DeviceUuid], ...]]:
    """The scores of all pairs, and the pairs that contradict themselves (each scores 0)."""
    asymmetric: list[tuple[DeviceUuid, DeviceUuid]] = []
    rows: dict[DeviceUuid, dict[DeviceUuid, int]] = {card.uuid: {} for card in cards}
    for i, a in enumerate(cards):
        for b in cards[i + 1 :]:
            there, back = _entries(a, b), _entries(b, a)
            if len(there) != len(back):
                asymmetric.append((a.uuid, b.uuid))
                there = back = ()
            rows[a.uuid][b.uuid] = sum(there)
            rows[b.uuid][a.uuid] = sum(back)
    links = Links(scores=tuple((uuid, tuple(sorted(row.items()))) for uuid, row in rows.items()))
    return links, tuple(asymmetric)


def _entries(a: Neighborhood, b: Neighborhood) -> tuple[int, ...]:
    """Points from a to b, one for each kind of link there is (PCIe, NVLink)."""
    found = []
    if (points := PCIE_POINTS.get(a.ancestors.get(b.uuid, -1))) is not None:
        found.append(points)
    links = a.direct.get(b.uuid, 0) or min(a.to_switch, b.to_switch)
    if 0 < links <= MOST_LINKS:
        found.append(NVLINK_POINTS * links)
    return tuple(found)
