"""`/bind`: one Binding that carries everything a pod got, written once, whatever happens to the answer.

The hard thing is the answer that never comes. Then the pod is read back; a Binding that did not arrive is sent once
more, unchanged, and a conflict on it means that the first one had arrived. Only a pod that is known not to be bound
lets its devices go.
"""

import enum
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final

import anyio

from hami.alloc import record
from hami.alloc.request import RequestError, read_request
from hami.cluster.picture import Picture
from hami.kube.client import Kube
from hami.kube.errors import ApiError, Conflict, KubeError, NotFound, Unreachable
from hami.kube.pace import Backoff, backoff
from hami.model.claim import Assignment, NodeRefusal
from hami.model.names import NodeName, PodKey, VendorWord, WireError
from hami.model.wire import extender as wire
from hami.model.wire.extender import BindCall
from hami.scheduler.clock import Clock
from hami.scheduler.counters import Counters
from hami.scheduler.events import Subject, Teller
from hami.scheduler.extender import Extender, NotDeciding
from hami.scheduler.holds import Hold, Holds, State
from hami.scheduler.locks import LockError, NodeLocks
from hami.scheduler.waiting import Waiting

log = logging.getLogger(__name__)

LOCK_WAIT_S: Final = 16.0
"""Longest wait for a node lock: with the rest it must end before kube-scheduler's 30 s do."""
SEND_S: Final = 12.0
"""How long a Binding whose answer was lost is followed up."""


class _Outcome(enum.Enum):
    BOUND = "bound"
    NOT_BOUND = "not bound"
    UNKNOWN = "unknown"


class _NotBound(Exception):
    """The bind ends with this error text; `reason` is what it counts as."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Binder:
    """Answers `/bind`."""

    def __init__(
        self,
        *,
        kube: Kube,
        picture: Picture,
        extender: Extender,
        holds: Holds,
        waiting: Waiting,
        locks: NodeLocks,
        events: Teller,
        counters: Counters,
        clock: Clock,
        retry: Backoff | None = None,
    ) -> None:
        self._kube = kube
        self._picture = picture
        self._extender = extender
        self._holds = holds
        self._waiting = waiting
        self._locks = locks
        self._events = events
        self._counters = counters
        self._clock = clock
        self._retry = retry or backoff(0.1, 2.0)

    async def bind(self, body: bytes, gone: anyio.Event) -> bytes:
        """Bind one pod. `gone` is set when the caller no longer waits for the answer."""
        with self._counters.timing_bind():
            try:
                call = wire.read_bind(body)
            except WireError as error:
                self._counters.bound("invalid_request")
                return wire.write_bind_result(str(error))
            subject = Subject(kind="Pod", namespace=call.namespace, name=call.name, uid=call.uid)
            try:
                self._extender.check_deciding()
                await self._bind(call, gone)
            except NotDeciding as error:
                self._counters.bound("not_active")
                return wire.write_bind_result(str(error))
            except _NotBound as error:
                self._counters.bound(error.reason)
                self._events.tell(subject, "BindingFailed", str(error), warning=True)
                log.warning("pod %s/%s not bound to %s: %s", call.namespace, call.name, call.node, error)
                return wire.write_bind_result(str(error))
            self._counters.bound()
            message = f"Successfully binding node [{call.node}] to {call.namespace}/{call.name}"
            self._events.tell(subject, "BindingSucceed", message)
            log.info("pod %s/%s bound to %s", call.namespace, call.name, call.node)
            return wire.write_bind_result("")

    async def _bind(self, call: BindCall, gone: anyio.Event) -> None:
        hold = self._holds.get(call.uid)
        if hold is None or hold.state is State.FOREIGN:
            if self._bound_already(call):
                return
            hold = await self._hold_anew(call)
            if hold is None:
                return
        elif hold.state is State.BINDING:
            raise _NotBound("bind_under_way", f"pod {hold.record.key} is being bound to node {hold.record.node}")
        elif hold.state is State.BOUND:
            if hold.record.node == call.node:
                return
            raise _NotBound("bind_rejected", f"pod {hold.record.key} is bound to node {hold.record.node}")
        elif hold.record.node != call.node:
            hold = self._move(hold, call.node)
        hold.state = State.BINDING
        # Until the contrary is known, also when this is cancelled: a Binding whose fate nobody knows keeps its devices.
        state = State.UNSURE
        try:
            if await self._write(call, hold, gone) is _Outcome.BOUND:
                state = State.BOUND
        except _NotBound:
            state = State.HELD
            raise
        finally:
            self._holds.settle(hold, state)
            if state is State.HELD:
                self._waiting.room()
        if state is State.UNSURE:
            raise _NotBound("bind_unknown", f"the API server does not say whether pod {hold.record.key} was bound")

    def _bound_already(self, call: BindCall) -> bool:
        """A repeated bind of a pod that the watch shows bound."""
        known = self._picture.ledger.pod(call.uid)
        if known is None:
            return False
        if known.node != call.node:
            raise _NotBound("bind_rejected", f"pod {known.key} is bound to node {known.node}")
        return True

    def _move(self, hold: Hold, node: NodeName) -> Hold:
        """kube-scheduler picked another node than the one held: devices there, or an error."""
        assert hold.request is not None, "only another scheduler's hold has no request"
        moved = self._extender.hold_on(hold.request, node, earlier_keys=hold.earlier_keys)
        if isinstance(moved, NodeRefusal):
            raise _NotBound("no_fitting_node", f"node {node} no longer fits: {moved.text}")
        return moved

    async def _hold_anew(self, call: BindCall) -> Hold | None:
        """A bind without a hold, as after a restart: place on the node that is named. None: it is bound there."""
        try:
            pod = await self._kube.pod(call.namespace, call.name)
        except NotFound as error:
            raise _NotBound("pod_not_found", f"pod {call.namespace}/{call.name} not found") from error
        except KubeError as error:
            raise _NotBound("bind_unknown", f"cannot read the pod: {error}") from error
        self._extender.check_deciding()
        if _uid(pod) != call.uid:
            raise _NotBound("pod_not_found", f"pod {call.namespace}/{call.name} is another pod now: {_uid(pod)}")
        node = _node(pod)
        if node == call.node:
            return None
        if node:
            raise _NotBound("bind_rejected", f"pod {call.namespace}/{call.name} is bound to node {node}")
        # Decided after the read and without waiting again: what was held meanwhile by another call is seen here.
        if (present := self._holds.get(call.uid)) is not None and present.state is not State.FOREIGN:
            raise _NotBound("bind_under_way", f"pod {call.namespace}/{call.name} is being bound by another call")
        try:
            request = read_request(pod, self._picture.registry)
        except RequestError as error:
            raise _NotBound("invalid_request", str(error)) from error
        if not request.vendors:
            await self._bind_plain(call)
            return None
        earlier = record.stale_keys(pod, {}, self._picture.registry)
        hold = self._extender.hold_on(request, call.node, earlier_keys=earlier)
        if isinstance(hold, NodeRefusal):
            raise _NotBound("no_fitting_node", f"node {call.node} no longer fits: {hold.text}")
        return hold

    async def _bind_plain(self, call: BindCall) -> None:
        """A pod without devices, from a kube-scheduler that lets us bind everything."""
        try:
            outcome = await self._send(call, {}, {})
        except KubeError as error:
            raise _NotBound("bind_rejected", str(error)) from error
        if outcome is not _Outcome.BOUND:
            raise _NotBound("bind_unknown", f"the API server does not say whether {call.name} was bound")

    async def _write(self, call: BindCall, hold: Hold, gone: anyio.Event) -> _Outcome:
        """Lock where needed, clear what an earlier attempt left, bind."""
        assert hold.assignment is not None
        key = hold.record.key
        own_agent = self._own_agent(call.node)
        locked: list[str] = []
        try:
            for lock in self._lock_keys(hold.assignment, own_agent):
                await self._locks.acquire(call.node, key, gone, most_s=LOCK_WAIT_S, key=lock)
                locked.append(lock)
            annotations = record.annotations(
                hold.assignment,
                self._picture.registry,
                now_unix=int(self._clock.unix()),
                own_agent=own_agent,
                request=hold.request,
                node=self._picture.ledger.node(call.node),
            )
            stale = hold.earlier_keys - annotations.keys()
            if stale:
                # A Binding only adds: what it does not overwrite would be read as part of this allocation.
                await self._kube.annotate_pod(*key, dict.fromkeys(sorted(stale)), uid=call.uid)
            outcome = await self._send(call, annotations, record.labels(hold.assignment))
        except LockError as error:
            await self._unlock(call.node, key, locked)
            raise _NotBound("node_locked", str(error)) from error
        except _NotBound:
            await self._unlock(call.node, key, locked)
            raise
        except NotFound as error:
            await self._unlock(call.node, key, locked)
            raise _NotBound("pod_not_found", error.message or str(error)) from error
        except KubeError as error:
            await self._unlock(call.node, key, locked)
            raise _NotBound("bind_rejected", str(error)) from error
        return outcome

    async def _unlock(self, node: NodeName, key: PodKey, locked: list[str]) -> None:
        for lock in locked:
            try:
                await self._locks.release(node, key, lock)
            except KubeError as error:
                log.warning("lock %s of node %s not released: %s", lock, node, error)

    def _own_agent(self, node: NodeName) -> frozenset[VendorWord]:
        known = self._picture.ledger.node(node)
        return known.own_agent if known is not None else frozenset()

    def _lock_keys(self, assignment: Assignment, own_agent: frozenset[VendorWord]) -> list[str]:
        """The locks that foreign plug-ins rely on, always in one order, so that two binds never wait in a ring."""
        found = {self._picture.registry[vendor].lock_key for vendor in assignment.segments if vendor not in own_agent}
        return sorted(found - {""})

    async def _send(self, call: BindCall, annotations: Mapping[str, str], labels: Mapping[str, str]) -> _Outcome:
        """The Binding, at most twice, and what became of it. Raises the server's refusal."""
        deadline = self._clock.monotonic() + SEND_S
        delays = self._retry()
        for attempt in (1, 2):
            try:
                await self._kube.bind(call.namespace, call.name, call.uid, call.node, annotations, labels)
            except Conflict as error:
                return await self._after_conflict(call, error, deadline, delays)
            except Unreachable as error:
                log.warning("binding %s/%s, attempt %d: %s", call.namespace, call.name, attempt, error)
            except ApiError as error:
                if error.status < 500:
                    raise
                log.warning("binding %s/%s, attempt %d: %s", call.namespace, call.name, attempt, error)
            else:
                return _Outcome.BOUND
            outcome = await self._read_back(call, deadline, delays)
            if outcome is not _Outcome.NOT_BOUND:
                return outcome
        raise _NotBound("bind_rejected", f"pod {call.namespace}/{call.name} was not bound after two attempts")

    async def _after_conflict(
        self, call: BindCall, error: Conflict, deadline: float, delays: Iterator[float]
    ) -> _Outcome:
        outcome = await self._read_back(call, deadline, delays)
        if outcome is _Outcome.NOT_BOUND:
            raise error
        return outcome

    async def _read_back(self, call: BindCall, deadline: float, delays: Iterator[float]) -> _Outcome:
        """Whether the pod is bound as intended. Bound elsewhere, replaced or gone is an error."""
        while True:
            try:
                pod = await self._kube.pod(call.namespace, call.name)
            except NotFound as error:
                raise _NotBound("pod_not_found", f"pod {call.namespace}/{call.name} not found") from error
            except KubeError as error:
                if self._clock.monotonic() >= deadline:
                    return _Outcome.UNKNOWN
                log.warning("reading %s/%s back: %s", call.namespace, call.name, error)
                await anyio.sleep(next(delays))
                continue
            if _uid(pod) != call.uid:
                raise _NotBound("pod_not_found", f"pod {call.namespace}/{call.name} is another pod now: {_uid(pod)}")
            node = _node(pod)
            if node == call.node:
                return _Outcome.BOUND
            if node:
                raise _NotBound("bind_rejected", f"pod {call.namespace}/{call.name} is bound to node {node}")
            return _Outcome.NOT_BOUND


def _uid(pod: Mapping[str, Any]) -> str:
    return str((pod.get("metadata") or {}).get("uid") or "")


def _node(pod: Mapping[str, Any]) -> str:
    return str((pod.get("spec") or {}).get("nodeName") or "")
