"""The verbs: what goes over the wire, and which error comes back. Not here: watches (test_watch)."""

from pathlib import Path

import pytest

from hami.kube import errors
from hami.kube.client import Kube
from hami.kube.resources import NODES, PODS
from tests.fakes.apiserver import FakeApi, Json

pytestmark = pytest.mark.anyio


def pod(name: str = "p") -> Json:
    return {"metadata": {"namespace": "ns", "name": name}, "spec": {}}


async def test_binding_carries_uid_annotations_and_labels(api: FakeApi, kube: Kube) -> None:
    uid = api.put("pods", pod())["metadata"]["uid"]
    await kube.bind("ns", "p", uid, "n1", {"a": "1"}, {"l": "2"})
    bound = api.get("pods", "p", "ns")
    assert bound["spec"]["nodeName"] == "n1"
    assert bound["metadata"]["annotations"] == {"a": "1"}
    assert bound["metadata"]["labels"] == {"l": "2"}
    assert len(api.requests) == 1


async def test_second_binding_conflicts(api: FakeApi, kube: Kube) -> None:
    uid = api.put("pods", pod())["metadata"]["uid"]
    await kube.bind("ns", "p", uid, "n1", {}, {})
    with pytest.raises(errors.Conflict, match="already assigned"):
        await kube.bind("ns", "p", uid, "n2", {}, {})


async def test_binding_to_another_uid_conflicts(api: FakeApi, kube: Kube) -> None:
    api.put("pods", pod())
    with pytest.raises(errors.Conflict, match="Precondition"):
        await kube.bind("ns", "p", "other", "n1", {}, {})


async def test_lost_answer_is_unreachable_with_its_cause(api: FakeApi, kube: Kube) -> None:
    uid = api.put("pods", pod())["metadata"]["uid"]
    api.fail("POST", "binding", after=True)
    with pytest.raises(errors.Unreachable) as caught:
        await kube.bind("ns", "p", uid, "n1", {}, {})
    assert caught.value.__cause__ is not None
    assert api.get("pods", "p", "ns")["spec"]["nodeName"] == "n1"


async def test_slow_answer_is_unreachable(api: FakeApi, kube: Kube) -> None:
    uid = api.put("pods", pod())["metadata"]["uid"]
    api.fail("POST", "binding", delay_s=0.5)
    with pytest.raises(errors.Unreachable):
        await kube.bind("ns", "p", uid, "n1", {}, {}, timeout_s=0.05)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.Forbidden),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (410, errors.Gone),
        (422, errors.Refused),
        (429, errors.TooMany),
        (500, errors.ApiError),
    ],
)
async def test_status_becomes_a_kind(api: FakeApi, kube: Kube, status: int, kind: type[errors.ApiError]) -> None:
    api.fail("GET", "nodes/n1", status=status, headers={"Retry-After": "7"})
    with pytest.raises(kind, match="scripted failure") as caught:
        await kube.node("n1")
    assert caught.value.status == status
    if isinstance(caught.value, errors.TooMany):
        assert caught.value.retry_after_s == 7


async def test_conditional_patch(api: FakeApi, kube: Kube) -> None:
    node = api.put("nodes", {"metadata": {"name": "n1", "annotations": {"old": "x"}}})
    version = node["metadata"]["resourceVersion"]
    await kube.annotate_node("n1", {"a": "1", "old": None}, resource_version=version)
    assert api.get("nodes", "n1")["metadata"]["annotations"] == {"a": "1"}
    with pytest.raises(errors.Conflict):
        await kube.annotate_node("n1", {"a": "2"}, resource_version=version)


async def test_patch_of_a_pod_that_was_replaced(api: FakeApi, kube: Kube) -> None:
    api.put("pods", pod())
    with pytest.raises(errors.Conflict):
        await kube.annotate_pod("ns", "p", {"a": "1"}, uid="gone")


async def test_whoami(api: FakeApi, kube: Kube) -> None:
    assert await kube.whoami() == api.username


async def test_unreachable_server(tmp_path: Path) -> None:
    api = FakeApi()
    api.address = "http://127.0.0.1:1"
    async with Kube.connect(api.kubeconfig(tmp_path)) as kube:
        with pytest.raises(errors.Unreachable):
            await kube.node("n1")


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"contexts": []}', '{"current-context": "x", "contexts": []}'])
async def test_unusable_kubeconfig_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(errors.ConfigError, match=str(path)):
        async with Kube.connect(str(path)):
            pass


async def test_no_configuration_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(errors.ConfigError, match="service account"):
        async with Kube.connect():
            pass


def test_paths() -> None:
    assert PODS.path() == "/api/v1/pods"
    assert PODS.path("ns", "p") == "/api/v1/namespaces/ns/pods/p"
    assert NODES.path(name="a/../b") == "/api/v1/nodes/a%2F..%2Fb"
    with pytest.raises(ValueError, match="namespace"):
        PODS.path(name="p")
