"""Memory caps that the driver holds for granted containers: set once a container's first process runs, kept, let go.

The vendor's own start-up hook may have set the same cap before; then there is nothing to do but to watch it. Between a
container's start and the first look at it our library alone holds the limit.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hami.model.claim import Share
from hami.model.names import DeviceUuid
from hami.node.cgroups import Cgroups
from hami.node.driver_cap import NO_LIMIT, CapError, DriverCap
from hami.node.grants import Grant

log = logging.getLogger(__name__)

MIB: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a look at one container's caps has shown."""

    held: bool = False
    """Every device of the grant is capped now."""
    changed: tuple[DeviceUuid, ...] = ()
    """Devices whose cap somebody had changed or taken away since the last look; it is back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Put:
    """A cap as it was read back after it had been set: drivers may round."""

    group: Path
    wanted: int
    hard: int


@dataclass(slots=True)
class ContainerCaps:
    """The caps of one node. Every call may block for milliseconds and belongs in a worker thread."""

    driver: DriverCap
    groups: Cgroups
    scaled: bool
    """More memory is given out than there is: a cap of that size would mean nothing, so there is none."""
    _put: dict[tuple[str, DeviceUuid], _Put] = field(default_factory=dict)
    _told: dict[str, str] = field(default_factory=dict)

    def can_hold(self, shares: Sequence[Share]) -> bool:
        """Whether the driver can hold the memory of each of a container's shares."""
        return (
            not self.scaled
            and bool(shares)
            and all(
                share.memory_mib > 0
                and self.driver.offered(share.uuid)
                and share.memory_mib * MIB <= self.driver.total(share.uuid)
                for share in shares
            )
        )

    def keep(self, grant: Grant) -> Kept:
        """Have the caps of a settled grant's container, if it runs."""
        group = self._group(grant)
        if group is None or not self.can_hold(grant.shares):
            return Kept()
        try:
            changed = [share.uuid for share in grant.shares if self._keep(grant.id, share, group)]
        except CapError as error:
            if self._told.get(grant.id) != str(error):
                self._told[grant.id] = str(error)
                log.warning("grant %s is not capped by the driver: %s", grant.id, error)
            return Kept()
        self._told.pop(grant.id, None)
        return Kept(held=True, changed=tuple(changed))

    def _keep(self, grant_id: str, share: Share, group: Path) -> bool:
        """Have one cap; whether somebody had changed it."""
        wanted = share.memory_mib * MIB
        known = self._put.get((grant_id, share.uuid))
        if known is not None and (known.group, known.wanted) != (group, wanted):
            known = None  # another container's, or another amount
        state = self.driver.get(share.uuid, group)
        hard = state.hard if state is not None else NO_LIMIT
        if hard == wanted or (known is not None and hard == known.hard):
            if known is None:
                self._put[grant_id, share.uuid] = _Put(group=group, wanted=wanted, hard=hard)
            return False
        self.driver.put(share.uuid, group, wanted)
        state = self.driver.get(share.uuid, group)
        if state is None or state.hard == NO_LIMIT:
            raise CapError(f"{group}: the driver took the limit of device {share.uuid} and does not hold it")
        self._put[grant_id, share.uuid] = _Put(group=group, wanted=wanted, hard=state.hard)
        log.info("grant %s: the driver holds device %s to %d MiB for %s", grant_id, share.uuid, share.memory_mib, group)
        return known is not None

    def used(self, grant: Grant) -> Mapping[DeviceUuid, int]:
        """Bytes that the container holds by the driver's own count, contexts included, where it is capped."""
        group = self._group(grant) if self.can_hold(grant.shares) else None
        if group is None:
            return {}
        found = {}
        for share in grant.shares:
            try:
                state = self.driver.get(share.uuid, group)
            except CapError:
                continue  # `keep` says so
            if state is not None:
                found[share.uuid] = state.used
        return found

    def over(self, grant: Grant) -> None:
        """Let go of a grant that is over, should its container's group outlast it."""
        for share in grant.shares:
            put = self._put.pop((grant.id, share.uuid), None)
            if put is not None and put.group.is_dir():
                try:
                    self.driver.clear(share.uuid, put.group)
                except CapError as error:
                    log.warning("the cap of grant %s cannot be taken away: %s", grant.id, error)
        self._told.pop(grant.id, None)
        if grant.holder is not None:
            self.groups.forget(grant.id, grant.holder.pod_uid)

    def _group(self, grant: Grant) -> Path | None:
        return self.groups.of(grant.id, grant.holder.pod_uid) if grant.holder is not None else None
