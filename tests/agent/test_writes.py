"""Writes on pods: merged, retried while the server is away, dropped with their pod."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest

from hami.agent.writes import PodWriter
from hami.kube.client import Kube
from hami.model.names import PodKey, PodUid
from tests.agent.conftest import NODE, pod
from tests.fakes.apiserver import FakeApi
from tests.fakes.loop import guarded_loop

pytestmark = pytest.mark.anyio

A = PodKey("default", "a")
UID = PodUid("uid-a")


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with guarded_loop(), FakeApi.serving() as api:
        yield api


@pytest.fixture
async def writer(api: FakeApi, tmp_path: Path) -> AsyncIterator[PodWriter]:
    async with Kube.connect(api.kubeconfig(tmp_path)) as kube, anyio.create_task_group() as tasks:
        writer = PodWriter(kube, NODE, lambda: 1_700_000_000.0, retry=lambda: iter([0.01] * 100))
        tasks.start_soon(writer.run)
        yield writer
        tasks.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - the server knows no events
            await anyio.sleep(0.01)


def note(api: FakeApi, key: str) -> str | None:
    found: str | None = api.get("pods", "a", "default")["metadata"]["annotations"].get(key)
    return found


async def test_annotations_of_one_pod_are_one_patch(api: FakeApi, writer: PodWriter) -> None:
    api.put("pods", pod("a"))
    writer.annotate(A, UID, {"x": "1", "y": "1"})
    writer.annotate(A, UID, {"y": "2"})
    await until(lambda: note(api, "y") == "2")
    assert note(api, "x") == "1"
    assert len(api.asked("PATCH", "pods/a")) == 1


async def test_a_server_that_is_away_is_waited_for(api: FakeApi, writer: PodWriter) -> None:
    api.put("pods", pod("a"))
    api.fail("PATCH", "pods/a", drop=True, times=2)
    writer.annotate(A, UID, {"x": "1"})
    await until(lambda: note(api, "x") == "1")


async def test_a_newer_value_wins_over_one_on_its_way(api: FakeApi, writer: PodWriter) -> None:
    api.put("pods", pod("a"))
    api.fail("PATCH", "pods/a", delay_s=0.2)
    writer.annotate(A, UID, {"x": "old"})
    await until(lambda: len(api.asked("PATCH", "pods/a")) == 1)
    writer.annotate(A, UID, {"x": "new"})
    await until(lambda: note(api, "x") == "new")


async def test_another_pod_of_the_same_name_is_left_alone(api: FakeApi, writer: PodWriter) -> None:
    api.put("pods", pod("a"))
    writer.annotate(A, PodUid("uid-older"), {"x": "1"})
    writer.annotate(PodKey("default", "gone"), UID, {"x": "1"})
    writer.annotate(A, UID, {"z": "1"})
    await until(lambda: note(api, "z") == "1")
    assert note(api, "x") is None


@pytest.mark.parametrize("status", [400, 403, 409, 413, 422])
async def test_what_is_refused_does_not_hold_up_others(api: FakeApi, writer: PodWriter, status: int) -> None:
    for name in ("a", "b"):
        api.put("pods", pod(name))
    api.fail("PATCH", "pods/b", status=status, times=10)
    writer.annotate(PodKey("default", "b"), PodUid("uid-b"), {"x": "1"})
    writer.annotate(A, UID, {"x": "1"})
    await until(lambda: note(api, "x") == "1")
    assert len(api.asked("PATCH", "pods/b")) == 1


async def test_an_event_names_its_pod_and_fits(api: FakeApi, writer: PodWriter) -> None:
    api.fail("POST", "events", status=503)
    writer.tell(A, UID, "AllocationRefused", "first: the server was away")
    writer.tell(A, UID, "AllocationRefused", "no room" + "x" * 5000)
    await until(lambda: bool(api.all("events")))
    (event,) = api.all("events")
    assert event["involvedObject"]["uid"] == UID
    assert event["reason"] == "AllocationRefused"
    assert event["type"] == "Warning"
    assert event["message"].startswith("no room")
    assert len(event["message"]) <= 1024


async def test_an_event_about_the_node(api: FakeApi, writer: PodWriter) -> None:
    writer.tell_node("AsymmetricGPUP2PLink", "look")
    await until(lambda: bool(api.all("events")))
    (event,) = api.all("events")
    assert event["metadata"]["namespace"] == "default"
    assert event["involvedObject"] == {"apiVersion": "v1", "kind": "Node", "name": NODE, "uid": NODE}
    assert event["source"]["component"] == "hami-device-plugin"


async def test_fetch(api: FakeApi, writer: PodWriter) -> None:
    api.put("pods", pod("a"))
    found = await writer.fetch(A)
    assert found is not None
    assert found["metadata"]["uid"] == UID
    assert await writer.fetch(PodKey("default", "gone")) is None
    api.fail("GET", "pods/a", status=500)
    assert await writer.fetch(A) is None


async def test_only_the_server_says_that_a_pod_is_gone(api: FakeApi, writer: PodWriter) -> None:
    assert await writer.is_gone(A, UID)
    document = api.put("pods", pod("a"))
    assert not await writer.is_gone(A, UID)
    assert await writer.is_gone(A, PodUid("uid-older"))
    api.fail("GET", "pods/a", status=500)
    assert not await writer.is_gone(A, UID)
    document["status"]["phase"] = "Succeeded"
    api.put("pods", document)
    assert await writer.is_gone(A, UID)
