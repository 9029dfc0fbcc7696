"""The node's annotations: written where they differ, repaired within an event, asked for by old schedulers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from hami.agent.announce import Announcement, Announcer, difference
from hami.kube.client import Kube
from hami.model.device import Links, NodeInventory
from hami.model.names import PodKey
from hami.model.wire.node import read_inventory
from hami.vendors.nvidia import NVIDIA
from tests.agent.conftest import NODE, UUIDS, device
from tests.fakes.apiserver import FakeApi
from tests.fakes.loop import guarded_loop

pytestmark = pytest.mark.anyio

REGISTER = "hami.io/node-nvidia-register"
LINKS = Links(scores=((UUIDS[0], ((UUIDS[1], 110),)), (UUIDS[1], ((UUIDS[0], 110),))))


def announcement(*indices: int, links: Links | None = None) -> Announcement:
    inventory = NodeInventory(vendor=NVIDIA.name, devices=tuple(map(device, indices)), links=links)
    return Announcement(inventory=inventory, vendor=NVIDIA, devices="cdi")


def test_only_what_differs_is_patched() -> None:
    said = announcement(0, 1, links=LINKS)
    whole = difference({}, said)
    assert set(whole) == {REGISTER, "hami.io/node-nvidia-score", "hami.io/agent-protocol"}
    assert whole["hami.io/agent-protocol"] == "1;families=NVIDIA;devices=cdi"
    assert difference({**whole, "other": "x"}, said) == {}
    assert set(difference({**whole, REGISTER: "[]"}, said)) == {REGISTER}
    assert difference(whole, announcement(0, 1)) == {"hami.io/node-nvidia-score": None}


def test_the_colon_form() -> None:
    text = difference({}, replace(announcement(0), form="colon"))[REGISTER]
    assert text is not None
    assert text.endswith(":")
    assert read_inventory(text, "x")[0].uuid == UUIDS[0]


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with guarded_loop(), FakeApi.serving() as api:
        yield api


async def running(
    api: FakeApi, folder: Path, said: Announcement, check: Callable[[Announcer], Awaitable[None]]
) -> None:
    """Run an announcer that says `said` while `check` awaits."""
    async with Kube.connect(api.kubeconfig(folder)) as kube, anyio.create_task_group() as tasks:
        announcer = Announcer(kube, NODE, lambda: 1_700_000_000.0)
        tasks.start_soon(announcer.follow)
        tasks.start_soon(announcer.run)
        announcer.say(said)
        with anyio.fail_after(10):
            await check(announcer)
        tasks.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for happens in a server that knows no events
        await anyio.sleep(0.01)


def notes(api: FakeApi) -> dict[str, str]:
    found: dict[str, str] = api.get("nodes", NODE)["metadata"].get("annotations", {})
    return found


def node(**annotations: str) -> dict[str, object]:
    return {"metadata": {"name": NODE, "annotations": annotations}}


async def test_a_deleted_annotation_is_back_within_one_event(api: FakeApi, tmp_path: Path) -> None:
    api.put("nodes", node())
    said = announcement(0, 1)

    async def check(announcer: Announcer) -> None:
        await until(lambda: REGISTER in notes(api))
        assert len(api.asked("PATCH", "nodes")) == 1
        current = api.get("nodes", NODE)
        del current["metadata"]["annotations"][REGISTER]
        started = anyio.current_time()
        api.put("nodes", current)
        await until(lambda: REGISTER in notes(api))
        assert anyio.current_time() - started < 1
        announcer.say(announcement(0))
        await until(lambda: len(read_inventory(notes(api)[REGISTER], "x")) == 1)
        assert len(api.asked("PATCH", "nodes")) == 3

    await running(api, tmp_path, said, check)


async def test_nothing_is_written_while_the_node_says_what_it_should(api: FakeApi, tmp_path: Path) -> None:
    said = announcement(0)
    api.put("nodes", node(**said.annotations()))

    async def check(announcer: Announcer) -> None:
        for round_ in range(3):
            current = api.get("nodes", NODE)
            current["metadata"]["labels"] = {"round": str(round_)}
            api.put("nodes", current)
            await anyio.sleep(0.05)
        assert api.asked("PATCH", "nodes") == []

    await running(api, tmp_path, said, check)


async def test_a_request_is_answered(api: FakeApi, tmp_path: Path) -> None:
    said = announcement(0)
    handshake = "hami.io/node-handshake"
    api.put("nodes", node(**{**said.annotations(), handshake: "Requesting_2026-01-01 00:00:00"}))

    async def check(announcer: Announcer) -> None:
        await until(lambda: notes(api)[handshake].startswith("Reported"))
        current = api.get("nodes", NODE)
        current["metadata"]["annotations"][handshake] = "Requesting_2026-01-01 00:00:01"
        api.put("nodes", current)
        await anyio.sleep(0.3)
        assert len(api.asked("PATCH", "nodes")) == 1, "answers are spaced: the scheduler asks again after each"

    await running(api, tmp_path, said, check)


async def test_a_server_that_fails_is_tried_again(api: FakeApi, tmp_path: Path) -> None:
    api.put("nodes", node(**{"hami.io/device-cordon": f"{UUIDS[1]}, x"}))
    api.fail("PATCH", "nodes", status=503)

    async def check(announcer: Announcer) -> None:
        await until(lambda: REGISTER in notes(api))
        assert announcer.cordoned == {UUIDS[1], "x"}

    await running(api, tmp_path, announcement(0), check)


async def test_what_the_form_cannot_say_stops_nothing(api: FakeApi, tmp_path: Path) -> None:
    api.put("nodes", node())
    odd = replace(device(0), model="NVIDIA A,B")
    said = replace(announcement(), form="colon", inventory=NodeInventory(vendor=NVIDIA.name, devices=(odd,)))

    async def check(announcer: Announcer) -> None:
        await anyio.sleep(0.1)
        assert api.asked("PATCH", "nodes") == []
        announcer.say(announcement(0))
        await until(lambda: REGISTER in notes(api))

    await running(api, tmp_path, said, check)


LOCK = "hami.io/mutex.lock"


@pytest.mark.parametrize(
    ("value", "goes"),
    [
        ("2026-01-01T00:00:00Z,default,served", True),
        ("2026-01-01T00:00:00Z,default,other", False),
        ("2026-01-01T00:00:00Z", False),
        ("nonsense", False),
    ],
)
async def test_a_foreign_schedulers_lock(api: FakeApi, tmp_path: Path, value: str, goes: bool) -> None:
    said = announcement(0)
    api.put("nodes", node(**{**said.annotations(), LOCK: value}))

    async def check(announcer: Announcer) -> None:
        await anyio.sleep(0.1)
        assert LOCK in notes(api), "its pod has not been served"
        announcer.served(PodKey("default", "served"))
        if goes:
            await until(lambda: LOCK not in notes(api))
        else:
            await anyio.sleep(0.2)
            assert notes(api)[LOCK] == value

    await running(api, tmp_path, said, check)


async def test_a_lock_that_another_pod_has_taken_meanwhile_stays(api: FakeApi, tmp_path: Path) -> None:
    said = announcement(0)
    api.put("nodes", node(**{**said.annotations(), LOCK: "2026-01-01T00:00:00Z,default,served"}))

    async def check(announcer: Announcer) -> None:
        await anyio.sleep(0.1)
        api.fail("PATCH", "nodes", status=409)
        announcer.served(PodKey("default", "served"))
        await until(lambda: len(api.asked("PATCH", "nodes")) == 1)
        (asked,) = api.asked("PATCH", "nodes")
        assert asked.body is not None
        assert asked.body["metadata"]["resourceVersion"]
        current = api.get("nodes", NODE)
        current["metadata"]["annotations"][LOCK] = "2026-01-01T00:00:01Z,default,next"
        api.put("nodes", current)
        await anyio.sleep(0.2)
        assert notes(api)[LOCK].endswith("next")

    await running(api, tmp_path, said, check)
