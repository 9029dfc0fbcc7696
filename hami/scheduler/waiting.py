"""Pods that were refused, and the nudge they get when room appears.

kube-scheduler tries a refused pod again when it sees something happen, often the same deletion that our watch is about
to show us. When it asks before we know, it hears "no" once more and nothing else will happen: the pod would wait for
minutes. So after devices were freed we look who of the waiting pods fits now, and touch it with an annotation, which is
something happening to the pod itself.
"""

import logging
from dataclasses import dataclass
from typing import Final

import anyio
import anyio.lowlevel

from hami.alloc.place import place
from hami.cluster.picture import Picture
from hami.kube.client import Kube
from hami.kube.errors import KubeError
from hami.model.claim import Placed, PodRequest
from hami.model.names import NodeName, PodUid
from hami.model.settings import SchedulerSettings
from hami.scheduler.clock import Clock

log = logging.getLogger(__name__)

ROOM_SEEN: Final = "hami.io/room-seen"
"""Annotation that the nudge writes: Unix seconds when room was seen for the pod."""
REMEMBERED: Final = 2000
GRACE_S: Final = 0.3
"""How long kube-scheduler gets to act on what it saw itself."""
TOUCHED: Final = 8
"""Pods touched in one round; the next change starts another round."""
JUDGED: Final = 200
"""Pods looked at in one round."""


@dataclass(slots=True, kw_only=True)
class _Refused:
    request: PodRequest
    candidates: tuple[NodeName, ...]
    at: float


class Waiting:
    """Refused pods, oldest first; `run` is the task that nudges."""

    def __init__(self, picture: Picture, kube: Kube, settings: SchedulerSettings, clock: Clock) -> None:
        self._picture = picture
        self._kube = kube
        self._settings = settings
        self._clock = clock
        self._pods: dict[PodUid, _Refused] = {}
        self._room = anyio.Event()
        self._last_candidates: tuple[NodeName, ...] = ()

    def __len__(self) -> int:
        return len(self._pods)

    def refused(self, request: PodRequest, candidates: tuple[NodeName, ...]) -> None:
        """A pod was told no."""
        if candidates == self._last_candidates:
            # Pods are mostly offered the same nodes: one list of names serves them all.
            candidates = self._last_candidates
        self._last_candidates = candidates
        if request.uid not in self._pods and len(self._pods) >= REMEMBERED:
            del self._pods[next(iter(self._pods))]
        self._pods[request.uid] = _Refused(request=request, candidates=candidates, at=self._clock.monotonic())

    def done(self, uid: PodUid) -> None:
        """The pod has been placed, is bound, or is gone."""
        self._pods.pop(uid, None)

    def room(self) -> None:
        """Devices were freed, or a node changed."""
        if self._pods:
            self._room.set()

    async def run(self) -> None:
        """Nudge after every change, for ever."""
        while True:
            await self._room.wait()
            self._room = anyio.Event()
            freed = self._clock.monotonic()
            await anyio.sleep(GRACE_S)
            await self._round(freed)

    async def _round(self, freed: float) -> None:
        touched = 0
        for uid, refused in list(self._pods.items())[:JUDGED]:
            # Asked and refused after the change: it was judged by what is true now.
            if self._pods.get(uid) is not refused or refused.at > freed:
                continue
            if self._fits(refused):
                await self._touch(refused.request)
                touched += 1
                if touched == TOUCHED:
                    self._room.set()
                    break
            await anyio.lowlevel.checkpoint()

    def _fits(self, refused: _Refused) -> bool:
        verdict = place(
            self._picture.ledger,
            refused.request,
            refused.candidates,
            node_policy=self._settings.node_policy,
            card_policy=self._settings.card_policy,
            quota=self._picture.quotas,
        )
        return isinstance(verdict, Placed)

    async def _touch(self, request: PodRequest) -> None:
        # Forgotten until it is refused again: if it cannot be scheduled for other reasons, touching it does not help.
        self.done(request.uid)
        now = str(int(self._clock.unix()))
        try:
            await self._kube.annotate_pod(*request.key, {ROOM_SEEN: now}, uid=request.uid)
        except KubeError as error:
            log.info("pod %s not nudged: %s", request.key, error)
