"""The route for admission: reviews in, answers out. What is decided about a pod is tested where it is decided."""

import base64
from typing import Any

import orjson
import pytest

from hami.cluster.picture import Picture
from hami.kube.watch import Added
from hami.model.names import WireError
from hami.model.settings import SchedulerSettings
from hami.model.wire import pod as keys
from hami.vendors import registry
from hami.webhook.admission import Webhook
from tests.fakes.objects import Json, bound, node, pod

OURS = "system:serviceaccount:kube-system:hami-scheduler"


@pytest.fixture
def picture() -> Picture:
    made = Picture(registry())
    made.fold_node(Added(node("n1")))
    return made


def review(picture: Picture, made: Any, *, operation: str = "CREATE", user: str = "alice", version: str = "v1") -> Json:
    body = {
        "apiVersion": f"admission.k8s.io/{version}",
        "kind": "AdmissionReview",
        "request": {
            "uid": "1",
            "operation": operation,
            "namespace": "ns",
            "userInfo": {"username": user},
            "object": made,
        },
    }
    webhook = Webhook(
        picture, SchedulerSettings(scheduler_name="hami-scheduler"), scheduler_usernames=frozenset({OURS})
    )
    answer: Json = orjson.loads(webhook.review(orjson.dumps(body)))
    assert answer["apiVersion"] == body["apiVersion"]
    assert answer["response"]["uid"] == "1"
    response: Json = answer["response"]
    return response


def default(made: Json) -> Json:
    made["spec"]["schedulerName"] = "default-scheduler"
    return made


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_pod_with_devices_is_taken_over(picture: Picture, version: str) -> None:
    response = review(picture, default(pod("p")), version=version)
    assert response["allowed"]
    assert orjson.loads(base64.b64decode(response["patch"])) == [
        {"op": "add", "path": "/spec/schedulerName", "value": "hami-scheduler"}
    ]


def test_pod_without_devices_is_left_alone(picture: Picture) -> None:
    response = review(picture, default(pod("p", count=0)))
    assert response["allowed"]
    assert "patch" not in response


def test_forged_allocation_is_refused_unless_it_is_the_schedulers(picture: Picture) -> None:
    forged = pod("p", annotations={keys.NVIDIA_DONE: "n1-0,NVIDIA,1,1:;"})
    response = review(picture, forged)
    assert not response["allowed"]
    assert keys.NVIDIA_DONE in response["status"]["message"]
    assert review(picture, forged, user=OURS)["allowed"]


def test_quota_counts_what_the_namespace_holds(picture: Picture) -> None:
    picture.fold_quota(
        Added({"metadata": {"namespace": "ns", "name": "q"}, "spec": {"hard": {"limits.nvidia.com/gpumem": "5000"}}})
    )
    assert review(picture, pod("p", memory=4096))["allowed"]
    picture.fold_pod(Added(bound("other", "n1", "n1-0,NVIDIA,1000,0:;")))
    response = review(picture, pod("p", memory=4096))
    assert (response["allowed"], response["status"]["message"]) == (False, "exceeding resource quota")
    # A percentage is judged by the smallest card: 50 % of 16384 MiB.
    percent = pod("p", memory=None)
    percent["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpumem-percentage"] = "50"
    assert not review(picture, percent)["allowed"]


@pytest.mark.parametrize("broken", [None, 7, {}, {"metadata": {}, "spec": []}])
def test_what_is_no_pod_is_refused_with_the_place(picture: Picture, broken: Any) -> None:
    response = review(picture, broken)
    assert (response["allowed"], response["status"]["code"]) == (False, 400)
    assert "request.object" in response["status"]["message"]


@pytest.mark.parametrize(("operation", "made"), [("UPDATE", pod("p")), ("DELETE", None)])
def test_only_creation_is_judged(picture: Picture, operation: str, made: Any) -> None:
    assert review(picture, made, operation=operation)["allowed"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"apiVersion":"admission.k8s.io/v2","request":{"uid":"1"}}'])
def test_what_is_no_review_cannot_be_answered(picture: Picture, body: bytes) -> None:
    with pytest.raises(WireError):
        Webhook(picture, SchedulerSettings(), scheduler_usernames=frozenset()).review(body)
