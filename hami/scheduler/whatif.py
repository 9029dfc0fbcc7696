"""Questions that change nothing: would evicting these pods help, and where could a pod go among nodes as described.

Both are answered by the same engine as real decisions, on a ledger that is put back, or made up, for the moment.
"""

from hami.alloc import record
from hami.alloc.ledger import Ledger
from hami.alloc.place import place, place_on
from hami.alloc.request import RequestError, read_request
from hami.cluster.picture import Picture
from hami.model.claim import Assignment, Placed, PodRequest
from hami.model.names import NodeName, WireError
from hami.model.settings import SchedulerSettings
from hami.model.wire import extender as wire
from hami.model.wire.extender import FilterCall, Victims
from hami.scheduler import verdicts
from hami.scheduler.counters import Counters
from hami.scheduler.extender import candidates, error_answer, only


class WhatIf:
    """Answers `/preempt` and `/filter-simulation`: bytes in, bytes out."""

    def __init__(self, picture: Picture, settings: SchedulerSettings, counters: Counters) -> None:
        self._picture = picture
        self._settings = settings
        self._counters = counters

    def preempt(self, body: bytes) -> bytes:
        """Of the proposed evictions, those after which the pod would have its devices; none before we know all pods."""
        call = wire.read_preempt(body)
        if not self._picture.listed:
            return wire.write_preempt({})
        try:
            request = read_request(call.pod, self._picture.registry)
        except RequestError:
            # No eviction makes room for a request that no node can serve.
            return wire.write_preempt({})
        if not request.vendors:
            return wire.write_preempt(call.victims)
        return wire.write_preempt(
            {node: victims for node, victims in call.victims.items() if self._fits_without(request, node, victims)}
        )

    def _fits_without(self, request: PodRequest, node: NodeName, victims: Victims) -> bool:
        # The victims leave the ledger and come back before anyone else can look.
        ledger = self._picture.ledger
        leaving = [pod for uid in victims.uids if (pod := ledger.pod(uid)) is not None and pod.node == node]
        for pod in leaving:
            ledger.drop_pod(pod.uid)
        try:
            verdict = place_on(
                ledger,
                request,
                node,
                card_policy=self._settings.card_policy,
                quota=self._picture.quotas,
                exclude=request.uid,
            )
            return isinstance(verdict, Assignment)
        finally:
            for pod in leaving:
                ledger.put_pod(pod)

    def simulate(self, body: bytes) -> bytes:
        """Every node that could take the pod, best first, and why the others could not.

        Nodes come as full objects, so an autoscaler can ask about ones that do not exist yet; pods that are known to be
        on a node of that name count. Nodes given by name only are taken from the picture.
        """
        self._counters.filtered("simulation")
        try:
            call = wire.read_filter(body)
            names = candidates(call)
            request = read_request(call.pod, self._picture.registry)
        except WireError as error:
            return error_answer(str(error))
        if not request.vendors:
            return wire.write_filter_result(node_names=list(names), nodes=call.nodes, failed=None, error="")
        verdict = place(
            self._ledger(call, names, request),
            request,
            names,
            node_policy=self._settings.node_policy,
            card_policy=self._settings.card_policy,
            quota=self._picture.quotas,
            exclude=request.uid,
        )
        chosen = [name for name, _ in verdict.scores] if isinstance(verdict, Placed) else []
        failed = verdicts.texts(verdict.refusals)
        return wire.write_filter_result(node_names=chosen, nodes=only(call, chosen), failed=failed, error="")

    def _ledger(self, call: FilterCall, names: tuple[NodeName, ...], request: PodRequest) -> Ledger:
        known = self._picture.ledger
        if call.nodes is None:
            return known
        imagined = Ledger(self._picture.registry)
        for node in call.nodes:
            found, _ = record.read_node(node, self._picture.registry)
            imagined.put_node(found)
        for name in names:
            for pod in known.pods_on(name):
                imagined.put_pod(pod)
        for pod in known.pods.values():
            # On other nodes they still count against the namespace's quota.
            if pod.key.namespace == request.key.namespace:
                imagined.put_pod(pod)
        return imagined
