"""Nodes and bound pods as records, and what a binding writes. Decoding of the texts themselves: tests/model."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami.alloc.record import annotations, labels, read_foreign_hold, read_node, read_pod, stale_keys
from hami.model.claim import Assignment, PodRecord, Role, Share
from hami.model.names import DeviceUuid, NodeName, VendorWord
from hami.model.vendor import Registry, Resources, Vendor
from hami.vendors import registry
from tests.alloc.pods import container, pod
from tests.alloc.test_request import JSON

NVIDIA = VendorWord("NVIDIA")
DONE = "hami.io/vgpu-devices-allocated"
OTHER = Vendor(
    name=VendorWord("Acme"),
    config_section="acme",
    resources=Resources(count="acme.com/gpu"),
    node_key="hami.io/node-acme-register",
    pending_key="",
    done_key="hami.io/acme-devices-allocated",
)
FAMILIES = Registry((*registry(), OTHER))
TWO_CARDS = (
    '[{"id":"GPU-b","index":1,"count":10,"devmem":15360,"devcore":100,"type":"NVIDIA-Tesla T4","health":true},'
    '{"id":"GPU-a","count":10,"devmem":15360,"devcore":100,"type":"NVIDIA-Tesla T4"}]'
)


def share(uuid: str, memory_mib: int, cores: int = 0, kind: str = "NVIDIA") -> Share:
    return Share(uuid=DeviceUuid(uuid), kind=kind, memory_mib=memory_mib, cores=cores)


def node(notes: dict[str, Any], **status: Any) -> dict[str, Any]:
    document: dict[str, Any] = {"metadata": {"name": "n", "annotations": notes}}
    if status:
        document["status"] = status
    return document


def bound(text: str, *apps: dict[str, Any], notes: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    written = {DONE: text, "hami.io/vgpu-node": "n", "hami.io/vgpu-time": "1787299200", **(notes or {})}
    return pod(*(apps or (container(gpu=1),)), notes=written, nodeName="n", **more)


def recorded(document: dict[str, Any]) -> PodRecord:
    found, problems = read_pod(document, FAMILIES)
    assert problems == ()
    assert found is not None
    return found


# Nodes


def test_a_node_with_everything() -> None:
    notes = {
        "hami.io/node-nvidia-register": TWO_CARDS,
        "hami.io/node-nvidia-score": '[{"uuid":"GPU-a","score":{"GPU-b":460}},{"uuid":"GPU-b","score":{"GPU-a":460}}]',
        "hami.io/device-cordon": "GPU-b, ",
        "hami.io/agent-protocol": "1;families=NVIDIA;devices=cdi",
    }
    found, problems = read_node(node(notes, allocatable={"nvidia.com/gpu": "20"}), FAMILIES)
    assert problems == ()
    (inventory,) = found.inventories
    assert [device.uuid for device in inventory.devices] == ["GPU-a", "GPU-b"]
    assert [device.healthy for device in inventory.devices] == [False, True]
    assert inventory.links is not None
    assert inventory.links.score(DeviceUuid("GPU-a"), DeviceUuid("GPU-b")) == 460
    assert found.cordoned == {"GPU-b"}
    assert found.own_agent == {"NVIDIA"}


@pytest.mark.parametrize(
    ("status", "served"),
    [
        ({}, True),
        ({"capacity": {}}, True),
        ({"allocatable": {"nvidia.com/gpu": "20"}}, True),
        ({"allocatable": {"nvidia.com/gpu": "0"}}, False),
        ({"allocatable": {"cpu": "8"}}, False),
        ({"allocatable": {"nvidia.com/gpu": "many"}}, False),
    ],
)
def test_an_inventory_whose_plug_in_is_gone_does_not_count(status: dict[str, Any], served: bool) -> None:
    found, problems = read_node(node({"hami.io/node-nvidia-register": TWO_CARDS}, **status), FAMILIES)
    assert bool(found.inventories) is served
    assert problems == ()


def test_cards_that_are_all_unhealthy_are_shown_as_such() -> None:
    sick = '[{"id":"GPU-a","count":10,"devmem":15360,"devcore":100,"type":"NVIDIA-Tesla T4"}]'
    found, _ = read_node(node({"hami.io/node-nvidia-register": sick}, allocatable={"nvidia.com/gpu": "0"}), FAMILIES)
    assert [device.healthy for device in found.inventories[0].devices] == [False]


def test_one_familys_broken_inventory_costs_only_that_family() -> None:
    notes = {"hami.io/node-nvidia-register": '[{"id":"GPU-x","count":"10"}]', "hami.io/node-acme-register": TWO_CARDS}
    found, problems = read_node(node(notes), FAMILIES)
    assert [inventory.vendor for inventory in found.inventories] == ["Acme"]
    assert [problem.field for problem in problems] == ["metadata.annotations[hami.io/node-nvidia-register][0].count"]


def test_unreadable_scores_are_no_scores() -> None:
    notes = {"hami.io/node-nvidia-register": TWO_CARDS, "hami.io/node-nvidia-score": "{}x"}
    found, problems = read_node(node(notes), FAMILIES)
    assert found.inventories[0].links is None
    assert len(found.inventories[0].devices) == 2
    assert len(problems) == 1


@pytest.mark.parametrize("text", ["[]", "null"])
def test_no_cards_are_no_inventory(text: str) -> None:
    found, problems = read_node(node({"hami.io/node-nvidia-register": text}), FAMILIES)
    assert (found.inventories, problems) == ((), ())


def test_an_unknown_agent_protocol_is_a_foreign_plug_in() -> None:
    found, problems = read_node(node({"hami.io/agent-protocol": "9;families=NVIDIA"}), FAMILIES)
    assert found.own_agent == frozenset()
    assert "hami.io/agent-protocol" in problems[0].field


# Pods


def test_a_bound_pod() -> None:
    found = recorded(bound("GPU-a,NVIDIA,3000,30:;", meta={"deletionTimestamp": "2026-01-01T00:00:00Z"}))
    assert found == PodRecord(
        uid=found.uid,
        key=found.key,
        node=NodeName("n"),
        roles=(Role.APP,),
        segments={NVIDIA: ((share("GPU-a", 3000, 30),),)},
        inits_done=True,
        deleting=True,
    )
    assert (found.uid, str(found.key)) == ("u", "ns/p")


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(pod(container(gpu=1), nodeName="n"), id="nothing allocated"),
        pytest.param(bound("GPU-a,NVIDIA,1,0:;", status={"phase": "Succeeded"}), id="succeeded"),
        pytest.param(bound("GPU-a,NVIDIA,1,0:;", status={"phase": "Failed"}), id="failed"),
        pytest.param(bound("GPU-a,NVIDIA,1,0:;", notes={"hami.io/bind-phase": "failed"}), id="refused by its node"),
        pytest.param(bound(";", container()), id="only empty segments"),
        pytest.param(bound(""), id="empty text"),
        pytest.param(pod(container(), notes={DONE: "GPU-a,NVIDIA,1,0:;", "hami.io/vgpu-node": "n"}), id="not bound"),
    ],
)
def test_pods_that_hold_nothing(document: dict[str, Any]) -> None:
    assert read_pod(document, FAMILIES) == (None, ())


def test_a_text_that_gives_less_than_was_asked_is_told() -> None:
    found, problems = read_pod(bound(";", container(gpu=1)), FAMILIES)
    assert found is None
    assert [problem.field for problem in problems] == [f"metadata.annotations[{DONE}]"]


@pytest.mark.parametrize("notes", [{}, {"hami.io/vgpu-node": "m"}])
def test_an_allocation_for_another_node_counts_nowhere_and_is_told(notes: dict[str, str]) -> None:
    forged = pod(container(gpu=1), notes={DONE: "GPU-a,NVIDIA,15360,100:;", **notes}, nodeName="n")
    found, problems = read_pod(forged, FAMILIES)
    assert found is None
    assert [problem.field for problem in problems] == ["metadata.annotations[hami.io/vgpu-node]"]


def test_one_familys_broken_text_never_hides_anothers() -> None:
    document = bound("GPU-a,NVIDIA,5000,30:;", notes={"hami.io/acme-devices-allocated": "a,b:;"})
    found, problems = read_pod(document, FAMILIES)
    assert found is not None
    assert found.segments == {NVIDIA: ((share("GPU-a", 5000, 30),),)}
    assert problems
    assert all("hami.io/acme-devices-allocated" in problem.field for problem in problems)


def test_a_lost_segment_is_given_back_by_what_the_containers_ask() -> None:
    """HAMi 2.10 leaves out containers without cards; read by position the app's share would be the init container's."""
    document = bound("GPU-a,NVIDIA,15000,0:;", container(gpu=1, mem=15000), inits=[container("i")])
    assert recorded(document).segments[NVIDIA] == ((), (share("GPU-a", 15000),))


def test_a_pod_that_asks_for_nothing_today_is_taken_as_written() -> None:
    """Its resources may have been renamed since: the allocation stands, by position where there is one for each."""
    document = bound("GPU-a,NVIDIA,12000,0:;GPU-a,NVIDIA,3000,0:;", container(), inits=[container("i")])
    assert recorded(document).segments[NVIDIA] == ((share("GPU-a", 12000),), (share("GPU-a", 3000),))


def test_amounts_count_even_where_todays_request_is_unusable() -> None:
    found, _ = read_pod(bound("GPU-a,NVIDIA,3000,0:;", container(gpu=1, mem="16Gi")), FAMILIES)
    assert found is not None
    assert found.segments[NVIDIA] == ((share("GPU-a", 3000),),)


RESERVED = (
    '[{"containerIndex":0,"deviceIndex":0,"gpuUUID":"GPU-a","profile":"1g.5gb","placement":{"start":6,"size":1}}]'
)


def test_reservations_and_what_may_be_moved() -> None:
    notes = {"hami.io/vgpu-mig-allocations": RESERVED, "hami.io/allow-move": "true"}
    found = recorded(bound("GPU-a,NVIDIA,4864,15:;", notes=notes))
    assert [(r.container, r.uuid, r.profile, r.placement.start) for r in found.reservations] == [
        (0, "GPU-a", "1g.5gb", 6)
    ]
    assert found.movable
    assert not recorded(bound("GPU-a,NVIDIA,4864,15:;", notes={"hami.io/allow-move": "yes"})).movable


def test_unreadable_reservations_are_told_and_the_shares_still_count() -> None:
    broken = bound("GPU-a,NVIDIA,4864,15:;", notes={"hami.io/vgpu-mig-allocations": RESERVED.replace("1g.5gb", "")})
    found, problems = read_pod(broken, FAMILIES)
    assert found is not None
    assert found.reservations == ()
    assert [problem.field for problem in problems] == ["metadata.annotations[hami.io/vgpu-mig-allocations][0].profile"]


def test_a_binding_carries_the_reservations() -> None:
    found = recorded(bound("GPU-a,NVIDIA,4864,15:;", notes={"hami.io/vgpu-mig-allocations": RESERVED}))
    assignment = Assignment(node=found.node, segments=found.segments, reservations=found.reservations)
    assert annotations(assignment, FAMILIES, now_unix=1)["hami.io/vgpu-mig-allocations"] == RESERVED
    plain = Assignment(node=found.node, segments=found.segments)
    assert "hami.io/vgpu-mig-allocations" not in annotations(plain, FAMILIES, now_unix=1)


def test_broken_mig_profiles_and_one_sided_links_are_told() -> None:
    cards = (
        '[{"id":"GPU-a","count":7,"devmem":40960,"devcore":100,"type":"NVIDIA A100","mode":"mig","health":true,'
        '"migProfiles":[{"name":"odd","memoryMB":1,"core":1,"sliceCount":1,"placements":[{"start":0,"size":1}]}]}]'
    )
    notes = {
        "hami.io/node-nvidia-register": cards,
        "hami.io/node-nvidia-score": '[{"uuid":"GPU-a","score":{"GPU-b":460}}]',
    }
    found, problems = read_node(node(notes, allocatable={"nvidia.com/gpu": "7"}), FAMILIES)
    assert len(found.inventories) == 1
    assert [problem.field for problem in problems] == [
        "metadata.annotations[hami.io/node-nvidia-score].score",
        "metadata.annotations[hami.io/node-nvidia-register][GPU-a].migProfiles[0].name",
    ]


def test_an_old_mig_instance_counts_on_its_card() -> None:
    assert recorded(bound("GPU-a[0-1],NVIDIA,5000,30:;")).segments[NVIDIA] == ((share("GPU-a", 5000, 30),),)


@pytest.mark.parametrize(
    ("statuses", "done"),
    [
        (None, False),
        ([], False),
        ([{"name": "i", "state": {"running": {}}}], False),
        ([{"name": "i", "state": {"terminated": {"exitCode": 1}}}], False),
        ([{"name": "i", "state": {"terminated": {"exitCode": 0}}}], True),
        ([{"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "s", "state": {"running": {}}}], True),
        ([{"name": "s", "state": {"terminated": {"exitCode": 0}}}], False),
    ],
)
def test_init_containers_end_without_their_sidecars(statuses: list[dict[str, Any]] | None, done: bool) -> None:
    inits = [container("s", gpu=1, restartPolicy="Always"), container("i", gpu=1)]
    text = "GPU-a,NVIDIA,1,0:;GPU-a,NVIDIA,9,0:;GPU-a,NVIDIA,2,0:;"
    status = {"phase": "Pending"} if statuses is None else {"phase": "Pending", "initContainerStatuses": statuses}
    found = recorded(bound(text, inits=inits, status=status))
    assert found.roles == (Role.SIDECAR, Role.INIT, Role.APP)
    assert found.inits_done is done


def test_a_pod_that_a_foreign_scheduler_has_yet_to_bind() -> None:
    document = bound("GPU-a,NVIDIA,3000,30:;")
    assert read_foreign_hold(document, FAMILIES) == (None, ())
    del document["spec"]["nodeName"]
    hold, problems = read_foreign_hold(document, FAMILIES)
    assert problems == ()
    assert hold is not None
    assert (hold.record.node, hold.decided) == ("n", 1787299200)
    assert hold.record.segments == {NVIDIA: ((share("GPU-a", 3000, 30),),)}
    document["metadata"]["annotations"]["hami.io/vgpu-time"] = "yesterday"
    hold, problems = read_foreign_hold(document, FAMILIES)
    assert hold is not None
    assert hold.decided == 0
    assert problems[0].field == "metadata.annotations[hami.io/vgpu-time]"
    del document["metadata"]["annotations"]["hami.io/vgpu-node"]
    assert read_foreign_hold(document, FAMILIES) == (None, ())


@pytest.mark.parametrize(
    "document",
    [
        {"metadata": {"annotations": {DONE: 3}}, "spec": {"nodeName": "n"}},
        {"metadata": {"annotations": [DONE]}, "spec": {"nodeName": "n"}},
        {"metadata": {"annotations": {DONE: "x"}}, "spec": {"nodeName": 7}},
        {"metadata": {"annotations": {DONE: "x"}}, "spec": [], "status": "Failed"},
        {"metadata": {"annotations": {DONE: "x"}}, "spec": {"nodeName": 7}, "status": {"phase": ["Failed"]}},
        {},
    ],
)
def test_documents_of_a_strange_shape_hold_nothing(document: dict[str, Any]) -> None:
    assert read_pod(document, FAMILIES) == (None, ())


TEXT = st.text(alphabet="GPU-a[0],:;19NVIDIA", max_size=40)
NOTES = st.dictionaries(
    st.sampled_from([DONE, "hami.io/acme-devices-allocated", "hami.io/node-nvidia-register", "hami.io/bind-phase"]),
    TEXT | JSON,
)


@given(
    metadata=st.fixed_dictionaries({"annotations": NOTES.map(lambda notes: {**notes, "hami.io/vgpu-node": "n"}) | JSON})
    | JSON,
    spec=st.fixed_dictionaries({"nodeName": st.just("n") | JSON, "containers": st.lists(JSON, max_size=2) | JSON})
    | JSON,
    status=st.fixed_dictionaries({"initContainerStatuses": JSON, "allocatable": JSON, "phase": JSON}) | JSON,
)
def test_no_document_stops_a_reader(metadata: object, spec: object, status: object) -> None:
    document = {"metadata": metadata, "spec": spec, "status": status}
    node_record, problems = read_node(document, FAMILIES)
    assert all(inventory.devices for inventory in node_record.inventories)
    held, more = read_pod(document, FAMILIES)
    hold, rest = read_foreign_hold(document, FAMILIES)
    assert held is None or hold is None
    assert all(str(problem) for problem in (*problems, *more, *rest))
    for found in (held, hold.record if hold else None):
        if found is not None:
            assert all(len(segments) == len(found.roles) for segments in found.segments.values())


# What a binding writes

ASSIGNED = Assignment(
    node=NodeName("n"),
    segments={NVIDIA: ((), (share("GPU-a", 3000, 30), share("GPU-b", 3000, 30)))},
)


def test_a_binding_carries_the_whole_assignment() -> None:
    text = ";GPU-a,NVIDIA,3000,30:GPU-b,NVIDIA,3000,30:;"
    written = {
        DONE: text,
        "hami.io/vgpu-devices-to-allocate": text,
        "hami.io/vgpu-node": "n",
        "hami.io/vgpu-time": "1787299200",
        "hami.io/bind-time": "1787299200",
        "hami.io/bind-phase": "allocating",
    }
    assert annotations(ASSIGNED, FAMILIES, now_unix=1787299200) == written
    del written["hami.io/vgpu-devices-to-allocate"]
    assert annotations(ASSIGNED, FAMILIES, now_unix=1787299200, own_agent=frozenset({NVIDIA})) == written


def test_what_a_binding_writes_is_what_is_read_back() -> None:
    notes = annotations(ASSIGNED, FAMILIES, now_unix=1)
    document = pod(container(gpu=2), inits=[container("i")], notes=notes, nodeName="n")
    assert recorded(document).segments == ASSIGNED.segments


def test_a_long_node_name_is_no_label() -> None:
    assert labels(ASSIGNED) == {"hami.io/vgpu-node": "n"}
    assert labels(Assignment(node=NodeName("n" * 63), segments={})) == {"hami.io/vgpu-node": "n" * 63}
    assert labels(Assignment(node=NodeName("n" * 64), segments={})) == {}


def test_keys_of_an_earlier_attempt() -> None:
    written = annotations(ASSIGNED, FAMILIES, now_unix=1)
    old = {"hami.io/acme-devices-allocated": "x", "hami.io/vgpu-mig-allocations": "[]", DONE: "old", "mine": "kept"}
    assert stale_keys(pod(container(), notes=old), written, FAMILIES) == (
        "hami.io/acme-devices-allocated",
        "hami.io/vgpu-mig-allocations",
    )
    assert stale_keys(pod(container()), written, FAMILIES) == ()
