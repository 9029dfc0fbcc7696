"""List, then watch, then resume: one endless stream of changes to a kind of object.

What servers do to a watch stays in here: they end it at any time, forget old versions (410), go silent, and answer
late. The consumer sees objects and, after each complete listing, one `Listed`. Objects that vanished while we were not
looking come out as `Deleted` before it, so a fold over the stream never has to compare lists itself.
"""

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import anyio
import anyio.lowlevel
import orjson

from hami.kube.client import Json, Kube, Stream
from hami.kube.errors import ApiError, Gone, KubeError, TooMany, Unreachable
from hami.kube.pace import Backoff, backoff
from hami.kube.resources import Resource

log = logging.getLogger(__name__)

PAGE: Final = 500
WATCH_S: Final = 290
"""How long we ask the server to keep one watch open; it ends earlier as it likes."""
SILENCE_S: Final = 150.0
"""The server's bookmarks come once a minute; two and a half minutes without one is a dead connection."""
SHORTEST_S: Final = 1.0
"""A watch that ends sooner, without a word, is a failure: opening it again at once would only spin."""
BREATH: Final = 20
"""Objects handed out from one page before other tasks get a turn."""


@dataclass(frozen=True, slots=True)
class Added:
    """An object that we saw for the first time, or again in a listing."""

    object: Json


@dataclass(frozen=True, slots=True)
class Modified:
    object: Json


@dataclass(frozen=True, slots=True)
class Deleted:
    """`object` is its last state, or only its metadata (name, namespace, uid) when we missed the end.

    With a field selector this also means: no longer matches.
    """

    object: Json


@dataclass(frozen=True, slots=True)
class Listed:
    """Everything that existed at `resource_version` has been handed out.

    `round` counts listings from 1; `since` is the event loop's time when this one began.
    """

    resource_version: str
    round: int
    since: float


Event = Added | Modified | Deleted | Listed
_Identity = tuple[str, str, str]
"""uid, namespace, name."""


@dataclass(slots=True, kw_only=True)
class _Listing:
    """A listing under way, page by page."""

    round: int
    since: float
    seen: dict[str, _Identity] = field(default_factory=dict)
    more: str = ""


class Watch:
    """An endless, restartable stream of events; iterate it once."""

    def __init__(
        self,
        kube: Kube,
        resource: Resource,
        *,
        namespace: str | None = None,
        field_selector: str | None = None,
        label_selector: str | None = None,
        retry: Backoff | None = None,
        page: int = PAGE,
    ) -> None:
        self._kube = kube
        self._path = resource.path(namespace)
        self._selectors: dict[str, str] = {}
        if field_selector:
            self._selectors["fieldSelector"] = field_selector
        if label_selector:
            self._selectors["labelSelector"] = label_selector
        self._retry = retry or backoff()
        self._page = page
        self._delays = self._retry()
        self._known: dict[str, _Identity] = {}
        self._round = 0
        self._version = ""
        """Where to resume; empty: list."""
        self._listing: _Listing | None = None
        self._ready: deque[Event] = deque()
        self._handed = 0
        self._stream: Stream | None = None
        self._lines = _Lines()
        self._opened = 0.0
        """When the open stream was opened, 0 once it has said something."""
        self._reading: anyio.CancelScope | None = None

    def relist(self) -> int:
        """List everything afresh as soon as possible; the number of the `Listed.round` that will then be current."""
        self._version = ""
        self._listing = None
        if self._reading is not None:
            self._reading.cancel()
        return self._round + 1

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        # A state machine and not a generator: a consumer that stops in the middle leaves nothing to be finalized.
        while not self._ready:
            try:
                await self._advance()
                self._delays = self._retry()
            except Gone:
                log.info("%s: the server no longer knows version %s, listing afresh", self._path, self._version)
                self._version = ""
                self._listing = None
            except KubeError as error:
                delay = error.retry_after_s if isinstance(error, TooMany) else next(self._delays)
                log.warning("watching %s: %s; again in %.1f s", self._path, error, delay)
                await anyio.sleep(delay)
        self._handed += 1
        if self._handed % BREATH == 0:
            await anyio.lowlevel.checkpoint()
        return self._ready.popleft()

    def close(self) -> None:
        """End the open request, if there is one. Iterating again resumes."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    async def _advance(self) -> None:
        """One request or one read: whatever brings the next events."""
        if self._version:
            await self._read()
        else:
            self.close()
            await self._list_page()

    async def _list_page(self) -> None:
        if self._listing is None:
            self._round += 1
            self._listing = _Listing(round=self._round, since=anyio.current_time())
        listing = self._listing
        # Without a resourceVersion the server answers from a consistent read, which a change of leader relies on.
        query = {**self._selectors, "limit": str(self._page)}
        if listing.more:
            query["continue"] = listing.more
        page = _mapping(_loads(await self._kube.list_raw(self._path, query)))
        if self._listing is not listing:
            return  # relist() came in between
        for item in page.get("items") or ():
            identity = _identify(item)
            listing.seen[identity[0]] = identity
            self._known[identity[0]] = identity
            self._ready.append(Added(item))
        metadata = _mapping(page.get("metadata"))
        listing.more = str(metadata.get("continue") or "")
        if listing.more:
            return
        for uid, identity in self._known.items():
            if uid not in listing.seen:
                self._ready.append(_vanished(identity))
        self._known = listing.seen
        # Every page of one listing carries the same version.
        self._version = str(metadata.get("resourceVersion") or "")
        self._listing = None
        self._ready.append(Listed(self._version, listing.round, listing.since))

    async def _read(self) -> None:
        try:
            chunk = b""
            with anyio.CancelScope() as self._reading:
                if self._stream is None:
                    self._stream = await self._open()
                chunk = await self._stream.read()
            if not self._version:
                self.close()  # relist() came in between
            elif chunk:
                self._opened = 0.0
                for line in self._lines.feed(chunk):
                    self._version = self._take(line) or self._version
            else:
                self.close()
                if anyio.current_time() - self._opened < SHORTEST_S:
                    raise Unreachable(f"watch {self._path}: ended at once")
        except BaseException:
            self.close()
            raise
        finally:
            self._reading = None

    async def _open(self) -> Stream:
        self._lines = _Lines()
        query = {
            **self._selectors,
            "watch": "true",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
        }
        stream = await self._kube.stream(self._path, query, silence_s=SILENCE_S)
        self._opened = anyio.current_time()
        return stream

    def _take(self, line: bytes) -> str:
        """Queue the event of one line; the version it carries."""
        frame = _mapping(_loads(line))
        item = frame.get("object")
        item = item if isinstance(item, dict) else {}
        version = str(_mapping(item.get("metadata")).get("resourceVersion") or "")
        match frame.get("type"):
            case "ADDED" | "MODIFIED" as kind:
                identity = _identify(item)
                self._known[identity[0]] = identity
                self._ready.append(Added(item) if kind == "ADDED" else Modified(item))
            case "DELETED":
                self._known.pop(_identify(item)[0], None)
                self._ready.append(Deleted(item))
            case "BOOKMARK":
                pass
            case "ERROR" if item.get("code") == 410:
                raise Gone(410, str(item.get("reason") or ""), str(item.get("message") or ""), request=self._path)
            case _:
                reason, message = str(item.get("reason") or ""), str(item.get("message") or frame.get("type"))
                code = item.get("code")
                raise ApiError(code if isinstance(code, int) else 500, reason, message, request=f"watch {self._path}")
        return version


def watch(
    kube: Kube,
    resource: Resource,
    *,
    namespace: str | None = None,
    field_selector: str | None = None,
    label_selector: str | None = None,
) -> Watch:
    """All objects of `resource` (of one namespace, matching the selectors), and then every change, for ever."""
    return Watch(kube, resource, namespace=namespace, field_selector=field_selector, label_selector=label_selector)


class _Lines:
    """Cuts a byte stream at newlines, whatever the chunks' borders."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines completed by `chunk`, empty ones left out."""
        first, *rest = chunk.split(b"\n")
        self._parts.append(first)
        if not rest:
            return []
        lines = [b"".join(self._parts), *rest[:-1]]
        self._parts = [rest[-1]]
        return [line for line in lines if line.strip()]


def _loads(raw: bytes) -> object:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        # Cut off in the middle: nothing of it is known, so resume from the last whole event.
        raise Unreachable(f"half an answer: {error}") from error


def _vanished(identity: _Identity) -> Deleted:
    uid, namespace, name = identity
    return Deleted({"metadata": {"uid": uid, "namespace": namespace, "name": name}})


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _identify(item: Mapping[str, Any]) -> _Identity:
    metadata = _mapping(item.get("metadata"))
    namespace, name = str(metadata.get("namespace") or ""), str(metadata.get("name") or "")
    # Objects without uid come from fakes and very old servers only; namespace and name serve as well there.
    return str(metadata.get("uid") or f"{namespace}/{name}"), namespace, name
