"""A pod's way to its node, for plug-ins that wait for the lock and the annotations of a scheduler."""

import copy

from hami.alloc.admit import admit
from hami.alloc.ledger import Ledger, hold_of
from hami.alloc.place import place
from hami.alloc.record import annotations
from hami.alloc.request import read_request
from hami.model.claim import Placed, Segments
from hami.model.names import PodKey
from hami.model.settings import SchedulerSettings
from hami.model.vendor import Registry, Vendor
from hami.model.wire import pod as keys
from tests.agent.conftest import NODE
from tests.alloc.jsonpatch import apply_patch
from tests.fakes.apiserver import FakeApi, Json


def bind(document: Json, vendor: Vendor, ledger: Ledger, api: FakeApi) -> Segments:
    """The pod admitted, placed by the engine and bound, its node locked as the family's plug-in expects it."""
    known = Registry((vendor,))
    verdict = admit(
        document,
        registry=known,
        settings=SchedulerSettings(scheduler_name="hami-scheduler"),
        namespace="default",
        username="somebody",
    )
    assert verdict.allowed, verdict.message
    pod = apply_patch(document, verdict.patch)
    asked = read_request(pod, known)
    placed = place(ledger, asked, [NODE], node_policy="binpack", card_policy="binpack")
    assert isinstance(placed, Placed), placed
    node = ledger.node(NODE)
    written = annotations(placed.assignment, known, now_unix=1_787_299_200, request=asked, node=node)
    ledger.put_pod(hold_of(asked, placed.assignment))
    pod["metadata"]["annotations"].update(written)
    pod["spec"]["nodeName"] = NODE
    api.put("pods", pod)
    if vendor.lock_key:
        held = copy.deepcopy(api.get("nodes", NODE))
        own = vendor.lock_key != keys.NODE_LOCK
        text = keys.write_lock(1_787_299_200, PodKey("default", pod["metadata"]["name"]))
        held["metadata"].setdefault("annotations", {})[vendor.lock_key] = text.split(",")[0] if own else text
        api.put("nodes", held)
    return placed.assignment.segments[vendor.name]
