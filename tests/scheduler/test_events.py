"""Events: written in the background, counted instead of repeated, dropped in the right order."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest

from hami.kube.client import Kube
from hami.scheduler import events as module
from hami.scheduler.clock import Clock
from hami.scheduler.events import EventWriter, Subject
from tests.fakes.apiserver import FakeApi
from tests.fakes.loop import eventually

pytestmark = pytest.mark.anyio
POD = Subject(kind="Pod", namespace="ns", name="p", uid="u")


class Hands:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.now, unix=lambda: 1_800_000_000 + self.now)


def no_delay() -> Iterator[float]:
    while True:
        yield 0.001


@asynccontextmanager
async def writing(kube: Kube, hands: Hands) -> AsyncIterator[EventWriter]:
    writer = EventWriter(kube, "hami-scheduler", hands.clock(), retry=no_delay)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run)
        yield writer
        tasks.cancel_scope.cancel()


async def settled(api: FakeApi, count: int) -> list[dict[str, object]]:
    """The events once `count` requests have been made and nothing more comes."""
    await eventually(lambda: len(api.requests) >= count)
    await anyio.sleep(0.02)
    return api.all("events")


async def test_repeats_are_counted_in_one_event(api: FakeApi, kube: Kube) -> None:
    hands = Hands()
    async with writing(kube, hands) as writer:
        for _ in range(5):
            writer.tell(POD, "FilteringFailed", "no", warning=True)
        (event,) = await settled(api, 1)
        assert (event["count"], len(api.requests)) == (1, 1)
        hands.now += module.REPEAT_S
        writer.tell(POD, "FilteringFailed", "no", warning=True)
        (event,) = await settled(api, 2)
        assert event["count"] == 6
        assert event["firstTimestamp"] != event["lastTimestamp"]
        writer.tell(POD, "FilteringFailed", "another", warning=True)
        assert len(await settled(api, 3)) == 2


async def test_restart_finds_the_event_that_is_there(api: FakeApi, kube: Kube) -> None:
    for expected in (1, 2, 3):
        async with writing(kube, Hands()) as writer:
            writer.tell(POD, "BindingFailed", "no", warning=True)
            await eventually(lambda: [event["count"] for event in api.all("events")] == [expected])  # noqa: B023


async def test_event_that_the_server_forgot_is_written_anew(api: FakeApi, kube: Kube) -> None:
    hands = Hands()
    async with writing(kube, hands) as writer:
        writer.tell(POD, "R", "m")
        (event,) = await settled(api, 1)
        api.objects["events"].clear()
        hands.now += module.REPEAT_S
        writer.tell(POD, "R", "m")
        (event,) = await settled(api, 3)
        assert event["count"] == 1


async def test_trouble_is_tried_again_and_refusals_are_not(api: FakeApi, kube: Kube) -> None:
    async with writing(kube, Hands()) as writer:
        api.fail("POST", "events", drop=True, times=2)
        writer.tell(POD, "R", "m")
        assert len(await settled(api, 3)) == 1
        api.fail("POST", "events", status=403)
        writer.tell(POD, "R", "forbidden")
        writer.tell(POD, "R", "after")
        assert [event["message"] for event in await settled(api, 5)] == ["m", "after"]


async def test_ordinary_news_goes_first_when_there_is_too_much(
    api: FakeApi, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUED", 3)
    writer = EventWriter(kube, "", Hands().clock())
    for i in range(3):
        writer.tell(POD, "Normal", f"news {i}")
    for i in range(3):
        writer.tell(POD, "Warning", f"warning {i}", warning=True)
    writer.tell(POD, "Normal", "late news")
    assert writer.dropped == 4
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run)
        messages = [event["message"] for event in await settled(api, 3)]
        tasks.cancel_scope.cancel()
    assert messages == ["warning 1", "warning 2", "late news"]


async def test_long_messages_are_cut_to_what_the_api_takes(api: FakeApi, kube: Kube) -> None:
    async with writing(kube, Hands()) as writer:
        writer.tell(POD, "R", "ü" * 2000)
        (event,) = await settled(api, 1)
        assert len(str(event["message"]).encode()) <= 1024
        assert str(event["message"]).endswith("...")
