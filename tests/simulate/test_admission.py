"""Pods go through the webhook's rules before they are placed."""

import copy
from typing import Any

import pytest

from hami.alloc.admit import admit
from hami.alloc.request import RequestError
from hami.model.claim import Mib, Percent
from hami.model.settings import SchedulerSettings
from hami.simulate.admission import admitted
from hami.vendors import registry
from tests.alloc.jsonpatch import apply_patch
from tests.alloc.pods import container, pod
from tests.simulate import worlds
from tests.simulate.worlds import described, node

KNOWN = registry()


@pytest.mark.parametrize(
    ("asked", "count", "memory", "cores"),
    [
        ({"gpu": 1}, 1, Percent(100), 100),
        ({"mem": 300}, 1, Mib(300), 0),
        ({"gpu": 2, "mem": 300, "cores": 20}, 2, Mib(300), 20),
        ({"cores": 30}, 1, Percent(100), 30),
    ],
)
def test_what_an_author_leaves_out_is_filled_in(asked: dict[str, Any], count: int, memory: object, cores: int) -> None:
    (task,) = described([node()], [pod(container(**asked))]).tasks
    (need,) = task.request.containers[0].needs
    assert (need.count, need.memory, need.cores) == (count, memory, cores)


PODS = {
    "plain": pod(container()),
    "priority": pod(container(gpu=1, mem=10, priority=1)),
    "priority with env": pod(container(gpu=1, priority=0, env=[{"name": "A", "value": "b"}])),
    "several": pod(container("a", gpu=1), container("b"), container("c", mem=5), inits=[container("i", cores=100)]),
    "requests too": pod(container(mem=5, requests={"gpu": 1})),
    "other scheduler": pod(container(mem=5), schedulerName="volcano"),
    "our scheduler": pod(container(mem=5), schedulerName="hami-scheduler"),
}


@pytest.mark.parametrize("name", PODS)
def test_the_patch_is_applied_as_an_api_server_would(name: str) -> None:
    document = PODS[name]
    before = copy.deepcopy(document)
    verdict = admit(
        document,
        registry=KNOWN,
        settings=SchedulerSettings(scheduler_name="hami-scheduler"),
        namespace="ns",
        username="someone",
    )
    assert admitted(document, KNOWN) == apply_patch(document, verdict.patch)
    assert document == before


def test_who_went_through_a_webhook_stays_as_it_is() -> None:
    once = admitted(PODS["several"], KNOWN)
    assert admitted(once, KNOWN) == once


def test_bound_pods_are_placed_anew() -> None:
    bound: dict[str, Any] = worlds.pod(nodeName="n", metadata={"annotations": worlds.ALLOCATED})
    assert "nodeName" not in admitted(bound, KNOWN)["spec"]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (pod(container(gpu=1, securityContext={"privileged": True})), "privileged"),
        (pod(container(gpu=1, pct=120)), "must be an integer between 0 and 100"),
        ({"kind": "Pod", "metadata": {"name": "p"}, "spec": {}}, "containers"),
    ],
)
def test_what_the_webhook_refuses_is_never_tried(document: dict[str, Any], reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        admitted(document, KNOWN)
    found = described([node()], [document])
    assert not found.tasks
    assert reason in found.refused[0][1]
