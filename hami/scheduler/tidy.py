"""The label that older API servers drop from a Binding, added afterwards.

Monitors select pods by it; nothing of ours depends on it, so it is best effort and in the background.
"""

import logging
from typing import Final

import anyio

from hami.kube.client import Kube
from hami.kube.errors import KubeError
from hami.model.names import NodeName, PodKey, PodUid
from hami.model.wire import pod as keys

log = logging.getLogger(__name__)

QUEUED: Final = 1000


class Tidy:
    """Pods whose label is missing, in a bounded queue; `run` is the task that adds it."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._pods: dict[PodUid, tuple[PodKey, NodeName]] = {}
        self._waiting = anyio.Event()

    def label(self, key: PodKey, uid: PodUid, node: NodeName) -> None:
        """Give a pod the label some time soon; a full queue forgets it until its next event."""
        if len(self._pods) < QUEUED:
            self._pods[uid] = key, node
            self._waiting.set()

    async def run(self) -> None:
        """Add labels, for ever."""
        while True:
            while not self._pods:
                self._waiting = anyio.Event()
                await self._waiting.wait()
            uid = next(iter(self._pods))
            key, node = self._pods.pop(uid)
            try:
                await self._kube.annotate_pod(*key, {}, labels={keys.NODE: node}, uid=uid)
            except KubeError as error:
                log.debug("pod %s not labelled: %s", key, error)
