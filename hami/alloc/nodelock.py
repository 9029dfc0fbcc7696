"""The node lock, as plug-ins of other makers expect it: whether a pod may take it, and whether one may be removed.

HAMi lets one pod a node through at a time by an annotation with the pod's name. Our own agent needs no lock; families
served by a foreign plug-in do. A lock guards the time from a bind to the end of `Allocate`, so one whose owner has
passed that time, or can never reach it, is broken at once instead of after five minutes.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hami.alloc.record import FINISHED
from hami.model.names import NodeName, PodKey, WireError
from hami.model.wire import pod as keys
from hami.model.wire.pod import NodeLock

UNBOUND_S: Final = 10.0
"""How long an owner may be neither bound nor promised to a node: the time between taking the lock and the binding."""


class Step(enum.Enum):
    """What to do about a lock before a bind."""

    SET = "set"
    """There is none: write ours."""
    OURS = "ours"
    """It is ours already (a repeated bind): go on."""
    TAKE_OVER = "take over"
    """It protects nobody: replace it, on the condition that it has not changed meanwhile."""
    WAIT = "wait"
    """Another pod is being served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A step, and why; the text is what a waiting pod's event says."""

    step: Step
    reason: str = ""


def acquire(
    text: str | None,
    *,
    claimant: PodKey,
    node: NodeName,
    owner: Mapping[str, Any] | None,
    now_unix: float,
    timeout_s: float = 300.0,
) -> Verdict:
    """Whether `claimant` may have the lock whose value is `text` (None: no annotation).

    `owner` is the pod that the lock names as the API server has it now, None when there is none. Raises `WireError`
    for a value that is no lock at all: someone else's format is not broken silently.
    """
    if text is None or not text:
        return Verdict(step=Step.SET)
    lock = keys.read_lock(text)
    if lock.owner == claimant:
        return Verdict(step=Step.OURS)
    age = now_unix - lock.since
    if age > timeout_s:
        return Verdict(step=Step.TAKE_OVER, reason=f"older than {timeout_s:g}s")
    idle = None if lock.owner is None else _why_idle(owner, node, age)
    if idle is not None:
        return Verdict(step=Step.TAKE_OVER, reason=idle)
    held = "another pod" if lock.owner is None else str(lock.owner)
    return Verdict(
        step=Step.WAIT, reason=f"node {node} has been locked within {_go(timeout_s)}: node lock contention ({held})"
    )


def may_release(text: str | None, owner: PodKey) -> bool:
    """Whether the lock is there and is `owner`'s. A lock that names nobody is not ours to remove."""
    if not text:
        return False
    try:
        return keys.read_lock(text).owner == owner
    except WireError:
        return False


def lock_owner(text: str | None) -> PodKey | None:
    """The pod a lock names; None for no lock, or one without a readable name."""
    if not text:
        return None
    try:
        lock: NodeLock = keys.read_lock(text)
    except WireError:
        return None
    return lock.owner


def _why_idle(owner: Mapping[str, Any] | None, node: NodeName, age: float) -> str | None:
    """Why a lock's owner needs it no more; None when it may still need it."""
    if owner is None:
        return "its pod is gone"
    metadata, spec, status = (_part(owner, name) for name in ("metadata", "spec", "status"))
    notes = _part(metadata, "annotations")
    if status.get("phase") in FINISHED:
        return "its pod has ended"
    if notes.get(keys.BIND_PHASE) in (keys.SUCCESS, keys.FAILED):
        return "its pod has been served"
    bound = spec.get("nodeName")
    if bound and bound != node:
        return f"its pod runs on node {bound}"
    if not bound:
        promised = notes.get(keys.NODE)
        if promised and promised != node:
            return f"its pod is promised to node {promised}"
        if metadata.get("deletionTimestamp"):
            return "its pod is deleted before it was bound"
        if not promised and age > UNBOUND_S:
            return "its pod was never bound"
    return None


def _part(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    return value if isinstance(value, Mapping) else {}


def _go(seconds: float) -> str:
    """A duration as the reference's messages show it: `5m0s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
