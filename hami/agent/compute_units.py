"""Which compute units of a device each container has, of families whose containers are told single ones.

Kept in a file, because containers outlive the agent. An allocation's text says how many units, never which.
"""

import logging
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Final

import orjson

from hami.model.names import DeviceUuid, PodUid
from hami.node.atomic import write_atomically

log = logging.getLogger(__name__)

FILE: Final = "units.json"
"""`{"<uuid>": {"<pod uid>/<position>": [0, 1, ...]}}`"""

Holder = tuple[PodUid, int]
"""A container: its pod, and its position among the pod's containers, init containers first."""


class ComputeUnits:
    """The units of one node's devices."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where the file is, or will be once a unit is taken."""
        self._path = folder / FILE
        self._taken: dict[DeviceUuid, dict[Holder, tuple[int, ...]]] = {}
        try:
            self._taken = _read(self._path.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("%s cannot be read, so new containers may be given units of older ones: %r", self._path, error)

    def keep(self, alive: Collection[PodUid]) -> None:
        """Only these pods hold anything."""
        for uuid, holders in list(self._taken.items()):
            kept = {holder: units for holder, units in holders.items() if holder[0] in alive}
            if kept:
                self._taken[uuid] = kept
            else:
                del self._taken[uuid]

    def choose(
        self,
        device: DeviceUuid,
        want: int,
        total: int,
        holder: Holder,
        *,
        pairs: bool = False,
        ended: Collection[Holder] = (),
    ) -> tuple[int, ...]:
        """The first `want` of a device's `total` units that nobody else has; at least one, if need be somebody's.

        `pairs`: in pairs of an even unit and the next, half as many as wanted, rounded down. Pairs of small shares are
        more than these were booked, so the last one may get fewer. `ended` containers will not run beside this one.
        """
        holders = self._taken.setdefault(device, {})
        others = [units for other, units in holders.items() if other != holder and other not in ended]
        used = Counter(unit for units in others for unit in units)
        size = 2 if pairs else 1
        groups = [range(first, min(first + size, total)) for first in range(0, total, size)]
        free = [group for group in groups if not any(used[unit] for unit in group)]
        count = len(groups) if want >= total else max(1, want // size)
        least = sorted(groups, key=lambda group: sum(used[unit] for unit in group))
        chosen = free[:count] or least[:1]
        holders[holder] = tuple(unit for group in chosen for unit in group)
        return holders[holder]

    def save(self) -> None:
        """Raises OSError."""
        document = {
            uuid: {f"{uid}/{position}": units for (uid, position), units in holders.items()}
            for uuid, holders in self._taken.items()
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, orjson.dumps(document))

    def held(self) -> dict[DeviceUuid, dict[Holder, tuple[int, ...]]]:
        """Who has which units, by device."""
        return {uuid: dict(holders) for uuid, holders in self._taken.items()}


def _read(data: bytes) -> dict[DeviceUuid, dict[Holder, tuple[int, ...]]]:
    """Raises ValueError, TypeError or AttributeError for another document."""
    found: dict[DeviceUuid, dict[Holder, tuple[int, ...]]] = {}
    for uuid, holders in orjson.loads(data).items():
        mine = found.setdefault(DeviceUuid(uuid), {})
        for name, units in holders.items():
            uid, _, position = name.rpartition("/")
            mine[PodUid(uid), int(position)] = tuple(int(unit) for unit in units)
    return found
