"""Keeping what settled grants promise: limits in the shared region, which its container can write, and in the driver.

A look a second. What somebody changed is put back, and its pod gets one event that says so: a container that goes on
changing it is told once, and held all the same.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import anyio

from hami.agent.caps import ContainerCaps
from hami.model.claim import Share
from hami.model.names import PodKey, PodUid
from hami.node.grants import Grant, State

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0
CHANGED: Final = "LimitChanged"
"""Reason word of the event."""


class GuardedRegions(Protocol):
    """What the guard asks of the shared regions."""

    def reassert(self, grant: Grant) -> str:
        """Put back a region's limits, or the region; what had been changed, empty where nothing was. Raises OSError."""
        ...


class GuardedGrants(Protocol):
    """What the guard asks of the grants."""

    @property
    def grants(self) -> Sequence[Grant]: ...

    async def enforced(self, grant_id: str, enforcer: str) -> None:
        """Somebody else holds a running container's limits now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """One grant's look."""

    grant: Grant
    changed: tuple[str, ...] = ()
    capped: bool = False


@dataclass(slots=True)
class Guard:
    """The looks, one after another."""

    grants: GuardedGrants
    regions: GuardedRegions
    caps: ContainerCaps | None
    """None: this node's driver is asked to hold nothing."""
    tell: Callable[[PodKey, PodUid, str, str], None]
    _told: set[tuple[str, str]] = field(default_factory=set)
    """Grants and what was told of them."""
    _known: dict[str, Grant] = field(default_factory=dict)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await anyio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """One look at every settled grant."""
        settled = [grant for grant in self.grants.grants if grant.state is State.SETTLED and not grant.mig]
        for seen in await anyio.to_thread.run_sync(self._look_at_all, settled):
            grant = seen.grant
            for what in seen.changed:
                self._tell(grant, what)
            if seen.capped and grant.enforced_by == "library":
                await self.grants.enforced(grant.id, "driver")

    def _look_at_all(self, settled: Sequence[Grant]) -> list[_Seen]:
        found = [self._look_at(grant) for grant in settled]
        now = {grant.id: grant for grant in settled}
        for grant_id, grant in self._known.items():
            if grant_id not in now:
                if self.caps is not None:
                    self.caps.over(grant)
                self._told = {(told, what) for told, what in self._told if told != grant_id}
        self._known = now
        return found

    def _look_at(self, grant: Grant) -> _Seen:
        changed = []
        try:
            if what := self.regions.reassert(grant):
                changed.append(what)
        except OSError as error:
            log.warning("the region of grant %s cannot be put right: %s", grant.id, error)
        if self.caps is None:
            return _Seen(grant=grant, changed=tuple(changed))
        kept = self.caps.keep(grant)
        if kept.changed:
            changed.append(f"the driver's limit of {', '.join(kept.changed)}")
        return _Seen(grant=grant, changed=tuple(changed), capped=kept.held)

    def _tell(self, grant: Grant, what: str) -> None:
        if grant.holder is None or (grant.id, what) in self._told:
            return
        self._told.add((grant.id, what))
        log.warning("%s %s: somebody changed %s; it is put back", grant.holder.key, grant.holder.container, what)
        amounts = ", ".join(_amount(share) for share in grant.shares)
        self.tell(
            grant.holder.key,
            grant.holder.pod_uid,
            CHANGED,
            f"somebody changed {what} of container {grant.holder.container}; it is {amounts} again",
        )


def _amount(share: Share) -> str:
    memory = f"{share.memory_mib} MiB" if share.memory_mib else "all memory"
    return f"{memory} and {share.cores} % of {share.uuid}" if share.cores else f"{memory} of {share.uuid}"
