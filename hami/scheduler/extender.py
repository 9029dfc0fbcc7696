"""The extender's decisions: which node and devices a pod gets, in one synchronous step over the picture.

Nothing here waits and nothing is written: a decision becomes a hold, and `/bind` writes it (`binding`). What cannot be
decided is an `Error` in the answer, which makes the pod try again; "no node fits" is only said when it is known,
because kube-scheduler may evict other pods on the strength of it.
"""

import logging
from collections.abc import Iterable, Mapping
from itertools import accumulate, pairwise
from typing import Any, Final

from hami.alloc import defragment, record
from hami.alloc.explain import asks
from hami.alloc.place import place, place_on
from hami.alloc.request import RequestError, WeightsError, read_request, warnings
from hami.cluster.picture import Picture
from hami.model.claim import NodeRefusal, Placed, PodRequest, Refused, Why
from hami.model.names import NodeName, WireError, clip
from hami.model.settings import SchedulerSettings
from hami.model.wire import extender as wire
from hami.model.wire.extender import FilterCall
from hami.scheduler import verdicts
from hami.scheduler.clock import Clock
from hami.scheduler.counters import Counters
from hami.scheduler.events import Subject, Teller
from hami.scheduler.holds import Hold, Holds, State
from hami.scheduler.leader import Leadership
from hami.scheduler.waiting import Waiting

log = logging.getLogger(__name__)

ASKED: Final = 300
"""Characters of an event that say what a pod asks for."""
BEST: Final = 10
"""kube-scheduler's highest extender priority."""


class NotDeciding(Exception):
    """This process does not decide now; the text says why."""


class Extender:
    """Answers `/filter` and `/prioritize`: bytes in, bytes out."""

    def __init__(
        self,
        *,
        picture: Picture,
        holds: Holds,
        waiting: Waiting,
        events: Teller,
        leadership: Leadership,
        counters: Counters,
        settings: SchedulerSettings,
        clock: Clock,
    ) -> None:
        self._picture = picture
        self._holds = holds
        self._waiting = waiting
        self._events = events
        self._leadership = leadership
        self._counters = counters
        self._settings = settings
        self._clock = clock

    def check_deciding(self) -> None:
        """Raise NotDeciding unless this process is the active one and knows the whole cluster."""
        now = self._clock.monotonic()
        if not self._leadership.active(now):
            raise NotDeciding(self._leadership.why_not(now))
        if not self._picture.listed:
            raise NotDeciding("not synced: nodes and pods are still being listed")

    def filter(self, body: bytes) -> bytes:
        """`/filter`: the best node (or all fitting ones, best held), or why none fits."""
        with self._counters.timing_filter():
            try:
                call = wire.read_filter(body)
                self.check_deciding()
                return self._filter(call)
            except WireError as error:
                self._counters.filtered("invalid_request")
                return error_answer(str(error))
            except NotDeciding as error:
                self._counters.filtered("not_active")
                return error_answer(str(error))

    def _filter(self, call: FilterCall) -> bytes:
        names = candidates(call)
        subject = _subject(call.pod)
        try:
            request = read_request(call.pod, self._picture.registry)
        except WeightsError as error:
            text = f"calcScore failed {error} for pod {subject.name}"
            self._events.tell(subject, "FilteringFailed", text, warning=True)
            self._counters.filtered("score_failed")
            return error_answer(text)
        except RequestError as error:
            return self._invalid(call, names, subject, error)
        if not request.vendors:
            self._counters.filtered("no_hami_resource")
            return wire.write_filter_result(node_names=call.node_names, nodes=call.nodes, failed=None, error="")
        for text in warnings(call.pod):
            self._events.tell(subject, "PolicyIgnored", text, warning=True)
        hold = self._holds.get(request.uid)
        if hold is not None and hold.state in (State.BINDING, State.BOUND):
            self._counters.filtered("bind_under_way")
            return error_answer(f"pod {request.key} is being bound to node {hold.record.node}")
        if hold is not None and hold.state is State.UNSURE and hold.record.node in names:
            # It may be bound there already, with these devices: the same answer again leads to the same Binding.
            self._counters.filtered()
            again = [hold.record.node]
            return wire.write_filter_result(node_names=again, nodes=only(call, again), failed=None, error="")
        if self._holds.is_gone(request.uid):
            self._counters.filtered("pod_not_found")
            return error_answer(f"pod {request.key} has ended or was deleted")
        freed = self._holds.release(request.uid) + self._holds.expire(self._clock.monotonic())
        verdict = self._place(request, names)
        if freed:
            self._waiting.room()
        match verdict:
            case Placed():
                return self._placed(call, request, verdict, subject)
            case Refused():
                return self._refused(call, request, verdict, subject, names)

    def _place(self, request: PodRequest, names: tuple[NodeName, ...]) -> Placed | Refused:
        return place(
            self._picture.ledger,
            request,
            names,
            node_policy=self._settings.node_policy,
            card_policy=self._settings.card_policy,
            quota=self._picture.quotas,
            request_scored=self._settings.score_request,
        )

    def _placed(self, call: FilterCall, request: PodRequest, placed: Placed, subject: Subject) -> bytes:
        self._holds.put(
            request,
            placed.assignment,
            now=self._clock.monotonic(),
            earlier_keys=record.stale_keys(call.pod, {}, self._picture.registry),
            scores=tuple(placed.scores) if self._settings.filter_answer == "ranked" else (),
        )
        self._waiting.done(request.uid)
        self._events.tell(subject, "FilteringSucceed", verdicts.found(placed))
        self._counters.filtered()
        log.info("pod %s: node %s of %d", request.key, placed.assignment.node, len(placed.scores))
        ranked = self._settings.filter_answer == "ranked"
        chosen = [name for name, _ in placed.scores] if ranked else [placed.assignment.node]
        return wire.write_filter_result(node_names=chosen, nodes=only(call, chosen), failed=None, error="")

    def _refused(
        self,
        call: FilterCall,
        request: PodRequest,
        refused: Refused,
        subject: Subject,
        names: tuple[NodeName, ...],
    ) -> bytes:
        self._waiting.refused(request, names)
        # Made into values once: each look at a refusal of thousands costs as much as judging its node did.
        refusals = dict(refused.refusals)
        cut = [name for name, refusal in refusals.items() if Why.MIG_INFEASIBLE in refusal.counts]
        hint = defragment.hint(self._picture.ledger, request, cut)
        registry = self._picture.registry
        text = verdicts.refused(refusals, hint.text if hint else "", registry, clip(asks(request, registry), ASKED))
        self._events.tell(subject, "FilteringFailed", text, warning=True)
        self._counters.filtered("no_fitting_node")
        log.info("pod %s: %s", request.key, text)
        failed = verdicts.texts(refusals)
        return wire.write_filter_result(node_names=None, nodes=only(call, ()), failed=failed, error="")

    def _invalid(self, call: FilterCall, names: tuple[NodeName, ...], subject: Subject, error: RequestError) -> bytes:
        """A request that no node can ever serve: refused everywhere, and its author is told the field."""
        word = Why.INVALID_REQUEST.word
        self._events.tell(
            subject,
            "FilteringFailed",
            f"no available node, {len(names)} nodes do not meet: {word}: {error}",
            warning=True,
        )
        self._counters.filtered("invalid_request")
        log.info("pod %s/%s: %s", subject.namespace, subject.name, error)
        failed = dict.fromkeys(names, f"{word}: {clip(str(error))}")
        return wire.write_filter_result(node_names=None, nodes=only(call, ()), failed=failed, error="")

    def prioritize(self, body: bytes) -> bytes:
        """`/prioritize`: 10 for the best node down to 0, equal for equal scores, by the ranking the filter found."""
        call = wire.read_filter(body)
        names = candidates(call)
        ranks = self._ranks(call, names)
        return wire.write_priorities((name, ranks.get(name, 0)) for name in names)

    def _ranks(self, call: FilterCall, names: tuple[NodeName, ...]) -> Mapping[NodeName, int]:
        try:
            request = read_request(call.pod, self._picture.registry)
        except RequestError:
            return {}
        if not request.vendors:
            return {}
        hold = self._holds.get(request.uid)
        scores = hold.scores if hold is not None else ()
        if not scores:
            verdict = self._place(request, names)
            scores = tuple(verdict.scores) if isinstance(verdict, Placed) else ()
        return priorities(scores)

    def hold_on(self, request: PodRequest, node: NodeName, *, earlier_keys: Iterable[str]) -> Hold | NodeRefusal:
        """Devices on the one node that kube-scheduler picked, held in place of an earlier hold of the pod."""
        verdict = place_on(
            self._picture.ledger,
            request,
            node,
            card_policy=self._settings.card_policy,
            quota=self._picture.quotas,
            exclude=request.uid,
            request_scored=self._settings.score_request,
        )
        if isinstance(verdict, NodeRefusal):
            return verdict
        return self._holds.put(request, verdict, now=self._clock.monotonic(), earlier_keys=earlier_keys)


def priorities(scores: tuple[tuple[NodeName, float], ...]) -> dict[NodeName, int]:
    """Scores in ranked order as 0..10: equal neighbors are equal, the best is 10, the worst 0 unless all are best.

    The rank counts, not the score's size: where links come first, a lower score may rank higher.
    """
    steps = [int(score != before) for (_, before), (_, score) in pairwise(scores)]
    levels = list(accumulate(steps, initial=0))
    last = max(1, levels[-1])
    return {name: BEST - BEST * level // last for (name, _), level in zip(scores, levels, strict=False)}


def candidates(call: FilterCall) -> tuple[NodeName, ...]:
    """The nodes a call offers, by name."""
    if call.node_names is not None:
        return call.node_names
    if call.nodes is not None:
        return tuple(NodeName(node["metadata"]["name"]) for node in call.nodes)
    raise WireError("NodeNames", "candidates, as NodeNames or as Nodes")


def only(call: FilterCall, chosen: Iterable[NodeName]) -> list[wire.Node] | None:
    """The chosen node objects, where the caller works with objects."""
    if call.nodes is None:
        return None
    wanted = frozenset(chosen)
    return [node for node in call.nodes if node["metadata"]["name"] in wanted]


def _subject(pod: Mapping[str, Any]) -> Subject:
    metadata = pod.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    return Subject(
        kind="Pod",
        namespace=str(metadata.get("namespace") or ""),
        name=str(metadata.get("name") or ""),
        uid=str(metadata.get("uid") or ""),
    )


def error_answer(text: str) -> bytes:
    """A filter's answer when nothing was decided."""
    return wire.write_filter_result(node_names=None, failed=None, error=text)
