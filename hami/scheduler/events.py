"""Events on pods and nodes, written in the background: no decision ever waits for one.

The same thing said again about the same object is one Event whose count grows. When more is said than can be written,
ordinary news goes first and warnings last.
"""

import hashlib
import logging
import socket
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final, Protocol

import anyio

from hami.kube.client import Json, Kube
from hami.kube.errors import Conflict, KubeError, NotFound, Unreachable
from hami.kube.pace import Backoff, backoff
from hami.kube.resources import EVENTS
from hami.model.wire.pod import rfc3339
from hami.scheduler.clock import Clock
from hami.scheduler.verdicts import cut

log = logging.getLogger(__name__)

QUEUED: Final = 1000
REMEMBERED: Final = 4096
REPEAT_S: Final = 10.0
"""An identical repeat within this time is only counted, and written with the next one after it."""
TRIES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What an event is about. Events about nodes live in namespace `default`, as kubelets' do."""

    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One thing to say."""

    subject: Subject
    reason: str
    message: str
    warning: bool

    @property
    def name(self) -> str:
        """The Event's name: equal for equal notes, so a restart finds the one that is there."""
        parts = "\0".join((self.subject.kind, self.subject.uid, self.reason, self.message))
        return f"{self.subject.name[:220]}.{hashlib.blake2b(parts.encode(), digest_size=8).hexdigest()}"


class Teller(Protocol):
    """Whoever takes notes."""

    def tell(self, subject: Subject, reason: str, message: str, *, warning: bool = False) -> None:
        """Say something about an object. Never waits and never fails."""


@dataclass(slots=True)
class _Written:
    count: int
    pending: int
    last: float


class EventWriter:
    """Takes notes at once and writes them when it can; `run` is its task."""

    def __init__(self, kube: Kube, component: str, clock: Clock, *, retry: Backoff | None = None) -> None:
        self._kube = kube
        self._component = component or "hami-scheduler"
        self._clock = clock
        self._retry = retry or backoff(0.5, 10.0)
        self._news: deque[Note] = deque()
        self._warnings: deque[Note] = deque()
        self._waiting = anyio.Event()
        self._written: OrderedDict[str, _Written] = OrderedDict()
        self._instance = socket.gethostname()
        self.dropped = 0
        """Notes that found no room."""

    def tell(self, subject: Subject, reason: str, message: str, *, warning: bool = False) -> None:
        """Say something about an object. Never waits and never fails."""
        note = Note(subject=subject, reason=reason, message=cut(message), warning=warning)
        if len(self._news) + len(self._warnings) >= QUEUED:
            (self._news or self._warnings).popleft()
            self.dropped += 1
        (self._warnings if warning else self._news).append(note)
        self._waiting.set()

    async def run(self) -> None:
        """Write notes, warnings first, for ever."""
        while True:
            while not self._news and not self._warnings:
                self._waiting = anyio.Event()
                await self._waiting.wait()
            note = (self._warnings or self._news).popleft()
            await self._write(note)

    async def _write(self, note: Note) -> None:
        known = self._written.get(note.name)
        if known is not None:
            known.pending += 1
            if self._clock.monotonic() - known.last < REPEAT_S:
                return
        delays = self._retry()
        for _ in range(TRIES):
            try:
                await self._write_once(note)
            except Unreachable as error:
                log.debug("event %s not written: %s", note.name, error)
                await anyio.sleep(next(delays))
            except KubeError as error:
                # A namespace on its way out takes no more events; what the server refuses once it refuses again.
                log.debug("event %s refused: %s", note.name, error)
                return
            else:
                return

    async def _write_once(self, note: Note) -> None:
        known = self._written.get(note.name)
        if known is not None:
            try:
                await self._count(note, known.count + known.pending)
            except NotFound:
                # Events are forgotten by the server after an hour.
                del self._written[note.name]
            else:
                known.count, known.pending, known.last = known.count + known.pending, 0, self._clock.monotonic()
                return
        count = 1
        try:
            await self._kube.create(EVENTS.path(_namespace(note.subject)), self._document(note))
        except Conflict:
            count = await self._count_on(note)
        self._written[note.name] = _Written(count=count, pending=0, last=self._clock.monotonic())
        if len(self._written) > REMEMBERED:
            self._written.popitem(last=False)

    async def _count_on(self, note: Note) -> int:
        """Our own Event from before a restart: one more."""
        # Read by a patch: writing events does not need the right to read them.
        path = EVENTS.path(_namespace(note.subject), note.name)
        present = await self._kube.patch_merge(path, {"lastTimestamp": rfc3339(self._clock.unix())})
        count = present.get("count")
        count = count + 1 if isinstance(count, int) else 2
        await self._count(note, count)
        return count

    async def _count(self, note: Note, count: int) -> None:
        body: Json = {"count": count, "lastTimestamp": rfc3339(self._clock.unix())}
        await self._kube.patch_merge(EVENTS.path(_namespace(note.subject), note.name), body)

    def _document(self, note: Note) -> Json:
        subject, now = note.subject, rfc3339(self._clock.unix())
        involved: Json = {"apiVersion": "v1", "kind": subject.kind, "name": subject.name, "uid": subject.uid}
        if subject.namespace:
            involved["namespace"] = subject.namespace
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": note.name, "namespace": _namespace(subject)},
            "involvedObject": involved,
            "reason": note.reason,
            "message": note.message,
            "type": "Warning" if note.warning else "Normal",
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": self._instance,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }


def _namespace(subject: Subject) -> str:
    return subject.namespace or "default"
