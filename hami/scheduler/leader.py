"""Who decides: the replica whose kube-scheduler holds the Lease.

kube-scheduler elects; we only follow its Lease. What counts is the holder's host and that the Lease keeps moving, by
our own clock, because two hosts' clocks need not agree.
"""

from collections.abc import Mapping
from typing import Any, Final

from hami.kube.watch import Added, Deleted, Event, Listed, Modified

DURATION_S: Final = 15.0
"""kube-scheduler's default lease duration, for a Lease that does not say."""


class Leadership:
    """Whether this host's kube-scheduler is the active one. Fed with events of one Lease."""

    def __init__(self, host: str, *, elect: bool) -> None:
        """Without election (`elect` false) this process is always active."""
        self._host = host
        self._elect = elect
        self._holder = ""
        self._term: tuple[str, Any] = ("", None)
        self._renewed: object = None
        self._moved = float("-inf")
        self._duration_s = DURATION_S

    def active(self, now: float) -> bool:
        """Whether this process decides, at the event loop's time `now`."""
        return not self._elect or (self._is_ours() and now - self._moved < self._duration_s)

    def why_not(self, now: float) -> str:
        """What to tell a caller while not active."""
        if not self._holder:
            return "not active: nobody holds the scheduler's lease yet"
        if self._is_ours():
            return "not active: the scheduler's lease has run out"
        return f"not active: {self._holder} holds the scheduler's lease"

    def fold(self, event: Event, now: float) -> bool:
        """Take a Lease event over; True when another term has begun, so that everything must be listed afresh."""
        match event:
            case Listed():
                return False
            case Deleted():
                self._holder, self._term = "", ("", None)
                return False
            case Added(lease) | Modified(lease):
                spec = lease.get("spec")
                return self._take(spec if isinstance(spec, Mapping) else {}, now)

    def _take(self, spec: Mapping[str, Any], now: float) -> bool:
        holder = str(spec.get("holderIdentity") or "")
        term = (holder, spec.get("leaseTransitions"))
        changed = term != self._term
        renewed = spec.get("renewTime")
        if changed or renewed != self._renewed:
            self._moved = now
        duration = spec.get("leaseDurationSeconds")
        self._duration_s = float(duration) if isinstance(duration, int) and duration > 0 else DURATION_S
        self._holder, self._term, self._renewed = holder, term, renewed
        return changed

    def _is_ours(self) -> bool:
        # `<host>_<uuid>`: a host name that only begins like ours is another host.
        host, _, _ = self._holder.rpartition("_")
        return bool(host) and host == self._host
