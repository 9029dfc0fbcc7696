"""The node lock, taken before a bind where a foreign plug-in relies on it. The plug-in releases it.

Binds for one node queue here in order of arrival instead of failing, because every failed bind costs the pod a back-off
in kube-scheduler. What may be done about a lock is decided in `hami.alloc.nodelock`; this module reads and writes.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio

from hami.alloc import nodelock
from hami.alloc.nodelock import Step
from hami.kube.client import Json, Kube
from hami.kube.errors import Conflict, NotFound
from hami.model.names import NodeName, PodKey, WireError
from hami.model.settings import SchedulerSettings
from hami.model.wire import pod as keys
from hami.scheduler.clock import Clock

BARE_S: Final = 120.0
"""A lock of a family's own is a time and nothing else, and ends by itself after this long."""
LOOK_S: Final = 1.0
"""A waiting bind looks at the node again after this time, or when the node changes."""


class LockError(Exception):
    """The lock was not obtained; the text is the bind's error."""


class NodeLocks:
    """Takes and gives back locks on nodes, one claimant of ours at a time."""

    def __init__(self, kube: Kube, settings: SchedulerSettings, clock: Clock) -> None:
        self._kube = kube
        self._settings = settings
        self._clock = clock
        self._queues: dict[NodeName, anyio.Lock] = {}
        self._changed: dict[NodeName, anyio.Event] = {}
        self._ours: dict[tuple[NodeName, str], tuple[str, PodKey]] = {}
        """Locks of families' own that we took: the text cannot say for whom, so it is remembered here."""

    def node_changed(self, node: NodeName) -> None:
        """The watch has shown a change of a node: whoever waits for its lock looks again."""
        if (event := self._changed.pop(node, None)) is not None:
            event.set()

    async def acquire(
        self, node: NodeName, claimant: PodKey, gone: anyio.Event, *, most_s: float, key: str = keys.NODE_LOCK
    ) -> None:
        """Hold the node's lock for `claimant`. A `key` other than the common one is a lock of one family's.

        Raises LockError after `most_s` or what settings allow, or when the caller is `gone`; KubeError when the API
        server cannot be asked.
        """
        deadline = self._clock.monotonic() + min(most_s, self._settings.node_lock_retry_timeout_s)
        async with self._queued(node):
            while True:
                verdict = await self._try(node, claimant, key)
                if verdict is None:
                    return
                if gone.is_set():
                    raise LockError(f"the caller went away while waiting for node {node}")
                left = deadline - self._clock.monotonic()
                if left <= 0:
                    raise LockError(verdict)
                changed = self._changed.setdefault(node, anyio.Event())
                with anyio.move_on_after(min(left, LOOK_S)):
                    await changed.wait()

    async def release(self, node: NodeName, owner: PodKey, key: str = keys.NODE_LOCK) -> None:
        """Give a lock back, if it still is `owner`'s; somebody else's is left alone."""
        for _ in range(5):
            try:
                text, version = _lock_of(await self._kube.node(node), key)
                if not nodelock.may_release(self._named(node, key, text), owner):
                    return
                await self._kube.annotate_node(node, {key: None}, resource_version=version)
            except Conflict:
                continue
            except NotFound:
                return
            else:
                return

    async def _try(self, node: NodeName, claimant: PodKey, key: str) -> str | None:
        """One attempt: None when the lock is ours, else why it is not."""
        bare = key != keys.NODE_LOCK
        text, version = _lock_of(await self._kube.node(node), key)
        text = self._named(node, key, text)
        owner = nodelock.lock_owner(text)
        try:
            verdict = nodelock.acquire(
                text,
                claimant=claimant,
                node=node,
                owner=None if owner is None else await self._pod(owner),
                now_unix=self._clock.unix(),
                timeout_s=BARE_S if bare else self._settings.node_lock_timeout_s,
            )
        except WireError as error:
            raise LockError(f"node {node}: {error}") from error
        match verdict.step:
            case Step.OURS:
                return None
            case Step.WAIT:
                return verdict.reason
            case Step.SET | Step.TAKE_OVER:
                since = self._clock.unix()
                value = keys.rfc3339(since) if bare else keys.write_lock(since, claimant)
                try:
                    await self._kube.annotate_node(node, {key: value}, resource_version=version)
                except Conflict:
                    return f"node {node} changed while its lock was taken: node lock contention"
                if bare:
                    self._ours[node, key] = value, claimant
                return None

    def _named(self, node: NodeName, key: str, text: str | None) -> str | None:
        """A lock's text with the owner that we remember of it."""
        value, owner = self._ours.get((node, key), ("", None))
        if owner is None or text != value:
            self._ours.pop((node, key), None)
            return text
        return f"{text},{owner.namespace},{owner.name}"

    async def _pod(self, key: PodKey) -> Json | None:
        try:
            return await self._kube.pod(*key)
        except NotFound:
            return None

    @asynccontextmanager
    async def _queued(self, node: NodeName) -> AsyncIterator[None]:
        lock = self._queues.setdefault(node, anyio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and self._queues.get(node) is lock:
                del self._queues[node]


def _lock_of(node: Json, key: str) -> tuple[str | None, str]:
    metadata = node.get("metadata") or {}
    return (metadata.get("annotations") or {}).get(key), str(metadata.get("resourceVersion") or "")
