"""The stream of changes under everything a server may do to it. Not here: what the changes mean (tests/scheduler)."""

from collections.abc import Iterator

import anyio
import pytest

from hami.kube import watch as module
from hami.kube.client import Kube
from hami.kube.resources import NODES, PODS, Resource
from hami.kube.watch import Added, Deleted, Listed, Modified, Watch
from tests.fakes.apiserver import FakeApi, Json
from tests.fakes.loop import eventually

pytestmark = pytest.mark.anyio


def node(name: str, **annotations: str) -> Json:
    return {"metadata": {"name": name, "annotations": annotations}}


def no_delay() -> Iterator[float]:
    while True:
        yield 0.001


def start(kube: Kube, resource: Resource = NODES, *, field_selector: str | None = None, page: int = 500) -> Watch:
    return Watch(kube, resource, field_selector=field_selector, retry=no_delay, page=page)


async def watching(api: FakeApi, count: int) -> None:
    """Wait until the server has been asked for its `count`-th watch and has it open."""
    await eventually(lambda: len([r for r in api.requests if "watch" in r.query]) >= count)
    await anyio.sleep(0.02)


async def take(stream: Watch, count: int) -> list[str]:
    """The next events as short words: `+n1`, `~n1`, `-n1`, `listed 1`."""
    words: list[str] = []
    with anyio.fail_after(5):
        while len(words) < count:
            match await anext(stream):
                case Added(obj):
                    words.append("+" + obj["metadata"]["name"])
                case Modified(obj):
                    words.append("~" + obj["metadata"]["name"])
                case Deleted(obj):
                    words.append("-" + obj["metadata"]["name"])
                case Listed(_, number):
                    words.append(f"listed {number}")
    return words


async def test_lists_by_pages_then_watches(api: FakeApi, kube: Kube) -> None:
    for i in range(5):
        api.put("nodes", node(f"n{i}"))
    stream = start(kube, page=2)
    assert await take(stream, 6) == ["+n0", "+n1", "+n2", "+n3", "+n4", "listed 1"]
    assert len(api.asked("GET", "nodes")) == 3
    api.put("nodes", node("n9"))
    api.put("nodes", node("n9", a="1"))
    api.remove("nodes", "n0")
    assert await take(stream, 3) == ["+n9", "~n9", "-n0"]
    stream.close()


async def test_resumes_where_the_server_ended(api: FakeApi, kube: Kube) -> None:
    stream = start(kube)
    assert await take(stream, 1) == ["listed 1"]
    api.put("nodes", node("a"))
    assert await take(stream, 1) == ["+a"]
    api.end_watches()
    api.put("nodes", node("b"))
    assert await take(stream, 1) == ["+b"]
    assert len([r for r in api.requests if "watch" not in r.query]) == 1
    stream.close()


async def test_expired_version_lists_again_and_tells_what_vanished(api: FakeApi, kube: Kube) -> None:
    for name in "abc":
        api.put("nodes", node(name))
    stream = start(kube)
    await take(stream, 4)
    api.put("nodes", node("d"))
    assert await take(stream, 1) == ["+d"]
    api.end_watches()
    api.remove("nodes", "b")
    api.compact()
    assert await take(stream, 5) == ["+a", "+c", "+d", "-b", "listed 2"]
    stream.close()


async def test_continue_token_expires_during_the_listing(api: FakeApi, kube: Kube) -> None:
    for name in "abcd":
        api.put("nodes", node(name))
    stream = start(kube, page=2)
    assert await take(stream, 2) == ["+a", "+b"]
    api.remove("nodes", "a")
    api.compact()
    assert await take(stream, 5) == ["+b", "+c", "+d", "-a", "listed 2"]
    stream.close()


async def test_bookmark_moves_the_point_of_return(api: FakeApi, kube: Kube) -> None:
    stream = start(kube)
    await take(stream, 1)
    async with anyio.create_task_group() as tasks:

        async def script() -> None:
            await watching(api, 1)
            api.bookmark()
            await anyio.sleep(0.05)
            api.end_watches()
            await watching(api, 2)
            api.put("nodes", node("a"))

        tasks.start_soon(script)
        assert await take(stream, 1) == ["+a"]
    assert api.requests[-1].query["resourceVersion"] == str(api.version - 1)
    stream.close()


async def test_relist_on_request_even_in_the_middle_of_a_read(api: FakeApi, kube: Kube) -> None:
    api.put("nodes", node("a"))
    stream = start(kube)
    await take(stream, 2)
    wanted = 0

    async def ask() -> None:
        nonlocal wanted
        await anyio.sleep(0.05)
        wanted = stream.relist()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        assert await take(stream, 2) == ["+a", "listed 2"]
    assert wanted == 2
    stream.close()


async def test_relist_on_request_while_the_watch_is_being_opened(api: FakeApi, kube: Kube) -> None:
    stream = start(kube)
    await take(stream, 1)
    api.fail("GET", "nodes", delay_s=0.2)
    async with anyio.create_task_group() as tasks:

        async def ask() -> None:
            await anyio.sleep(0.05)
            stream.relist()

        tasks.start_soon(ask)
        assert await take(stream, 1) == ["listed 2"]
    stream.close()


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 403}, {"drop": True}, {"status": 429}])
async def test_failures_are_tried_again(api: FakeApi, kube: Kube, fault: Json) -> None:
    api.put("nodes", node("a"))
    api.fail("GET", "nodes", times=2, headers={"Retry-After": "0"}, **fault)
    stream = start(kube)
    assert await take(stream, 2) == ["+a", "listed 1"]
    assert len(api.requests) >= 3
    stream.close()


async def test_object_that_leaves_the_selector_is_deleted(api: FakeApi, kube: Kube) -> None:
    selector = "status.phase!=Succeeded,status.phase!=Failed"
    pod: Json = {"metadata": {"namespace": "ns", "name": "p"}, "status": {"phase": "Running"}}
    api.put("pods", {"metadata": {"namespace": "ns", "name": "old"}, "status": {"phase": "Failed"}})
    api.put("pods", pod)
    stream = start(kube, PODS, field_selector=selector)
    assert await take(stream, 2) == ["+p", "listed 1"]
    async with anyio.create_task_group() as tasks:

        async def script() -> None:
            await watching(api, 1)
            api.put("pods", {**pod, "status": {"phase": "Succeeded"}})

        tasks.start_soon(script)
        assert await take(stream, 1) == ["-p"]
    stream.close()


async def test_a_watch_that_ends_at_once_does_not_spin(api: FakeApi, kube: Kube) -> None:
    delays: list[float] = []

    def counted() -> Iterator[float]:
        while True:
            delays.append(1)
            yield 0.01

    stream = Watch(kube, NODES, retry=counted)
    await take(stream, 1)
    async with anyio.create_task_group() as tasks:

        async def cut() -> None:
            for _ in range(5):
                await anyio.sleep(0.02)
                api.end_watches()

        tasks.start_soon(cut)
        with anyio.move_on_after(0.3):
            await anext(stream)
    assert delays
    stream.close()


def test_lines_survive_any_cut() -> None:
    text = b'{"a":1}\n{"b":2}\n\n{"c":3}\n'
    for size in range(1, len(text) + 1):
        lines = module._Lines()
        got = [line for start in range(0, len(text), size) for line in lines.feed(text[start : start + size])]
        assert got == [b'{"a":1}', b'{"b":2}', b'{"c":3}']
