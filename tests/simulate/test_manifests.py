"""Nodes and pods from manifests: every form kubectl prints, and what is said of mistakes."""

import json
from typing import Any

import pytest
import yaml

from hami.model.names import WireError
from hami.simulate import manifests
from tests.simulate.worlds import node, pod


def names(text: str) -> list[str]:
    return [item.document["metadata"]["name"] for item in manifests.read_pods(text, "f")]


PAIR = [pod("a"), pod("b")]
FORMS = {
    "yaml documents": yaml.safe_dump_all(PAIR),
    "yaml list": yaml.safe_dump({"kind": "List", "items": PAIR}),
    "json list": json.dumps({"kind": "List", "items": PAIR}),
    "typed list": json.dumps({"kind": "PodList", "items": [{k: v for k, v in p.items() if k != "kind"} for p in PAIR]}),
    "empty document between": yaml.safe_dump(PAIR[0]) + "---\n---\n" + yaml.safe_dump(PAIR[1]),
    "others between": yaml.safe_dump_all([PAIR[0], {"kind": "Service"}, PAIR[1]]),
    "flow style that is no JSON": "{kind: PodList, items: [{metadata: {name: a}}, {metadata: {name: b}}]}",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same_pods(form: str) -> None:
    assert names(FORMS[form]) == ["a", "b"]


@pytest.mark.parametrize(
    ("kind", "spec", "count"),
    [
        ("Deployment", {"replicas": 3}, 3),
        ("Deployment", {}, 1),
        ("ReplicaSet", {"replicas": 0}, 0),
        ("StatefulSet", {"replicas": 2}, 2),
        ("Job", {"parallelism": 4, "completions": 9}, 4),
    ],
)
def test_a_workload_stands_for_the_pods_it_runs_at_a_time(kind: str, spec: dict[str, Any], count: int) -> None:
    template = {"metadata": {"labels": {"x": "y"}}, "spec": pod()["spec"]}
    owner = {"kind": kind, "metadata": {"name": "w", "namespace": "team"}, "spec": {**spec, "template": template}}
    found = manifests.read_pods(yaml.safe_dump_all([owner, pod("other")]), "f")
    assert [item.document["metadata"]["name"] for item in found] == [*(f"w-{i}" for i in range(count)), "other"]
    assert all(item.document["metadata"]["namespace"] == "team" for item in found[:-1])


def with_amount(part: str, value: object, key: str = "containers") -> dict[str, Any]:
    return {"kind": "Pod", "metadata": {"name": "p"}, "spec": {key: [{"resources": {part: {"cpu": value}}}]}}


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (with_amount("requests", "-1"), "f: spec.containers[0].resources.requests.cpu"),
        (with_amount("limits", "-500m"), "f: spec.containers[0].resources.limits.cpu"),
        (with_amount("requests", "much"), "f: spec.containers[0].resources.requests.cpu"),
        (with_amount("requests", float("nan")), "f: spec.containers[0].resources.requests.cpu"),
        (with_amount("requests", None), "f: spec.containers[0].resources.requests.cpu"),
        (with_amount("requests", "1e999999999", "initContainers"), "f: spec.initContainers[0].resources.requests.cpu"),
        ({"kind": "Pod", "spec": []}, "f: spec"),
        ({"kind": "Pod", "spec": {"containers": [3]}}, "f: spec.containers[0]"),
        ({"kind": "Deployment", "spec": {"replicas": -1}}, "f: spec.replicas"),
        ({"kind": "Deployment", "spec": {"replicas": True}}, "f: spec.replicas"),
        ({"kind": "Deployment", "spec": {"replicas": 10**9}}, "f: spec.replicas"),
        ({"kind": "Deployment", "spec": {"template": 1}}, "f: spec.template"),
        ({"kind": "List", "items": [1]}, "f: items[0]"),
        (pod(metadata={"creationTimestamp": "yesterday"}), "f: metadata.creationTimestamp"),
        (pod(metadata={"creationTimestamp": 7}), "f: metadata.creationTimestamp"),
        ([pod()], "f"),
    ],
)
def test_a_mistake_is_named(document: Any, field: str) -> None:
    with pytest.raises(WireError) as caught:
        manifests.read_pods(yaml.safe_dump(document), "f")
    assert caught.value.field == field


def test_negative_offers_of_a_node_are_named() -> None:
    broken = node(cpu="-4")
    with pytest.raises(WireError, match=r"f: document 2: status.allocatable.cpu: expected an amount that is not neg"):
        manifests.read_nodes(yaml.safe_dump_all([node("a"), broken]), "f")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("kind: Pod\nspec: [", "f:3: column 1"),
        ('{"kind": "Pod",\n "spec": }x', "f:2: column"),
        ("a: b: c", "f:1: column"),
        ("when: 2026-13-45\n", "f"),
        ("[" * 200_000, "f"),
        ("x: \x07", "f"),
    ],
)
def test_what_is_not_yaml_is_named_by_line_and_column(text: str, place: str) -> None:
    with pytest.raises(WireError) as caught:
        manifests.read_pods(text, "f")
    assert caught.value.field.startswith(place)


@pytest.mark.parametrize("text", ["", "---\n", "kind: Service\n", "kind: List\nitems: []\n"])
def test_a_file_without_pods_or_nodes_is_refused(text: str) -> None:
    with pytest.raises(WireError, match="at least one Pod, Deployment"):
        manifests.read_pods(text, "f")
    with pytest.raises(WireError, match="at least one Node"):
        manifests.read_nodes(text, "f")


def test_pods_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "MOST_PODS", 5)
    owner = {"kind": "Job", "metadata": {"name": "w"}, "spec": {"parallelism": 3, "template": {}}}
    with pytest.raises(WireError, match="document 2: expected at most 5 pods"):
        manifests.read_pods(yaml.safe_dump_all([owner, owner]), "f")


def ended(at: str | None, made: Any = "2026-01-01T00:00:00Z", phase: str = "Succeeded") -> dict[str, Any]:
    state = {"terminated": {} if at is None else {"finishedAt": at}}
    return pod(
        metadata={"creationTimestamp": made} if made else {},
        status={"phase": phase, "containerStatuses": [{"state": state}]},
    )


@pytest.mark.parametrize(
    ("document", "stay", "finished"),
    [
        (ended("2026-01-01T00:01:30Z"), 90.0, True),
        (ended("2026-01-01T01:00:00+01:00", phase="Failed"), 0.0, True),
        (ended(None), 0.0, True),
        (ended("2026-01-01T00:01:30Z", phase="Running"), None, False),
    ],
)
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_times_are_those_of_the_api_server(
    document: dict[str, Any], stay: float | None, finished: bool, form: str
) -> None:
    text = json.dumps(document) if form == "json" else yaml.safe_dump(document).replace("'", "")
    (item,) = manifests.read_pods(text, "f")
    assert item.arrives == 1767225600.0
    assert item.finished is finished
    assert item.leaves == (None if stay is None else 1767225600.0 + stay)


def test_a_pod_that_does_not_say_when_it_came_has_no_time() -> None:
    (item,) = manifests.read_pods(json.dumps(ended(None, made=None)), "f")
    assert (item.arrives, item.leaves) == (None, None)
