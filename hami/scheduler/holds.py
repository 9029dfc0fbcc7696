"""Decisions that are not bound yet. They count in the ledger like bound pods, so nobody gets the same devices twice.

A hold ends in one of four ways: the watch shows its pod bound (the picture's record takes over), its pod is gone, its
pod is filtered again, or five minutes pass without a bind. While a Binding is under way, and after it has succeeded, it
does not end by time: only the watch ends it then, because what we know of the pod is older than what the API server
knows. Pods that another HAMi scheduler has decided about, but not bound, are held the same way for five minutes.
"""

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from hami.alloc.ledger import Ledger, hold_of
from hami.alloc.record import ForeignHold
from hami.model.claim import Assignment, PodRecord, PodRequest
from hami.model.names import NodeName, PodUid

REMEMBERED: Final = 2000
"""Pods remembered as gone; kube-scheduler's calls are seconds behind a deletion, not thousands of pods."""


class State(enum.Enum):
    """How far a decision has come."""

    HELD = "held"
    BINDING = "binding"
    """A Binding is under way: its outcome is not known here."""
    BOUND = "bound"
    """The Binding has succeeded; the watch has not shown it yet."""
    UNSURE = "unsure"
    """The Binding's answer is lost and the pod could not be read back: it may be bound."""
    FOREIGN = "foreign"
    """Another scheduler's decision."""


@dataclass(slots=True, kw_only=True)
class Hold:
    """One decision in memory. Times are the event loop's, in seconds."""

    record: PodRecord
    since: float
    state: State = State.HELD
    request: PodRequest | None = None
    """None for another scheduler's."""
    assignment: Assignment | None = None
    earlier_keys: frozenset[str] = frozenset()
    """Allocation annotations that an earlier attempt left on the pod."""
    scores: tuple[tuple[NodeName, float], ...] = ()
    """Every fitting node, best first."""
    decided: int = 0
    """When the other scheduler decided, by its own clock."""


class Holds:
    """All holds by pod. Everything is synchronous; the ledger always agrees with it."""

    def __init__(self, ledger: Ledger, *, timeout_s: float = 300.0) -> None:
        self._ledger = ledger
        self._timeout_s = timeout_s
        self._by_uid: dict[PodUid, Hold] = {}
        self._gone: dict[PodUid, None] = {}
        self._look_again = float("inf")
        """Before this moment nothing can expire."""

    def __len__(self) -> int:
        return len(self._by_uid)

    def __iter__(self) -> Iterator[Hold]:
        return iter(tuple(self._by_uid.values()))

    def get(self, uid: PodUid) -> Hold | None:
        return self._by_uid.get(uid)

    def put(
        self,
        request: PodRequest,
        assignment: Assignment,
        *,
        now: float,
        earlier_keys: Iterable[str] = (),
        scores: tuple[tuple[NodeName, float], ...] = (),
    ) -> Hold:
        """Hold a decision, in place of an earlier one for the same pod."""
        hold = Hold(
            record=hold_of(request, assignment),
            since=now,
            request=request,
            assignment=assignment,
            earlier_keys=frozenset(earlier_keys),
            scores=scores,
        )
        self._keep(hold)
        return hold

    def release(self, uid: PodUid) -> bool:
        """Give a hold's devices back; False if there is none."""
        hold = self._by_uid.pop(uid, None)
        if hold is None:
            return False
        # Another record may have taken its place in the meantime: the watch knows better.
        if self._ledger.pod(uid) == hold.record:
            self._ledger.drop_pod(uid)
        return True

    def settle(self, hold: Hold, state: State) -> None:
        """A Binding has ended: BOUND, UNSURE, or HELD for one that failed for certain, which gives the devices back.

        A hold that the watch has ended meanwhile stays ended.
        """
        if self._by_uid.get(hold.record.uid) is not hold:
            return
        hold.state = state
        if state is State.HELD:
            self.release(hold.record.uid)

    def saw_bound(self, uid: PodUid) -> None:
        """The watch shows the pod bound, and the picture has its record: nothing is left to hold."""
        self._by_uid.pop(uid, None)

    def saw_gone(self, uid: PodUid) -> None:
        """The pod is gone, and the picture has dropped what it held."""
        self._by_uid.pop(uid, None)
        self._gone[uid] = None
        if len(self._gone) > REMEMBERED:
            del self._gone[next(iter(self._gone))]

    def is_gone(self, uid: PodUid) -> bool:
        """Whether the watch has shown the end of this pod lately: a hold for it would wait for nothing."""
        return uid in self._gone

    def saw_unbound(self, uid: PodUid, foreign: ForeignHold | None, *, now: float) -> bool:
        """The watch shows the pod, not bound; True = devices freed. Our own decision stands."""
        hold = self._by_uid.get(uid)
        if hold is not None and hold.state is not State.FOREIGN:
            return False
        if foreign is None:
            return self.release(uid)
        if hold is None or (hold.record, hold.decided) != (foreign.record, foreign.decided):
            self._keep(Hold(record=foreign.record, since=now, state=State.FOREIGN, decided=foreign.decided))
        return False

    def expire(self, now: float) -> int:
        """Release what has waited too long for its bind; how many."""
        if now < self._look_again:
            return 0
        waiting = [hold for hold in self._by_uid.values() if hold.state in (State.HELD, State.FOREIGN)]
        late = [hold.record.uid for hold in waiting if now - hold.since >= self._timeout_s]
        for uid in late:
            self.release(uid)
        times = (hold.since for hold in waiting if now - hold.since < self._timeout_s)
        self._look_again = min(times, default=float("inf")) + self._timeout_s
        return len(late)

    def reconcile(self, present: Iterable[PodUid], *, since: float) -> int:
        """After a listing that began at `since`: holds older than it whose pod was not in it have no pod any more."""
        seen = frozenset(present)
        lost = [
            uid
            for uid, hold in self._by_uid.items()
            if hold.since < since and uid not in seen and hold.state is not State.BINDING
        ]
        for uid in lost:
            self.release(uid)
        return len(lost)

    def _keep(self, hold: Hold) -> None:
        self._by_uid[hold.record.uid] = hold
        self._ledger.put_pod(hold.record)
        self._look_again = min(self._look_again, hold.since + self._timeout_s)
