"""AdmissionReview: a pod before it is stored, and our answer in the version that was asked.

Only what admission decides on is kept of a request. The answer's patch is JSON Patch, base64 inside JSON.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from hami.model.names import WireError, clip
from hami.model.wire import gojson

VERSIONS: Final = ("admission.k8s.io/v1", "admission.k8s.io/v1beta1")
MAX_WARNING: Final = 256
"""Characters that an API server shows of one warning."""

_REASONS: Final = {400: "BadRequest", 403: "Forbidden", 422: "Invalid", 500: "InternalError"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One request for admission."""

    api_version: str
    uid: str
    operation: str
    """`CREATE`, `UPDATE`, ..."""
    namespace: str
    """The request's own: the pod's metadata may not have one yet."""
    username: str
    pod: dict[str, Any]


class ReviewError(WireError):
    """A review whose pod cannot be read; `review` (with an empty pod) is what an answer needs."""

    def __init__(self, review: Review, field: str, expected: str, got: object = None) -> None:
        super().__init__(field, expected, got)
        self.review = review


def read_review(body: bytes) -> Review:
    """One AdmissionReview.

    Raises `ReviewError` when only its pod is unusable, `WireError` when it cannot even be answered.
    """
    document = gojson.folded(gojson.decode(body, "body"), "body")
    version = gojson.text_of(document.get("apiversion"), "apiVersion")
    if version not in VERSIONS:
        raise WireError("apiVersion", " or ".join(VERSIONS), version)
    request = gojson.folded(document.get("request"), "request")
    uid = gojson.text_of(request.get("uid"), "request.uid")
    if not uid:
        raise WireError("request.uid", "a UID", uid)
    user = request.get("userinfo")
    review = Review(
        api_version=version,
        uid=uid,
        operation=gojson.text_of(request.get("operation"), "request.operation"),
        namespace=gojson.text_of(request.get("namespace"), "request.namespace"),
        username=gojson.text_of(user.get("username"), "request.userInfo.username") if isinstance(user, dict) else "",
        pod={},
    )
    pod = request.get("object")
    if not isinstance(pod, dict):
        raise ReviewError(review, "request.object", "a pod", pod)
    for part in ("metadata", "spec"):
        if not isinstance(pod.get(part), dict):
            raise ReviewError(review, f"request.object.{part}", "an object", pod.get(part))
    return replace(review, pod=pod)


def write_review(
    review: Review,
    *,
    allowed: bool,
    patch: Sequence[Mapping[str, Any]] | None,
    code: int = 0,
    message: str = "",
    warnings: Sequence[str] = (),
) -> bytes:
    """The answer. An empty patch is none; `code` 0 is 200 for yes and 403 for no."""
    status: dict[str, Any] = {"code": code or (200 if allowed else 403)}
    if message:
        status["message"] = message
    if not allowed and (reason := _REASONS.get(status["code"])):
        status["reason"] = reason
    response: dict[str, Any] = {"uid": review.uid, "allowed": allowed, "status": status}
    if allowed and patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(orjson.dumps(patch)).decode()
    if warnings:
        response["warnings"] = [clip(warning, MAX_WARNING) for warning in warnings]
    return orjson.dumps({"kind": "AdmissionReview", "apiVersion": review.api_version, "response": response})
