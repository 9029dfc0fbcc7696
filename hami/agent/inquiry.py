"""Asking the kubelet and the API server whose a grant is.

Three sources, none complete: the kubelet's pod list (names, no plain init containers), its checkpoint
(exact, but only after the answer), and our own picture of the pods (late by a moment). What they say together is
decided in `hami.agent.owner`; this module fetches, and fills the picture where it is late.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import anyio
from grpclib.exceptions import GRPCError, StreamTerminatedError

from hami.agent.checkpoint import CheckpointEntry
from hami.agent.owner import Granted, Owner, by_ids, likely_owners
from hami.agent.podresources import ListedPod, PodList
from hami.agent.pods import NodePod, NodePods
from hami.agent.writes import PodApi
from hami.model.claim import Role
from hami.model.names import PodKey, PodUid, WireError
from hami.node.grants import Grant

log = logging.getLogger(__name__)

FETCH_S: Final = 3.0
MOST_FETCHES: Final = 8
"""Pods read one by one during a call of the kubelet; more than that are unknown only when the API server is away."""


class Inquiry:
    """The questions, over one kubelet and one API server."""

    def __init__(
        self,
        pods: NodePods,
        podlist: PodList,
        checkpoint: Callable[[], tuple[CheckpointEntry, ...]],
        api: PodApi,
    ) -> None:
        self._pods = pods
        self._podlist = podlist
        self._checkpoint = checkpoint
        self._api = api

    async def listed(self) -> tuple[ListedPod, ...] | None:
        """The kubelet's pods; None when it does not answer."""
        try:
            return await self._podlist.list()
        except (OSError, GRPCError, StreamTerminatedError, TimeoutError) as error:
            log.warning("the kubelet's pod list cannot be had: %r", error)
            return None

    def entries(self) -> Mapping[str, CheckpointEntry]:
        """The checkpoint's entries by grant id; empty when it cannot be used."""
        try:
            return {entry.grant: entry for entry in self._checkpoint() if entry.grant}
        except (OSError, WireError) as error:
            log.warning("the kubelet's checkpoint cannot be used: %s", error)
            return {}

    async def likely(self, count: int, granted: Granted) -> Owner | None:
        """The container that is probably asking for `count` ids now."""
        listed = await self.listed()
        named = self._pods.by_key()
        await self._fetch_all([e.key for e in listed or () if _is_late(named.get(e.key), e, granted)])
        found = likely_owners(listed, self._pods.by_key(), granted, count)
        if len(found) > 1:
            log.warning("any of %s may be asking for %d ids", ", ".join(str(o.pod.key) for o in found), count)
        return found[0] if found else None

    def known(self, grant: Grant, entries: Mapping[str, CheckpointEntry]) -> Owner | None:
        """Whose the grant is by the checkpoint, as far as our picture knows the pod; asks nobody."""
        entry = entries.get(grant.id)
        return None if entry is None else _owner(self._pods.by_kubelet_uid(entry.pod_uid), entry.container)

    async def confirmed(self, grant: Grant, entries: Mapping[str, CheckpointEntry], granted: Granted) -> Owner | None:
        """Whose the grant is, by the checkpoint, else by the kubelet's pod list; None while neither says.

        `granted` are the containers that have another grant than this one.
        """
        if (entry := entries.get(grant.id)) is not None:
            return await self._by_checkpoint(grant, entry)
        if (listed := await self.listed()) is None:
            return None
        if (found := by_ids(listed, self._pods.by_key(), grant.device_ids, granted)) is not None:
            return found
        # Plain init containers are never listed. The thought stands as long as nobody else holds these ids.
        elsewhere = any(ids & grant.device_ids for pod in listed for ids in pod.devices.values())
        if grant.holder is None or elsewhere:
            return None
        thought = _owner(self._pods.get(grant.holder.pod_uid), grant.holder.container)
        return thought if thought is not None and thought.container.role is Role.INIT else None

    async def is_gone(self, uid: PodUid, key: PodKey) -> bool:
        """Whether the API server certainly has no such pod, or only its ended remains."""
        return self._pods.get(uid) is None or await self._api.is_gone(key, uid)

    async def _by_checkpoint(self, grant: Grant, entry: CheckpointEntry) -> Owner | None:
        pod = self._pods.by_kubelet_uid(entry.pod_uid)
        if pod is None and grant.holder is not None:
            await self._fetch_all([grant.holder.key])
            pod = self._pods.by_kubelet_uid(entry.pod_uid)
        if pod is None:
            named = self._pods.by_key()
            await self._fetch_all([entry.key for entry in await self.listed() or () if entry.key not in named])
            pod = self._pods.by_kubelet_uid(entry.pod_uid)
        return _owner(pod, entry.container)

    async def _fetch_all(self, keys: Sequence[PodKey]) -> None:
        """Read these pods now; a kubelet is waiting, so what the API server does not tell in time stays unknown."""
        with anyio.move_on_after(FETCH_S):
            for key in keys[:MOST_FETCHES]:
                document = await self._api.fetch(key)
                if document is not None:
                    self._pods.put(document)


def _is_late(pod: NodePod | None, entry: ListedPod, granted: Granted) -> bool:
    """Whether our picture of a listed pod must be older than the kubelet's."""
    return pod is None or pod.terminal or _looks_recreated(pod, entry, granted)


def _looks_recreated(pod: NodePod, entry: ListedPod, granted: Granted) -> bool:
    """A pod with all its grants, for which the kubelet shows no ids at all: another pod of the same name."""
    shown = [asking.name for asking in pod.asking if asking.name in entry.devices]
    return bool(shown) and all((pod.uid, name) in granted and not entry.devices[name] for name in shown)


def _owner(pod: NodePod | None, container: str) -> Owner | None:
    """The container of that name, if the pod is known and the container asks for devices."""
    if pod is None:
        return None
    return next((Owner(pod=pod, container=asking) for asking in pod.asking if asking.name == container), None)
