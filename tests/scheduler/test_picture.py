"""Events folded into the picture: what each one means, told problems, and what counts as listed."""

from typing import Any

import pytest

from hami.cluster.picture import Kind, Picture, Problem, Where
from hami.kube.watch import Added, Deleted, Listed, Modified
from hami.model.names import NodeName, PodUid
from hami.model.wire import pod as keys
from hami.vendors import registry
from tests.fakes.objects import bound, node, pod


class Told:
    """A picture and what it told."""

    def __init__(self, **settings: Any) -> None:
        self.problems: list[Problem] = []
        self.picture = Picture(registry(), tell=self.problems.append, **settings)


def listed(round_: int = 1) -> Listed:
    return Listed("1", round_, 0.0)


def test_complete_when_every_needed_kind_is_listed() -> None:
    picture = Picture(registry(), needs=(Kind.NODES, Kind.PODS))
    steps: list[bool] = []
    picture.fold_node(listed())
    steps.append(picture.listed)
    picture.fold_pod(listed())
    picture.fold_quota(listed())
    steps.append(picture.listed)
    picture.expect(Kind.PODS, 2)
    steps.append(picture.listed)
    picture.fold_pod(listed(1))
    steps.append(picture.listed)
    picture.fold_pod(listed(3))
    steps.append(picture.listed)
    assert steps == [False, True, False, False, True]


def test_node_events() -> None:
    picture = Picture(registry())
    assert picture.fold_node(Added(node("n1")))
    assert not picture.fold_node(Modified(node("n1")))
    assert picture.fold_node(Modified(node("n1", 3)))
    assert len(picture.ledger.usage(NodeName("n1"))) == 3
    stopped = node("n1", 3)
    stopped["status"]["allocatable"]["nvidia.com/gpu"] = "0"
    assert picture.fold_node(Modified(stopped))
    assert picture.ledger.node(NodeName("n1")) is None
    assert picture.fold_node(Modified(node("n1")))
    assert picture.fold_node(Deleted({"metadata": {"name": "n1"}}))
    assert not picture.fold_node(Deleted({"metadata": {"name": "n1"}}))


def test_only_nodes_with_the_labels_are_registered() -> None:
    picture = Picture(registry(), node_labels={"gpu": "on"})
    labelled = node("n1")
    labelled["metadata"]["labels"] = {"gpu": "on", "zone": "a"}
    assert picture.fold_node(Added(labelled))
    assert not picture.fold_node(Added(node("n2")))
    labelled["metadata"]["labels"] = {"gpu": "off"}
    assert picture.fold_node(Modified(labelled))
    assert not picture.ledger.nodes


@pytest.mark.parametrize(
    ("change", "where", "freed"),
    [
        ({}, Where.BOUND, False),
        ({"phase": "Succeeded"}, Where.GONE, True),
        ({"phase": "Failed"}, Where.GONE, True),
        ({"deleting": True}, Where.BOUND, False),
        ({"refused": True}, Where.BOUND, True),
        ({"allocation": "n1-1,NVIDIA,4096,0:;"}, Where.BOUND, True),
    ],
    ids=str,
)
def test_what_a_bound_pod_becomes(change: dict[str, Any], where: Where, freed: bool) -> None:
    picture = Picture(registry())
    picture.fold_node(Added(node("n1")))
    picture.fold_pod(Added(bound("p", "n1", "n1-0,NVIDIA,4096,0:;")))
    later = bound("p", "n1", change.get("allocation", "n1-0,NVIDIA,4096,0:;"), phase=change.get("phase", "Running"))
    if change.get("deleting"):
        later["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    if change.get("refused"):
        later["metadata"]["annotations"][keys.BIND_PHASE] = keys.FAILED
    result = picture.fold_pod(Modified(later))
    assert result is not None
    assert (result.where, result.freed) == (where, freed)
    picture.ledger.check()
    gone = picture.fold_pod(Deleted(later))
    assert gone is not None
    assert gone.where is Where.GONE
    assert not picture.ledger.pods


def test_unbound_pods_change_nothing_here() -> None:
    picture = Picture(registry())
    change = picture.fold_pod(Added(pod("p")))
    assert change is not None
    assert (change.where, change.foreign, change.uid) == (Where.UNBOUND, None, PodUid("uid-p"))
    leaving = picture.fold_pod(Modified(pod("p", deletionTimestamp="2026-01-01T00:00:00Z")))
    assert leaving is not None
    assert leaving.where is Where.GONE


def test_a_problem_is_told_once_for_as_long_as_it_is_there() -> None:
    told = Told()
    broken = bound("p", "n1", "n1-0,NVIDIA,-5,0:;")
    for event in (Added(broken), Modified(broken), Modified(broken)):
        told.picture.fold_pod(event)
    (problem,) = told.problems
    assert (problem.kind, problem.namespace, problem.name, problem.uid) == ("Pod", "ns", "p", "uid-p")
    assert keys.NVIDIA_DONE in problem.errors[0].field
    told.picture.fold_pod(Modified(bound("p", "n1", "n1-0,NVIDIA,5,0:;")))
    told.picture.fold_pod(Modified(broken))
    assert len(told.problems) == 2
    told.picture.fold_pod(Deleted(broken))
    assert told.picture._told == {}


def test_a_quota_that_cannot_be_enforced_is_told() -> None:
    told = Told()
    told.picture.fold_quota(
        Added({"metadata": {"namespace": "ns", "name": "q"}, "spec": {"hard": {"limits.nvidia.com/gpumem": "many"}}})
    )
    assert [problem.kind for problem in told.problems] == ["ResourceQuota"]


@pytest.mark.parametrize(
    "broken",
    [{}, {"metadata": None}, {"metadata": []}, {"metadata": {"name": "x"}, "spec": 7, "status": "no"}],
    ids=str,
)
def test_documents_in_no_shape_do_no_harm(broken: dict[str, Any]) -> None:
    picture = Picture(registry())
    picture.fold_node(Added(broken))
    picture.fold_pod(Added(broken))
    picture.ledger.check()
