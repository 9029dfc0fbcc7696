"""The service: everything wired together, one task group, named tasks.

Leaving the block is the shutdown. A bug in any task ends the process, which starts again and rebuilds its picture from
the cluster.
"""

import gc
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskStatus

from hami.cluster.picture import Kind, Picture, PodChange, Problem, Where
from hami.kube.client import Kube
from hami.kube.errors import KubeError
from hami.kube.resources import LEASES, NODES, PODS, QUOTAS
from hami.kube.watch import Event, Listed, Watch, watch
from hami.model.names import NodeName, PodUid
from hami.model.settings import SchedulerSettings
from hami.model.vendor import Registry
from hami.model.wire import pod as keys
from hami.scheduler.binding import Binder
from hami.scheduler.clock import Clock
from hami.scheduler.counters import Counters
from hami.scheduler.events import EventWriter, Subject
from hami.scheduler.extender import Extender
from hami.scheduler.holds import Holds
from hami.scheduler.http import Act, Address, Answer, App, Certificate, Decide, Route, serve
from hami.scheduler.leader import Leadership
from hami.scheduler.locks import NodeLocks
from hami.scheduler.metrics import CONTENT_TYPE, Metrics
from hami.scheduler.tidy import Tidy
from hami.scheduler.waiting import Waiting
from hami.scheduler.whatif import WhatIf
from hami.webhook.admission import Webhook

log = logging.getLogger(__name__)

# Pods that have ended hold nothing: the server leaves them out, and says "deleted" when one ends.
LIVING = "status.phase!=Succeeded,status.phase!=Failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Where to listen and whom to follow: everything about the process that is no matter of scheduling."""

    http: Address
    extender: Address | None = None
    """None: the extender is served on `http` too."""
    metrics: Address | None = None
    cert: Path | None = None
    key: Path | None = None
    legacy_metrics: bool = False
    lease: tuple[str, str] | None = None
    """Namespace and name of kube-scheduler's Lease; None: always active."""
    host: str = ""
    """This host's name, as kube-scheduler beside us writes it into its Lease."""
    pod: tuple[str, str] | None = None
    """Our own pod, for its role label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Where the servers listen."""

    http: Address
    extender: Address | None
    metrics: Address | None


class Scheduler:
    """One scheduler process."""

    def __init__(
        self, kube: Kube, registry: Registry, settings: SchedulerSettings, options: Options, *, username: str = ""
    ) -> None:
        clock = Clock()
        self._clock = clock
        self._kube = kube
        self._options = options
        self.counters = Counters(clock)
        self.events = EventWriter(kube, settings.scheduler_name, clock)
        self.picture = Picture(
            registry,
            tell=self._tell_problem,
            needs=(Kind.NODES, Kind.PODS, Kind.QUOTAS),
            node_labels=settings.node_label_selector,
            learns=True,
        )
        self.holds = Holds(self.picture.ledger, timeout_s=settings.hold_timeout_s)
        self.waiting = Waiting(self.picture, kube, settings, clock)
        self.leadership = Leadership(options.host, elect=options.lease is not None)
        self._locks = NodeLocks(kube, settings, clock)
        self._tidy = Tidy(kube)
        self.extender = Extender(
            picture=self.picture,
            holds=self.holds,
            waiting=self.waiting,
            events=self.events,
            leadership=self.leadership,
            counters=self.counters,
            settings=settings,
            clock=clock,
        )
        self._binder = Binder(
            kube=kube,
            picture=self.picture,
            extender=self.extender,
            holds=self.holds,
            waiting=self.waiting,
            locks=self._locks,
            events=self.events,
            counters=self.counters,
            clock=clock,
        )
        self._what_if = WhatIf(self.picture, settings, self.counters)
        usernames = frozenset({username} if username else ())
        self._webhook = Webhook(self.picture, settings, scheduler_usernames=usernames)
        self._metrics = Metrics(self.picture, self.counters, legacy=options.legacy_metrics, refresh=self._refresh)
        self._watches: dict[Kind, Watch] = {
            Kind.NODES: watch(kube, NODES),
            Kind.PODS: watch(kube, PODS, field_selector=LIVING),
            Kind.QUOTAS: watch(kube, QUOTAS),
        }
        self._present: set[PodUid] = set()
        """Pods in the listing under way, or known since."""
        self._once_listed = False

    async def run(self, *, task_status: TaskStatus[Bound] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Started when all servers listen; ready when the cluster is listed."""
        options = self._options
        certificate = None
        if options.cert is not None and options.key is not None:
            certificate = Certificate(options.cert, options.key)
        async with anyio.create_task_group() as tasks:
            for kind, fold in (
                (Kind.NODES, self._fold_node),
                (Kind.PODS, self._fold_pod),
                (Kind.QUOTAS, self._fold_quota),
            ):
                tasks.start_soon(self._follow, self._watches[kind], fold, name=f"watch {kind.value}")
            if options.lease is not None:
                tasks.start_soon(self._follow_lease, *options.lease, name="watch lease")
            tasks.start_soon(self.events.run, name="write events")
            tasks.start_soon(self.waiting.run, name="nudge waiting pods")
            tasks.start_soon(self._tidy.run, name="add missing labels")
            tasks.start_soon(self._expire, name="expire holds")
            if certificate is not None:
                tasks.start_soon(certificate.follow, name="follow certificate")
            bound = await self._listen(tasks, certificate)
            log.info(
                "listening: http %s, extender %s, metrics %s", bound.http, bound.extender or bound.http, bound.metrics
            )
            task_status.started(bound)

    async def _listen(self, tasks: anyio.abc.TaskGroup, certificate: Certificate | None) -> Bound:
        options = self._options
        deciding: dict[tuple[str, str], Route] = {
            ("POST", "/filter"): _now(self.extender.filter),
            ("POST", "/prioritize"): _now(self.extender.prioritize),
            ("POST", "/preempt"): _now(self._what_if.preempt),
            ("POST", "/filter-simulation"): _now(self._what_if.simulate),
            ("POST", "/bind"): _later(self._binder.bind),
        }
        health: dict[tuple[str, str], Route] = {
            ("GET", "/healthz"): Decide(lambda body: Answer()),
            ("GET", "/readyz"): Decide(self._ready),
        }
        public = {**health, ("POST", "/webhook"): _now(self._webhook.review)}
        extender = metrics = None
        if options.extender is None:
            public |= deciding
        else:
            app = App({**health, **deciding})
            extender = await tasks.start(partial(serve, app, options.extender), name="serve extender")
        http = await tasks.start(partial(serve, App(public), options.http, certificate=certificate), name="serve http")
        if options.metrics is not None:
            app = App({("GET", "/metrics"): Act(self._scrape), ("GET", "/healthz"): Decide(lambda body: Answer())})
            metrics = await tasks.start(partial(serve, app, options.metrics), name="serve metrics")
        return Bound(http=http, extender=extender, metrics=metrics)

    # Following the cluster

    async def _follow(self, stream: Watch, fold: Callable[[Event], None]) -> None:
        try:
            async for event in stream:
                fold(event)
        finally:
            stream.close()

    def _fold_node(self, event: Event) -> None:
        if self.picture.fold_node(event):
            self.waiting.room()
        if not isinstance(event, Listed):
            name = (event.object.get("metadata") or {}).get("name")
            self._locks.node_changed(NodeName(str(name)))
        self._note_listed()

    def _fold_quota(self, event: Event) -> None:
        self.picture.fold_quota(event)
        self.waiting.room()
        self._note_listed()

    def _fold_pod(self, event: Event) -> None:
        change = self.picture.fold_pod(event)
        if change is not None:
            self._take(change)
        if isinstance(event, Listed):
            if self.holds.reconcile(self._present, since=event.since):
                self.waiting.room()
            self._note_listed()

    def _take(self, change: PodChange) -> None:
        freed = change.freed
        match change.where:
            case Where.GONE:
                self._present.discard(change.uid)
                self.holds.saw_gone(change.uid)
                self.waiting.done(change.uid)
            case Where.BOUND:
                self._present.add(change.uid)
                self.holds.saw_bound(change.uid)
                self.waiting.done(change.uid)
                active = self.leadership.active(self._clock.monotonic())
                if change.label_missing and change.node is not None and active:
                    self._tidy.label(change.key, change.uid, change.node)
            case Where.UNBOUND:
                self._present.add(change.uid)
                freed = self.holds.saw_unbound(change.uid, change.foreign, now=self._clock.monotonic())
        if freed:
            self.waiting.room()

    def _note_listed(self) -> None:
        if self.picture.listed and not self._once_listed:
            self._once_listed = True
            # What is there now mostly stays: the collector need not walk tens of thousands of records again and again,
            # which would stop every decision for as long as it takes.
            gc.collect()
            gc.freeze()
            log.info(
                "synced: %d nodes, %d pods with devices", len(self.picture.ledger.nodes), len(self.picture.ledger.pods)
            )

    async def _follow_lease(self, namespace: str, name: str) -> None:
        stream = watch(self._kube, LEASES, namespace=namespace, field_selector=f"metadata.name={name}")
        role: bool | None = None
        try:
            async for event in stream:
                if self.leadership.fold(event, self._clock.monotonic()):
                    # Another leader may have bound pods that our watches have not shown yet.
                    for kind, one in self._watches.items():
                        self.picture.expect(kind, one.relist())
                active = self.leadership.active(self._clock.monotonic())
                if active is not role:
                    role = active
                    log.info("%s", "active" if active else self.leadership.why_not(self._clock.monotonic()))
                    await self._label_role(active)
        finally:
            stream.close()

    async def _label_role(self, leader: bool) -> None:
        if self._options.pod is None:
            return
        try:
            labels = {keys.SCHEDULER_ROLE: "leader" if leader else "follower"}
            await self._kube.annotate_pod(*self._options.pod, {}, labels=labels)
        except KubeError as error:
            log.warning("own pod's role not labelled: %s", error)

    async def _expire(self) -> None:
        while True:
            await anyio.sleep(5)
            if self.holds.expire(self._clock.monotonic()):
                self.waiting.room()

    def _tell_problem(self, problem: Problem) -> None:
        self.counters.problems.inc()
        log.warning("%s %s/%s: %s", problem.kind, problem.namespace, problem.name, problem.text)
        # A node's events carry its name as uid, as the kubelet's do.
        uid = problem.name if problem.kind == "Node" else problem.uid
        subject = Subject(kind=problem.kind, namespace=problem.namespace, name=problem.name, uid=uid)
        self.events.tell(subject, "InvalidAnnotation", problem.text, warning=True)

    # Answering

    def _ready(self, body: bytes) -> Answer:
        # A change of leader lists afresh; the webhook behind this check goes on meanwhile.
        return Answer() if self._once_listed else Answer(b"not synced", 503, b"text/plain; charset=utf-8")

    async def _scrape(self, body: bytes, gone: anyio.Event) -> Answer:
        return Answer(await self._metrics.text(), content_type=CONTENT_TYPE)

    def _refresh(self) -> None:
        self.counters.holds.labels(zone="vGPU").set(len(self.holds))
        self.counters.waiting.labels(zone="vGPU").set(len(self.waiting))
        self.counters.active.labels(zone="vGPU").set(self.leadership.active(self._clock.monotonic()))


async def until_told_to_stop(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a service until SIGTERM or SIGINT, then let it finish."""
    async with anyio.create_task_group() as tasks:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            tasks.start_soon(run, name="service")
            async for number in signals:
                log.info("%s: stopping", signal.Signals(number).name)
                tasks.cancel_scope.cancel()
                return


def _now(handler: Callable[[bytes], bytes]) -> Route:
    return Decide(lambda body: Answer(handler(body)))


def _later(handler: Callable[[bytes, anyio.Event], Awaitable[bytes]]) -> Route:
    async def answer(body: bytes, gone: anyio.Event) -> Answer:
        return Answer(await handler(body, gone))

    return Act(answer)
