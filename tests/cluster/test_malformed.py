"""Fifty malformed pods and nodes: each gets one clear refusal or event that names the field; nobody else notices."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.cluster.harness.api import Api, ApiError, Json
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.services import AGENT, SCHEDULER, SCHEDULER_NAME, Services
from tests.cluster.harness.waiting import eventually, holds
from tests.cluster.nodes import PROTOCOL, REGISTER, described, described_nodes, inventory
from tests.cluster.pods import CARD_POLICY, DONE, NODE_POLICY, Namespace, allocation, container, pod, unique
from tests.cluster.probe import assert_sees_its_own, look

UNSEEN = {"hami.io/webhook": "ignore"}
"""A pod with this label goes past the webhook, as all do while it is unreachable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Something malformed, and the field that whoever wrote it must be told of."""

    name: str
    names: str
    """The field that the answer must contain."""
    limits: Mapping[str, object] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    init: bool = False
    """The malformed container is an init container; the app container is fine."""

    def __str__(self) -> str:
        return self.name


def limit(name: str) -> str:
    return f"spec.containers[0].resources.limits[nvidia.com/{name}]"


def note(key: str) -> str:
    return f"metadata.annotations[{key}]"


@pytest.fixture(scope="module")
def crowd(cluster: Cluster, services: Services, api: Api) -> Iterator[Namespace]:
    """A namespace with three valid pods that run on the real node, checked untouched when all cases are through."""
    space = Namespace(api, unique("malformed"))
    space.open()
    pids = {name: _pid(cluster, name) for name in (SCHEDULER, AGENT)}
    valid = [space.run(pod(f"valid-{n}", container("main", look(), gpu=1, gpumem=900 + n))) for n in range(3)]
    yield space
    for before in valid:
        name = before["metadata"]["name"]
        after = space.get(name)
        assert after["status"]["phase"] == "Running"
        assert allocation(after) == allocation(before)
        assert_sees_its_own(space, after)
    assert {name: _pid(cluster, name) for name in (SCHEDULER, AGENT)} == pids, "neither service has restarted"
    assert_sees_its_own(space, space.run(pod("valid-last", container("main", look(), gpu=1, gpumem=950))))
    space.close()


def _pid(cluster: Cluster, name: str) -> int | None:
    record = cluster.processes.find(name)
    return record.pid if record else None


REFUSED = [
    Case(name="a fraction of a device", names="nvidia.com/gpu", limits={"gpu": "1500m"}),
    Case(name="a negative count", names="nvidia.com/gpu", limits={"gpu": -1}),
    Case(name="a count beyond 32 bits", names=limit("gpu"), limits={"gpu": "9999999999"}),
    Case(name="memory with a suffix", names=limit("gpumem"), limits={"gpu": 1, "gpumem": "16Gi"}),
    Case(name="memory beyond 32 bits", names=limit("gpumem"), limits={"gpu": 1, "gpumem": 2**31}),
    Case(name="giant memory", names=limit("gpumem"), limits={"gpu": 1, "gpumem": "9223372036854775807"}),
    Case(name="memory in exponents", names=limit("gpumem"), limits={"gpu": 1, "gpumem": "1e18"}),
    Case(name="negative memory", names="nvidia.com/gpumem", limits={"gpu": 1, "gpumem": -5}),
    Case(name="percentage over 100", names="nvidia.com/gpumem-percentage", limits={"gpu": 1, "gpumem_percentage": 150}),
    Case(name="negative percentage", names="nvidia.com/gpumem-percentage", limits={"gpu": 1, "gpumem_percentage": -1}),
    Case(name="negative cores", names="nvidia.com/gpucores", limits={"gpu": 1, "gpumem": 100, "gpucores": -1}),
    Case(
        name="an init container's memory",
        names="spec.initContainers[0].resources.limits[nvidia.com/gpumem]",
        limits={"gpu": 1, "gpumem": "16Gi"},
        init=True,
    ),
    *(
        Case(name=f"forged {key}", names=key, limits={"gpu": 1, "gpumem": 100}, annotations={key: value})
        for key, value in {
            DONE: "GPU-x,NVIDIA,1,0:;",
            "hami.io/vgpu-devices-to-allocate": "GPU-x,NVIDIA,1,0:;",
            "hami.io/vgpu-node": "127.0.0.1",
            "hami.io/vgpu-time": "1",
            "hami.io/bind-time": "1",
            "hami.io/bind-phase": "success",
            "hami.io/vgpu-mig-allocations": "[]",
        }.items()
    ),
]


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_refused_at_creation(crowd: Namespace, case: Case) -> None:
    asking = container(**case.limits)
    body = pod("refused", container(), init=[asking]) if case.init else pod("refused", asking)
    body["metadata"]["annotations"] = dict(case.annotations)
    with pytest.raises(ApiError) as refusal:
        crowd.create(body)
    assert case.names in refusal.value.message
    assert 400 <= refusal.value.status < 600


UNPLACEABLE = [
    Case(name="memory with a suffix, unseen", names=limit("gpumem"), limits={"gpu": 1, "gpumem": "16Gi"}),
    Case(name="giant count, unseen", names=limit("gpu"), limits={"gpu": "9999999999"}),
    Case(name="giant memory, unseen", names=limit("gpumem"), limits={"gpu": 1, "gpumem": "9223372036854775807"}),
    Case(
        name="weights that are no numbers",
        names=note("hami.io/device-scoring-weights"),
        limits={"gpu": 1, "gpumem": 100},
        annotations={"hami.io/device-scoring-weights": "slot=x,core=1,memory=1"},
    ),
    Case(
        name="weights that lack one",
        names=note("hami.io/device-scoring-weights"),
        limits={"gpu": 1, "gpumem": 100},
        annotations={"hami.io/device-scoring-weights": "slot=1,core=1"},
    ),
]


@pytest.mark.parametrize("case", UNPLACEABLE, ids=str)
def test_left_pending_with_one_event(crowd: Namespace, case: Case) -> None:
    name = unique("unplaceable")
    body = pod(
        name,
        container(**case.limits),
        annotations=case.annotations,
        labels=UNSEEN,
        schedulerName=SCHEDULER_NAME,
    )
    crowd.create(body)
    assert case.names in crowd.wait_event(name, "FilteringFailed")
    holds("it stays unbound", lambda: "nodeName" not in crowd.get(name)["spec"], 1)
    assert len([event for event in crowd.events(name) if event["reason"] == "FilteringFailed"]) == 1
    crowd.delete(name)


@pytest.mark.parametrize("key", [NODE_POLICY, CARD_POLICY])
def test_an_unknown_policy_word_is_named_and_the_pod_runs(crowd: Namespace, key: str) -> None:
    name = unique("policy")
    crowd.run(pod(name, container(gpu=1, gpumem=100), annotations={key: "sideways"}))
    message = eventually(
        "an event that names the word",
        lambda: next((e["message"] for e in crowd.events(name) if "sideways" in e["message"]), None),
        10,
    )
    assert key in message
    crowd.delete(name)


BOOKED = [
    ("a card without cores", 1, "GPU-n-0,NVIDIA,1000:;"),
    ("memory that is no number", 1, "GPU-n-0,NVIDIA,lots,10:;"),
    ("negative memory", 1, "GPU-n-0,NVIDIA,-1000,10:;"),
    ("negative cores", 1, "GPU-n-0,NVIDIA,1000,-10:;"),
    ("memory beyond 32 bits", 1, "GPU-n-0,NVIDIA,99999999999,10:;"),
    ("one good card of two", 2, "GPU-n-0,NVIDIA,1000,10:GPU-n-1,NVIDIA,x,10:;"),
    ("more containers than the pod has", 1, "GPU-n-0,NVIDIA,1000,10:;GPU-n-1,NVIDIA,1000,10:;GPU-n-1,NVIDIA,1,1:;"),
    ("more cards than were asked", 1, "GPU-n-0,NVIDIA,1000,10:GPU-n-1,NVIDIA,1000,10:;"),
    ("digits without end", 1, f"GPU-n-0,NVIDIA,{'9' * 10000},10:;"),
    ("no separators", 1, "x" * 50000),
]
"""What is wrong, how many cards the pod asks for, and the annotation."""


@pytest.fixture(scope="module")
def booked_node(api: Api, services: Services) -> Iterator[str]:
    """A described node with two cards, to which pods with any annotation can be bound."""
    name = unique("booked")
    notes = {REGISTER: inventory("n", 2), PROTOCOL: "1;families=NVIDIA;devices=cdi"}
    with described_nodes(api, [described(name, annotations=notes)]):
        yield name


@pytest.mark.parametrize(("count", "value"), [row[1:] for row in BOOKED], ids=[row[0] for row in BOOKED])
def test_a_bound_pod_with_an_unreadable_allocation(crowd: Namespace, booked_node: str, count: int, value: str) -> None:
    name = unique("booked")
    asking = container(gpu=count, gpumem=1000)
    annotations = {DONE: value, "hami.io/vgpu-node": booked_node}
    crowd.create(pod(name, asking, annotations=annotations, labels=UNSEEN, nodeName=booked_node))
    (message,) = eventually("one event that names the annotation", lambda: _naming(crowd.events(name), DONE), 10)
    assert len(message.encode()) <= 1024
    crowd.delete(name, grace_s=0)


GOOD_CARD = {"id": "GPU-z-0", "count": 10, "devmem": 16384, "devcore": 100, "type": "NVIDIA A100", "health": True}
INVENTORIES: list[tuple[str, str]] = [
    ("not JSON", '[{"id":'),
    ("neither form", "nothing of the kind"),
    ("numbers instead of cards", "[1,2]"),
    ("a text as memory", json.dumps([{**GOOD_CARD, "devmem": "16384"}])),
    ("giant memory", json.dumps([{**GOOD_CARD, "devmem": 10**12}])),
    ("negative memory", json.dumps([{**GOOD_CARD, "devmem": -1}])),
    ("a negative count", json.dumps([{**GOOD_CARD, "count": -1}])),
    ("a negative index", json.dumps([{**GOOD_CARD, "index": -1}])),
    ("a fraction of cores", json.dumps([{**GOOD_CARD, "devcore": 0.5}])),
    ("colon form with five fields", "GPU-z-0,10,16384,100,NVIDIA A100:"),
    ("colon form with a wrong flag", "GPU-z-0,10,16384,100,NVIDIA A100,0,perhaps:"),
    ("colon form with a wrong number", "GPU-z-0,ten,16384,100,NVIDIA A100,0,true:"),
    ("deep nesting", "[" * 20000),
]


@pytest.mark.parametrize("value", [value for _, value in INVENTORIES], ids=[what for what, _ in INVENTORIES])
def test_a_node_with_an_unreadable_inventory(crowd: Namespace, api: Api, value: str) -> None:
    name = unique("broken")
    notes = {REGISTER: value, PROTOCOL: "1;families=NVIDIA;devices=cdi"}
    with described_nodes(api, [described(name, annotations=notes)]):
        (message,) = eventually(
            "one event that names the annotation", lambda: _naming(_of_node(api, name), REGISTER), 10
        )
        assert len(message.encode()) <= 1024
        # A pod that may run nowhere else is told that the node has no devices.
        asking = unique("asking")
        crowd.create(pod(asking, container(gpu=1, gpumem=100), nodeSelector={"kubernetes.io/hostname": name}))
        assert re.search("node unregistered", crowd.wait_event(asking, "FilteringFailed"))
        crowd.delete(asking)


def test_a_card_listed_twice_costs_only_its_repetition(crowd: Namespace, api: Api) -> None:
    name = unique("broken")
    twice = json.dumps([GOOD_CARD, {**GOOD_CARD, "index": 1}])
    notes = {REGISTER: twice, PROTOCOL: "1;families=NVIDIA;devices=cdi"}
    with described_nodes(api, [described(name, annotations=notes)]):
        (message,) = eventually(
            "one event that names the annotation", lambda: _naming(_of_node(api, name), REGISTER), 10
        )
        assert "every UUID once" in message
        asking = unique("asking")
        crowd.create(pod(asking, container(gpu=1, gpumem=100), nodeSelector={"kubernetes.io/hostname": name}))
        eventually("the pod on the node", lambda: crowd.get(asking)["spec"].get("nodeName") == name, 20)
        ((card,),) = allocation(crowd.get(asking))
        assert card.uuid == GOOD_CARD["id"]
        crowd.delete(asking, grace_s=0)


def _of_node(api: Api, name: str) -> list[Json]:
    return [event for event in api.items("/api/v1/events") if event["involvedObject"].get("name") == name]


def _naming(events: list[Json], words: str) -> list[Any] | None:
    """Messages of the warnings that contain `words`; None while there is none."""
    return [e["message"] for e in events if e["type"] == "Warning" and words in e["message"]] or None
