"""What a picture learns for policies that value the rest of a node: what is asked, and what pods take of the host."""

from typing import Any

import pytest

from hami.cluster.picture import Picture
from hami.kube.watch import Added, Deleted, Modified
from hami.model.host import Host
from hami.model.names import NodeName, PodUid
from hami.vendors import registry
from tests.fakes.objects import bound, node, pod

N1 = NodeName("n1")


def sized(document: dict[str, Any], cpu: str, memory: str) -> dict[str, Any]:
    document["spec"]["containers"][0].setdefault("resources", {})["requests"] = {"cpu": cpu, "memory": memory}
    return document


def plain(name: str, on: str | None = None) -> dict[str, Any]:
    """A pod that asks for no device."""
    spec: dict[str, Any] = {"containers": [{"name": "c"}]}
    if on is not None:
        spec["nodeName"] = on
    return {"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec, "status": {}}


@pytest.fixture
def picture() -> Picture:
    made = Picture(registry(), learns=True)
    offering = node("n1")
    offering["status"]["allocatable"] |= {"cpu": "10", "memory": "64Gi"}
    made.fold_node(Added(offering))
    return made


def test_all_bound_pods_take_from_the_node(picture: Picture) -> None:
    picture.fold_pod(Added(sized(plain("web", "n1"), "1500m", "2Gi")))
    picture.fold_pod(Added(sized(bound("train", "n1", "n1-0,NVIDIA,4096,0:;"), "4", "8Gi")))
    assert picture.ledger.host_left(N1) == Host(cpu_milli=4500, memory_mib=54 * 1024)
    picture.ledger.check()
    picture.fold_pod(Modified(sized(plain("web", "n1"), "500m", "2Gi")))
    assert picture.ledger.host_left(N1) == Host(cpu_milli=5500, memory_mib=54 * 1024)
    picture.fold_pod(Deleted(plain("web", "n1")))
    ended = sized(bound("train", "n1", "n1-0,NVIDIA,4096,0:;"), "4", "8Gi")
    ended["status"]["phase"] = "Succeeded"
    picture.fold_pod(Modified(ended))
    assert picture.ledger.host_left(N1) == Host(cpu_milli=10_000, memory_mib=64 * 1024)
    picture.ledger.check()


def test_pods_may_come_before_their_node() -> None:
    picture = Picture(registry(), learns=True)
    picture.fold_pod(Added(sized(plain("web", "n1"), "3", "1Gi")))
    offering = node("n1")
    offering["status"]["allocatable"] |= {"cpu": "4", "memory": "2Gi"}
    picture.fold_node(Added(offering))
    assert picture.ledger.host_left(N1) == Host(cpu_milli=1000, memory_mib=1024)
    picture.ledger.check()


def test_a_node_that_says_nothing_of_its_cpu_has_no_limit(picture: Picture) -> None:
    silent = node("n2")
    picture.fold_node(Added(silent))
    picture.fold_pod(Added(sized(plain("web", "n2"), "3", "1Gi")))
    assert picture.ledger.host_left(NodeName("n2")) is None
    picture.ledger.check()


def daemon() -> dict[str, Any]:
    made = plain("d", "n1")
    made["metadata"]["ownerReferences"] = [{"kind": "DaemonSet", "name": "d"}]
    return made


@pytest.mark.parametrize(
    ("document", "learned"),
    [
        pytest.param(pod("p"), True, id="waiting for devices"),
        pytest.param(bound("p", "n1", "n1-0,NVIDIA,4096,0:;"), True, id="has devices"),
        pytest.param(plain("p"), False, id="no devices, not bound"),
        pytest.param(plain("p", "n1"), True, id="no devices, on a node with some"),
        pytest.param(plain("p", "elsewhere"), False, id="no devices, elsewhere"),
        pytest.param(daemon(), False, id="every node gets it"),
    ],
)
def test_what_counts_as_demand(picture: Picture, document: dict[str, Any], learned: bool) -> None:
    picture.fold_pod(Added(document))
    assert picture.ledger.has_noted(PodUid(document["metadata"]["uid"])) is learned


def test_an_agent_learns_nothing() -> None:
    picture = Picture(registry())
    picture.fold_node(Added(node("n1")))
    picture.fold_pod(Added(pod("p")))
    assert not picture.ledger.has_noted(PodUid(pod("p")["metadata"]["uid"]))
