"""AdmissionReview of both versions, and answers an API server accepts."""

import base64
from typing import Any

import orjson
import pytest

from hami.model.names import WireError
from hami.model.wire.review import MAX_WARNING, Review, ReviewError, read_review, write_review

POD = {"metadata": {"generateName": "p-"}, "spec": {"containers": []}}
BODY: dict[str, Any] = {
    "kind": "AdmissionReview",
    "apiVersion": "admission.k8s.io/v1",
    "request": {
        "uid": "705ab4f5",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "namespace": "team",
        "operation": "CREATE",
        "userInfo": {"username": "alice", "groups": ["x"]},
        "object": POD,
        "oldObject": None,
        "dryRun": False,
    },
}
REVIEW = Review(
    api_version="admission.k8s.io/v1", uid="705ab4f5", operation="CREATE", namespace="team", username="alice", pod=POD
)


def request(**changes: Any) -> bytes:
    return orjson.dumps(BODY | {"request": BODY["request"] | changes})


def test_read() -> None:
    assert read_review(request()) == REVIEW
    assert read_review(request(userInfo=None)).username == ""
    assert read_review(orjson.dumps(BODY | {"apiVersion": "admission.k8s.io/v1beta1"})).api_version.endswith("v1beta1")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"", "body"),
        (b"[]", "body"),
        (b"{}", "apiVersion"),
        (orjson.dumps(BODY | {"apiVersion": "admission.k8s.io/v2"}), "apiVersion"),
        (orjson.dumps(BODY | {"request": None}), "request"),
        (request(uid=""), "request.uid"),
        (request(uid=5), "request.uid"),
        (request(namespace=["a"]), "request.namespace"),
        (request(userInfo={"username": 1}), "request.userInfo.username"),
    ],
)
def test_what_cannot_be_answered(body: bytes, path: str) -> None:
    with pytest.raises(WireError) as caught:
        read_review(body)
    assert caught.value.field == path
    assert not isinstance(caught.value, ReviewError)


@pytest.mark.parametrize(
    ("pod", "path"),
    [
        (None, "request.object"),
        ([], "request.object"),
        ({"spec": {}}, "request.object.metadata"),
        ({"metadata": {}, "spec": None}, "request.object.spec"),
        ({"metadata": {}, "spec": "x"}, "request.object.spec"),
    ],
)
def test_an_unusable_pod_can_be_answered(pod: object, path: str) -> None:
    with pytest.raises(ReviewError) as caught:
        read_review(request(object=pod))
    assert caught.value.field == path
    answer = orjson.loads(
        write_review(caught.value.review, allowed=False, patch=None, code=400, message=str(caught.value))
    )
    assert answer["response"]["uid"] == "705ab4f5"
    assert answer["response"]["status"]["code"] == 400
    assert answer["response"]["status"]["reason"] == "BadRequest"


def test_allowed_with_patch() -> None:
    patch = [{"op": "add", "path": "/spec/schedulerName", "value": "hami-scheduler"}]
    answer = orjson.loads(write_review(REVIEW, allowed=True, patch=patch, warnings=["short", "x" * 1000]))
    assert answer["kind"] == "AdmissionReview"
    assert answer["apiVersion"] == "admission.k8s.io/v1"
    response = answer["response"]
    assert (response["uid"], response["allowed"], response["patchType"]) == ("705ab4f5", True, "JSONPatch")
    assert orjson.loads(base64.b64decode(response["patch"])) == patch
    assert response["status"] == {"code": 200}
    assert response["warnings"][0] == "short"
    assert len(response["warnings"][1]) == MAX_WARNING


@pytest.mark.parametrize("patch", [None, []], ids=["none", "empty"])
def test_allowed_unchanged(patch: list[Any] | None) -> None:
    message = "pod already has different scheduler assigned"
    assert orjson.loads(write_review(REVIEW, allowed=True, patch=patch, message=message))["response"] == {
        "uid": "705ab4f5",
        "allowed": True,
        "status": {"code": 200, "message": message},
    }


def test_denied() -> None:
    response = orjson.loads(write_review(REVIEW, allowed=False, patch=[{"op": "x"}], message="pod has no containers"))
    assert response["response"] == {
        "uid": "705ab4f5",
        "allowed": False,
        "status": {"code": 403, "message": "pod has no containers", "reason": "Forbidden"},
    }
