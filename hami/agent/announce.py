"""The node's annotations: what schedulers know of this node's devices, compared with the live node.

The node is watched, so an annotation that someone deletes or changes is back within one event, and nothing is written
while the node says what it should. A scheduler of HAMi up to 2.7 asks `Requesting_...` and gives the node up without an
answer within a minute; it asks again after each answer, so answers are spaced. A scheduler of HAMi also locks the node
for each pod and waits for the plug-in to let go: ours needs no lock and removes one as soon as its pod is served.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import anyio

from hami.alloc.nodelock import may_release
from hami.kube.client import Kube
from hami.kube.errors import Conflict, KubeError
from hami.kube.pace import Backoff, backoff
from hami.kube.resources import NODES
from hami.kube.watch import Deleted, Listed, watch
from hami.model.device import NodeInventory
from hami.model.names import DeviceUuid, NodeName, PodKey, VendorWord, WireError
from hami.model.vendor import Vendor
from hami.model.wire import node as wire
from hami.model.wire import pod as keys

log = logging.getLogger(__name__)

ANSWER_EVERY_S: Final = 20.0
"""Between two handshake answers: three tries within the minute an asking scheduler allows."""
MOST_SERVED: Final = 64
"""A lock names one pod, and it is one of the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What one family's agent has to say about its node."""

    inventory: NodeInventory
    vendor: Vendor
    devices: Literal["cdi", "env"]
    form: Literal["json", "colon"] = "json"
    foreign: Mapping[str, str] | None = None
    """What a plug-in that is not our agent's own would write, word for word; None = our agent's words."""

    def annotations(self) -> dict[str, str]:
        """The annotations the node should have. An empty inventory is written, too: the cards are gone."""
        if self.foreign is not None:
            return dict(self.foreign)
        protocol = wire.AgentProtocol(families=frozenset({self.vendor.name}), devices=self.devices)
        wanted = {
            self.vendor.node_key: wire.write_inventory(self.inventory.devices, self.form),
            keys.AGENT_PROTOCOL: wire.write_agent_protocol(protocol),
        }
        if self.vendor.link_key and self.inventory.links is not None:
            wanted[self.vendor.link_key] = wire.write_links(self.inventory.links)
        return wanted


def difference(live: Mapping[str, Any], announcement: Announcement) -> dict[str, str | None]:
    """What to patch so that a node with annotations `live` says what it should; empty when it does.

    None removes a key: link scores of cards that no longer have any.
    """
    wanted = announcement.annotations()
    patch: dict[str, str | None] = {key: value for key, value in wanted.items() if live.get(key) != value}
    if announcement.vendor.link_key in live and announcement.vendor.link_key not in wanted:
        patch[announcement.vendor.link_key] = None
    return patch


def asks_for_report(live: Mapping[str, Any], vendor: Vendor) -> bool:
    """Whether a scheduler waits for a handshake answer on this node."""
    text = live.get(vendor.handshake_key) if vendor.handshake_key else None
    return isinstance(text, str) and wire.read_handshake(text).state is wire.HandshakeState.REQUESTING


@dataclass(slots=True)
class Announcer:
    """Keeps the node's annotations as they should be."""

    kube: Kube
    node: NodeName
    clock: Callable[[], float]
    """Returns Unix seconds."""
    said: dict[VendorWord, Announcement] = field(default_factory=dict)
    """By family; empty until the first probe."""
    retry: Backoff = field(default_factory=backoff)
    _live: Mapping[str, Any] | None = None
    _version: str = ""
    """Resource version of `_live`."""
    _served: deque[PodKey] = field(default_factory=lambda: deque(maxlen=MOST_SERVED))
    """Pods that have all they will get, the latest last."""
    _changed: anyio.Event = field(default_factory=anyio.Event)
    _answered: float = float("-inf")

    @property
    def cordoned(self) -> frozenset[DeviceUuid]:
        """Cards of the node that take no new allocation."""
        text = (self._live or {}).get(keys.CORDON)
        return wire.read_cordon(text) if isinstance(text, str) else frozenset()

    def say(self, announcement: Announcement) -> None:
        """Say this of its family from now on."""
        if announcement != self.said.get(announcement.vendor.name):
            self.said[announcement.vendor.name] = announcement
            self._changed.set()

    def served(self, pod: PodKey) -> None:
        """A pod has been granted or refused: a lock that names it has no purpose any more."""
        self._served.append(pod)
        self._changed.set()

    async def follow(self) -> None:
        """Keep `_live` equal to the node, for ever."""
        async for event in watch(self.kube, NODES, field_selector=f"metadata.name={self.node}"):
            match event:
                case Listed():
                    if self._live is None:
                        log.warning("there is no node %s; waiting for it", self.node)
                case Deleted():
                    self._live = None
                case _:
                    self._see(event.object)
                    self._changed.set()

    async def run(self) -> None:
        """Write what differs, for ever; the annotations of a node are as they should be within one event."""
        delays = self.retry()
        while True:
            wait = ANSWER_EVERY_S
            try:
                if not await self._write():
                    wait = max(0.1, self._answered + ANSWER_EVERY_S - anyio.current_time())
                delays = self.retry()
            except WireError as error:
                log.error("the devices of node %s cannot be announced: %s", self.node, error)
            except Conflict:
                log.debug("node %s has changed meanwhile", self.node)
            except KubeError as error:
                wait = next(delays)
                log.warning("cannot announce on node %s: %s; again in %.1f s", self.node, error, wait)
                await anyio.sleep(wait)
            with anyio.move_on_after(wait):
                await self._changed.wait()

    async def _write(self) -> bool:
        """One patch where something differs; False when an answer is owed but too early."""
        self._changed = anyio.Event()
        if self._live is None or not self.said:
            return True
        patch: dict[str, str | None] = {}
        for announcement in self.said.values():
            patch |= difference(self._live, announcement)
        owed = [one.vendor for one in self.said.values() if asks_for_report(self._live, one.vendor)]
        early = anyio.current_time() < self._answered + ANSWER_EVERY_S
        if owed and not early:
            answer = wire.write_handshake(wire.HandshakeState.REPORTED, self.clock())
            patch |= {vendor.handshake_key: answer for vendor in owed}
        lock = self._live.get(keys.NODE_LOCK)
        if any(may_release(lock, pod) for pod in self._served):
            patch[keys.NODE_LOCK] = None
        if patch:
            # Another lock may have replaced the one that we saw: then nothing is written, and the watch will tell.
            version = self._version if keys.NODE_LOCK in patch else None
            node = await self.kube.annotate_node(self.node, patch, resource_version=version)
            log.info("announced on node %s: %s", self.node, ", ".join(sorted(patch)))
            if owed and not early:
                self._answered = anyio.current_time()
            # The watch will show the same; taking the answer now saves a second patch in between.
            self._see(node)
        return not (owed and early)

    def _see(self, node: Mapping[str, Any]) -> None:
        metadata = node.get("metadata", {})
        annotations = metadata.get("annotations")
        self._live = annotations if isinstance(annotations, dict) else {}
        self._version = str(metadata.get("resourceVersion") or "")
