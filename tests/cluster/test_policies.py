"""Every way a pod, a node or a flag chooses devices, each on a real scheduler and kubelet."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster.harness.api import Api, ApiError
from tests.cluster.harness.layout import NODE
from tests.cluster.harness.services import Services
from tests.cluster.harness.waiting import eventually, holds
from tests.cluster.nodes import (
    CORDON,
    LOCK,
    PROTOCOL,
    REGISTER,
    RegisteredCard,
    cards,
    described,
    described_nodes,
    inventory,
    node_annotation,
)
from tests.cluster.pods import CARD_POLICY, DONE, NODE_POLICY, Card, Namespace, allocation, container, pod, unique

USE_TYPE, AVOID_TYPE = "nvidia.com/use-gputype", "nvidia.com/nouse-gputype"
USE_UUID, AVOID_UUID = "nvidia.com/use-gpuuuid", "nvidia.com/nouse-gpuuuid"


@pytest.fixture
def a100s(api: Api, services: Services) -> list[RegisteredCard]:
    return [card for card in cards(api) if "A100" in card.model]


@pytest.fixture
def t4s(api: Api, services: Services) -> list[RegisteredCard]:
    return [card for card in cards(api) if "T4" in card.model]


def placed(space: Namespace, name: str, annotations: dict[str, str] | None = None, **limits: object) -> list[Card]:
    """Run a pod of one container with these limits and annotations; the cards it got."""
    document = space.run(pod(name, container(**limits), annotations=annotations))
    (segment,) = allocation(document)
    return segment


def refused(space: Namespace, name: str, annotations: dict[str, str] | None = None, **limits: object) -> str:
    """Create a pod that cannot be placed; the text of its one refusal. It stays Pending and unbound."""
    space.create(pod(name, container(**limits), annotations=annotations))
    message = space.wait_event(name, "FilteringFailed")
    document = space.get(name)
    assert document["status"]["phase"] == "Pending"
    assert "nodeName" not in document["spec"]
    assert DONE not in document["metadata"].get("annotations", {})
    return message


def test_percentage_memory_is_of_the_device_it_lands_on(
    space: Namespace, a100s: list[RegisteredCard], t4s: list[RegisteredCard]
) -> None:
    (small,) = placed(space, "small", {USE_TYPE: "T4"}, gpu=1, gpumem_percentage=33)
    (large,) = placed(space, "large", {USE_TYPE: "A100"}, gpu=1, gpumem_percentage=33)
    assert small.memory_mib == t4s[0].memory_mib * 33 // 100
    assert large.memory_mib == a100s[0].memory_mib * 33 // 100


def test_memory_alone_gets_one_device(space: Namespace) -> None:
    assert [card.memory_mib for card in placed(space, "memory", gpumem=1500)] == [1500]


def test_a_count_alone_is_a_whole_device_and_alone_on_it(space: Namespace, a100s: list[RegisteredCard]) -> None:
    pin = {USE_UUID: a100s[0].uuid}
    (whole,) = placed(space, "whole", pin, gpu=1)
    assert (whole.uuid, whole.memory_mib, whole.cores) == (a100s[0].uuid, a100s[0].memory_mib, 100)
    assert "1 short of memory (largest free 0 MiB)" in refused(space, "second", pin, gpu=1, gpumem=100)


def test_exclusive_by_all_cores(space: Namespace, a100s: list[RegisteredCard]) -> None:
    pin = {USE_UUID: a100s[0].uuid}
    (alone,) = placed(space, "alone", pin, gpu=1, gpumem=1000, gpucores=100)
    assert (alone.memory_mib, alone.cores) == (1000, 100)
    assert "CardComputeUnitsExhausted" in refused(space, "no-cores", pin, gpu=1, gpumem=100)
    assert "CardInsufficientCore" in refused(space, "some-cores", pin, gpu=1, gpumem=100, gpucores=10)
    shared = {USE_UUID: a100s[1].uuid}
    placed(space, "sharer", shared, gpu=1, gpumem=100, gpucores=0)
    assert "ExclusiveDeviceAllocateConflict" in refused(space, "late", shared, gpu=1, gpumem=100, gpucores=100)


@pytest.mark.parametrize(
    ("annotations", "allowed"),
    [
        ({USE_TYPE: "t4"}, "T4"),
        ({USE_TYPE: "H100,A100"}, "A100"),
        ({AVOID_TYPE: "A100"}, "T4"),
        ({USE_TYPE: "NVIDIA", AVOID_TYPE: "T4"}, "A100"),
    ],
    ids=["use a model", "use a list", "avoid a model", "use and avoid"],
)
def test_models(space: Namespace, api: Api, annotations: dict[str, str], allowed: str) -> None:
    models = {card.uuid: card.model for card in cards(api)}
    for number in range(3):
        (card,) = placed(space, f"model-{number}", annotations, gpu=1, gpumem=500)
        assert allowed in models[card.uuid]


def test_a_model_that_no_card_has(space: Namespace) -> None:
    message = refused(space, "h200", {USE_TYPE: "H200"}, gpu=1, gpumem=500)
    assert "6 devices of another model or mode than asked" in message
    assert "1 nodes CardTypeMismatch(127.0.0.1)" in message


def test_uuids(space: Namespace, a100s: list[RegisteredCard], t4s: list[RegisteredCard]) -> None:
    chosen = a100s[2].uuid
    assert [card.uuid for card in placed(space, "use", {USE_UUID: chosen}, gpu=1, gpumem=500)] == [chosen]
    others = [card.uuid for card in (*a100s, *t4s) if card.uuid != chosen]
    (left,) = placed(space, "avoid", {AVOID_UUID: ", ".join(others)}, gpu=1, gpumem=500)
    assert left.uuid == chosen
    both = {USE_UUID: f"{chosen},{a100s[1].uuid}", AVOID_UUID: chosen}
    assert [card.uuid for card in placed(space, "both", both, gpu=1, gpumem=500)] == [a100s[1].uuid]
    assert "6 devices excluded by UUID" in refused(space, "unknown", {USE_UUID: "GPU-nowhere"}, gpu=1, gpumem=500)


def test_card_policies_by_annotation(space: Namespace) -> None:
    packed = {placed(space, f"packed-{n}", {CARD_POLICY: "binpack"}, gpu=1, gpumem=500)[0].uuid for n in range(4)}
    assert len(packed) == 1
    spread = {placed(space, f"spread-{n}", {CARD_POLICY: "spread"}, gpu=1, gpumem=500)[0].uuid for n in range(5)}
    assert len(spread) == 5
    assert not packed & spread


def test_card_policies_by_flag(space: Namespace, services: Services) -> None:
    default = {placed(space, f"default-{n}", gpu=1, gpumem=500)[0].uuid for n in range(3)}
    assert len(default) == 3, "spread is the default"
    with scheduler_flags(services, "--gpu-scheduler-policy=binpack"):
        packed = {placed(space, f"packed-{n}", gpu=1, gpumem=500)[0].uuid for n in range(3)}
        assert len(packed) == 1
        (own,) = placed(space, "own", {CARD_POLICY: "spread"}, gpu=1, gpumem=500)
        assert own.uuid not in packed, "the pod's annotation goes before the flag"


def test_node_policies_by_annotation_and_flag(space: Namespace, api: Api, services: Services) -> None:
    mark = {"test": unique("n")}
    nodes = [
        described(
            unique("node-a" if first else "node-b"),
            annotations={REGISTER: inventory("a" if first else "b", 2), PROTOCOL: "1;families=NVIDIA;devices=cdi"},
            labels=mark,
        )
        for first in (True, False)
    ]

    def bound(name: str, policy: str | None = None) -> str:
        annotations = {NODE_POLICY: policy} if policy else {}
        space.create(pod(name, container(gpu=1, gpumem=500), annotations=annotations, nodeSelector=mark))
        return eventually(f"{name} bound", lambda: str(space.get(name)["spec"].get("nodeName", "")) or None, 20)

    with described_nodes(api, nodes):
        first = bound("first")
        assert [bound(f"packed-{n}", "binpack") for n in range(2)] == [first] * 2
        other = bound("spread", "spread")
        assert other != first
        assert [bound(f"flag-{n}") for n in range(2)] == [first] * 2, "binpack is the default"
        with scheduler_flags(services, "--node-scheduler-policy=spread"):
            # Five on the first node, one on the other.
            assert [bound(f"spread-flag-{n}") for n in range(2)] == [other] * 2
        for item in space.pods():
            space.delete(item["metadata"]["name"], grace_s=0)


def test_a_ranked_answer_leaves_the_choice_of_the_node_to_kube_scheduler(
    space: Namespace, api: Api, services: Services
) -> None:
    mark = {"test": unique("n")}
    names = [unique("node-a"), unique("node-b")]
    nodes = [
        described(
            name,
            annotations={REGISTER: inventory(name[:6], 2), PROTOCOL: "1;families=NVIDIA;devices=cdi"},
            labels={**mark, "side": name[5]},
        )
        for name in names
    ]

    def bound(name: str, side: str) -> str:
        term = {"matchExpressions": [{"key": "side", "operator": "In", "values": [side]}]}
        soft = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": term}]}
        affinity = {"nodeAffinity": soft}
        space.create(pod(name, container(gpu=1, gpumem=500), nodeSelector=mark, affinity=affinity))
        return eventually(f"{name} bound", lambda: str(space.get(name)["spec"].get("nodeName", "")) or None, 20)

    with described_nodes(api, nodes):
        with services.ranked():
            # Packing nodes would put all on one; the pods' soft wishes weigh more, and now they are heard.
            assert [bound(f"ranked-{n}", side) for n, side in enumerate("aba")] == [names[0], names[1], names[0]]
            for item in space.pods():
                ((card,),) = allocation(item)
                assert card.uuid.startswith(f"GPU-{item['spec']['nodeName'][:6]}"), "devices of the node it is on"
        for item in space.pods():
            space.delete(item["metadata"]["name"], grace_s=0)


def test_a_foreign_plug_in_gets_the_node_lock_it_expects(space: Namespace, api: Api, services: Services) -> None:
    mark = {"test": unique("n")}
    name = unique("foreign")
    # No protocol annotation: the node is served by somebody else's plug-in.
    with described_nodes(api, [described(name, annotations={REGISTER: inventory("f", 2)}, labels=mark)]):

        def create(pod_name: str) -> None:
            space.create(pod(pod_name, container(gpu=1, gpumem=500), nodeSelector=mark))

        def node_of(pod_name: str) -> str:
            return str(space.get(pod_name)["spec"].get("nodeName", ""))

        create("first")
        eventually("first bound", lambda: node_of("first") == name, 20)
        locked, namespace, owner = api.get(f"/api/v1/nodes/{name}")["metadata"]["annotations"][LOCK].split(",")
        assert (namespace, owner) == (space.name, "first")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", locked)
        notes = space.get("first")["metadata"]["annotations"]
        assert notes["hami.io/vgpu-devices-to-allocate"] == notes[DONE]
        create("second")
        holds("second waits for the lock", lambda: not node_of("second"), 2)
        # The plug-in has served the first pod.
        api.patch(f"/api/v1/nodes/{name}", {"metadata": {"annotations": {LOCK: None}}})
        eventually("second bound", lambda: node_of("second") == name, 30)
        for item in space.pods():
            space.delete(item["metadata"]["name"], grace_s=0)


def test_a_cordoned_device_takes_no_new_pod_and_keeps_its_old(
    space: Namespace, api: Api, a100s: list[RegisteredCard]
) -> None:
    pin = {USE_UUID: a100s[3].uuid}
    placed(space, "before", pin, gpu=1, gpumem=500)
    with node_annotation(api, CORDON, f" {a100s[3].uuid} , GPU-other"):
        assert "1 nodes CardCordoned" in refused(space, "during", pin, gpu=1, gpumem=500)
        (elsewhere,) = placed(space, "free", {USE_TYPE: "A100"}, gpu=1, gpumem=500)
        assert elsewhere.uuid != a100s[3].uuid
        assert space.get("before")["status"]["phase"] == "Running"
    space.wait_running("during")


def test_privileged_pods_are_refused(space: Namespace) -> None:
    privileged = {**container(gpu=1, gpumem=500), "securityContext": {"privileged": True}}
    with pytest.raises(ApiError) as refusal:
        space.create(pod("privileged", privileged))
    assert refusal.value.status == 403
    assert "container main is privileged" in refusal.value.message
    space.run(pod("plain", {**container(), "securityContext": {"privileged": True}}))


def test_a_node_name_is_refused_where_the_webhook_sees_it(space: Namespace) -> None:
    with pytest.raises(ApiError) as refusal:
        space.create(pod("named", container(gpu=1, gpumem=500), nodeName=NODE))
    assert refusal.value.status == 403
    assert "pod has node assigned" in refusal.value.message


UNSEEN = {"hami.io/webhook": "ignore"}
"""A pod with this label goes past the webhook."""


def test_a_pod_that_names_its_node_gets_the_agents_own_fit(space: Namespace, a100s: list[RegisteredCard]) -> None:
    pin = {USE_UUID: a100s[1].uuid}
    body = pod("named", container(gpu=1, gpumem=700, gpucores=20), annotations=pin, labels=UNSEEN, nodeName=NODE)
    space.run(body)
    assert eventually("an assignment on the pod", lambda: allocation(space.get("named")) or None, 10) == [
        [Card(uuid=a100s[1].uuid, memory_mib=700, cores=20)]
    ]
    # It counts for the scheduler as any other.
    too_much = a100s[1].memory_mib - 600
    assert "CardInsufficientMemory" in refused(space, "after", pin, gpu=1, gpumem=too_much)


def test_a_pod_that_names_its_node_and_does_not_fit_is_refused_clearly(
    space: Namespace, a100s: list[RegisteredCard]
) -> None:
    pin = {USE_UUID: a100s[1].uuid}
    placed(space, "holder", pin, gpu=1, gpumem=a100s[1].memory_mib - 100)
    space.create(pod("named", container(gpu=1, gpumem=700), annotations=pin, labels=UNSEEN, nodeName=NODE))

    def refusal() -> str | None:
        statuses = space.get("named")["status"].get("containerStatuses", ())
        return next((str(s["state"]["waiting"].get("message", "")) for s in statuses if "waiting" in s["state"]), None)

    def named() -> bool:
        return "1 short of memory (largest free 100 MiB)" in (refusal() or "")

    eventually("a refusal that names the reason", named, 30)
    document = space.get("named")
    assert document["metadata"]["annotations"].get("hami.io/bind-phase") == "failed"
    assert allocation(document) == []
    holds("the refused pod does not run", lambda: space.get("named")["status"]["phase"] == "Pending", 3)
    # Room appears: a later try of the kubelet starts it.
    space.delete("holder")
    space.wait_running("named", within_s=60)
    assert allocation(space.get("named")) == [[Card(uuid=a100s[1].uuid, memory_mib=700, cores=0)]]


def test_configured_defaults(space: Namespace, services: Services) -> None:
    with services.configured(defaultMemory=5000, defaultCores=20, defaultGPUNum=2):
        assert [(card.memory_mib, card.cores) for card in placed(space, "cores", gpu=1, gpucores=10)] == [(5000, 10)]
        assert [(card.memory_mib, card.cores) for card in placed(space, "memory", gpu=1, gpumem=700)] == [(700, 20)]
        two = placed(space, "count", gpumem=700)
        assert [(card.memory_mib, card.cores) for card in two] == [(700, 20), (700, 20)]
        assert two[0].uuid != two[1].uuid


@contextmanager
def scheduler_flags(services: Services, *flags: str) -> Iterator[None]:
    """The scheduler runs with these flags in addition while the block runs."""
    services.restart_scheduler(flags)
    try:
        yield
    finally:
        services.restart_scheduler()
