"""Selectors, affinity and taints against the rules of Kubernetes."""

from typing import Any

import pytest

from hami.model.names import WireError
from hami.simulate.constraints import ANY_NODE, allowed, read_site, read_wish
from tests.simulate.worlds import node, pod

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
DEDICATED = {"key": "dedicated", "value": "ml", "effect": "NoSchedule"}


def affinity(*terms: dict[str, Any]) -> dict[str, Any]:
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": list(terms)}}}}


def labels(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def name(value: str) -> dict[str, Any]:
    return {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [value]}]}


ZONED = {"labels": {"zone": "a", "gpus": "8"}}


@pytest.mark.parametrize(
    ("of_node", "of_pod", "want"),
    [
        ({}, {}, True),
        (ZONED, {"nodeSelector": {"zone": "a"}}, True),
        (ZONED, {"nodeSelector": {"zone": "b"}}, False),
        (ZONED, {"nodeSelector": {"zone": "a", "disk": "ssd"}}, False),
        (ZONED, affinity(labels("zone", "In", "a", "b")), True),
        (ZONED, affinity(labels("zone", "In", "b")), False),
        (ZONED, affinity(labels("zone", "NotIn", "b")), True),
        (ZONED, affinity(labels("disk", "NotIn", "hdd")), True),
        (ZONED, affinity(labels("zone", "Exists")), True),
        (ZONED, affinity(labels("zone", "DoesNotExist")), False),
        (ZONED, affinity(labels("gpus", "Gt", "4")), True),
        (ZONED, affinity(labels("gpus", "Gt", "8")), False),
        (ZONED, affinity(labels("gpus", "Lt", "9")), True),
        (ZONED, affinity(labels("zone", "Gt", "4")), False),
        (ZONED, affinity(labels("gpus", "Gt")), False),
        (ZONED, affinity(labels("zone", "In", "b"), labels("gpus", "In", "8")), True),
        (ZONED, affinity({**labels("zone", "In", "a"), **name("other")}), False),
        (ZONED, affinity(name("n")), True),
        (ZONED, affinity({}), False),
        (ZONED, affinity(), False),
        (ZONED, {"affinity": {"nodeAffinity": {}}}, True),
        ({"unschedulable": True}, {}, False),
        ({"unschedulable": True}, {"tolerations": [{"operator": "Exists"}]}, True),
        ({"taints": [DEDICATED]}, {}, False),
        ({"taints": [{**DEDICATED, "effect": "NoExecute"}]}, {}, False),
        ({"taints": [{**DEDICATED, "effect": "PreferNoSchedule"}]}, {}, True),
        ({"taints": [DEDICATED]}, {"tolerations": [{"key": "dedicated", "operator": "Exists"}]}, True),
        ({"taints": [DEDICATED]}, {"tolerations": [{"key": "dedicated", "value": "ml"}]}, True),
        ({"taints": [DEDICATED]}, {"tolerations": [{"key": "dedicated", "value": "web"}]}, False),
        ({"taints": [DEDICATED]}, {"tolerations": [{"key": "other", "operator": "Exists"}]}, False),
        ({"taints": [DEDICATED]}, {"tolerations": [{"operator": "Exists", "effect": "NoExecute"}]}, False),
        ({"taints": [DEDICATED]}, {"tolerations": [{"operator": "Exists", "effect": "NoSchedule"}]}, True),
        ({"taints": [DEDICATED, {"key": "x", "effect": "NoSchedule"}]}, {"tolerations": [DEDICATED]}, False),
    ],
)
def test_whether_a_pod_may_go_to_a_node(of_node: dict[str, Any], of_pod: dict[str, Any], want: bool) -> None:
    site, wish = read_site(node(**of_node), "f"), read_wish(pod(**of_pod), "f")
    assert allowed(wish, [site]) == ((0,) if want else ())


def test_pods_that_say_nothing_share_one_wish() -> None:
    assert read_wish(pod(), "f") is ANY_NODE
    assert read_wish(pod(nodeSelector={"a": "1", "b": "2"}), "f") == read_wish(
        pod(nodeSelector={"b": "2", "a": "1"}), "f"
    )


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"nodeSelector": []}, "f: spec.nodeSelector"),
        ({"tolerations": [1]}, "f: spec.tolerations"),
        ({"affinity": 1}, "f: spec.affinity"),
        ({"affinity": {"nodeAffinity": {REQUIRED: 1}}}, f"f: spec.affinity.nodeAffinity.{REQUIRED}"),
        (
            affinity(labels("zone", "Is", "a")),
            f"f: spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms[0].matchExpressions[0].operator",
        ),
    ],
)
def test_a_mistake_is_named(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(WireError) as caught:
        read_wish(pod(**spec), "f")
    assert caught.value.field == field


def test_a_mistake_of_a_node_is_named() -> None:
    with pytest.raises(WireError, match=r"f: spec.taints: expected a list of objects"):
        read_site(node(taints="none"), "f")
