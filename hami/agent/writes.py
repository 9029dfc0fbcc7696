"""What the agent writes on pods: annotations and events, in the background, never in the kubelet's way.

Annotations of one pod are merged until they are written, so the newest value wins and a pod costs one patch. A pod that
has gone, or is another one of the same name, takes its writes with it.
"""

import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import anyio

from hami.alloc.record import FINISHED
from hami.alloc.request import pod_uid
from hami.kube.client import Kube
from hami.kube.errors import ApiError, KubeError, NotFound, TooMany
from hami.kube.pace import Backoff, backoff
from hami.kube.resources import EVENTS
from hami.model.names import NodeName, PodKey, PodUid, clip
from hami.model.wire.pod import rfc3339

log = logging.getLogger(__name__)

COMPONENT: Final = "hami-agent"
HAMI_COMPONENT: Final = "hami-device-plugin"
"""Source of the events that HAMi's plug-in would write in the same words."""
MOST_EVENTS: Final = 256
"""Events waiting to be written; older ones are dropped, events are for people who look now."""
MOST_TEXT: Final = 1000
"""Characters of an event's message; the API server refuses more than 1,024."""


class PodApi(Protocol):
    """What the agent asks of the API server about pods."""

    async def fetch(self, key: PodKey) -> Mapping[str, Any] | None:
        """The pod as it is now; None when there is none or nobody can say."""
        ...

    async def is_gone(self, key: PodKey, uid: PodUid) -> bool:
        """Whether there certainly is no such pod any more, or it has ended."""
        ...

    def annotate(self, key: PodKey, uid: PodUid, annotations: Mapping[str, str | None]) -> None:
        """Set annotations soon."""
        ...

    def tell(self, key: PodKey, uid: PodUid, reason: str, message: str) -> None:
        """Write a warning event soon."""
        ...


@dataclass(frozen=True, slots=True)
class _Warning:
    kind: str
    key: PodKey
    uid: str
    reason: str
    message: str
    component: str


class PodWriter:
    """PodApi on a real server; `run` does the writing."""

    def __init__(
        self,
        kube: Kube,
        node: NodeName,
        clock: Callable[[], float],
        *,
        fetch_s: float = 2.0,
        retry: Backoff | None = None,
    ) -> None:
        self._kube = kube
        self._node = node
        self._clock = clock
        self._fetch_s = fetch_s
        self._retry = retry or backoff()
        self._patches: dict[tuple[PodKey, PodUid], dict[str, str | None]] = {}
        self._events: deque[_Warning] = deque(maxlen=MOST_EVENTS)
        self._work = anyio.Event()

    async def fetch(self, key: PodKey) -> Mapping[str, Any] | None:
        try:
            return await self._read(key)
        except (KubeError, TimeoutError) as error:
            log.warning("cannot read pod %s: %s", key, error)
            return None

    async def is_gone(self, key: PodKey, uid: PodUid) -> bool:
        try:
            pod = await self._read(key)
        except (KubeError, TimeoutError) as error:
            log.warning("cannot read pod %s, which therefore counts: %s", key, error)
            return False
        return pod is None or pod_uid(pod) != uid or pod.get("status", {}).get("phase") in FINISHED

    async def _read(self, key: PodKey) -> Mapping[str, Any] | None:
        """The pod, or None when the server says that there is none. Raises KubeError, TimeoutError."""
        try:
            with anyio.fail_after(self._fetch_s):
                return await self._kube.pod(key.namespace, key.name)
        except NotFound:
            return None

    def annotate(self, key: PodKey, uid: PodUid, annotations: Mapping[str, str | None]) -> None:
        self._patches.setdefault((key, uid), {}).update(annotations)
        self._work.set()

    def tell(self, key: PodKey, uid: PodUid, reason: str, message: str) -> None:
        self._events.append(_Warning("Pod", key, uid, reason, clip(message, MOST_TEXT), COMPONENT))
        self._work.set()

    def tell_node(self, reason: str, message: str) -> None:
        """Write a warning event about this node soon, where HAMi's plug-in writes its own."""
        key = PodKey("default", self._node)
        self._events.append(_Warning("Node", key, self._node, reason, clip(message, MOST_TEXT), HAMI_COMPONENT))
        self._work.set()

    async def run(self) -> None:
        """Write what is waiting, for ever."""
        delays = self._retry()
        while True:
            await self._work.wait()
            self._work = anyio.Event()
            try:
                while self._patches:
                    await self._write_patch()
                while self._events:
                    await self._write_event(self._events.popleft())
                delays = self._retry()
            except KubeError as error:
                delay = next(delays)
                log.warning("cannot write on pods: %s; again in %.1f s", error, delay)
                await anyio.sleep(delay)
                self._work.set()

    async def _write_patch(self) -> None:
        (key, uid), annotations = next(iter(self._patches.items()))
        sent = dict(annotations)
        try:
            await self._kube.annotate_pod(key.namespace, key.name, sent, uid=uid)
        except ApiError as error:
            # What the server refuses it refuses again; only its own troubles pass.
            if error.status >= 500 or isinstance(error, TooMany):
                raise
            log.info("pod %s is not annotated: %s", key, error)
        waiting = self._patches[key, uid]
        for name, value in sent.items():
            # A newer value may have come while this one was on its way.
            if waiting.get(name, value) == value:
                waiting.pop(name, None)
        if not waiting:
            del self._patches[key, uid]

    async def _write_event(self, warning: _Warning) -> None:
        now = rfc3339(self._clock())
        namespace = warning.key.namespace
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{warning.key.name[:230]}.{secrets.token_hex(8)}", "namespace": namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": warning.kind,
                **({"namespace": namespace} if warning.kind == "Pod" else {}),
                "name": warning.key.name,
                "uid": warning.uid,
            },
            "type": "Warning",
            "reason": warning.reason,
            "message": warning.message,
            "source": {"component": warning.component, "host": self._node},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._kube.create(EVENTS.path(namespace), body)
        except ApiError as error:
            log.info("no event on %s %s: %s", warning.kind, warning.key, error)
