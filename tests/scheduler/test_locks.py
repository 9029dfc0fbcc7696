"""The node lock for families of a foreign plug-in: taken, waited for, broken, given back; never for our own."""

import anyio
import pytest

from hami.model.wire import pod as keys
from tests.fakes.objects import node, pod
from tests.scheduler.running import Running

pytestmark = pytest.mark.anyio


def lock_of(running: Running, name: str = "n1") -> str | None:
    value = running.api.get("nodes", name)["metadata"]["annotations"].get(keys.NODE_LOCK)
    return None if value is None else str(value)


async def test_taken_before_the_binding_with_the_pending_key(running: Running) -> None:
    running.api.put("nodes", node("n1", own_agent=False))
    async with running.started():
        await running.place(pod("p"), "n1")
        value = lock_of(running)
        assert value is not None
        assert value.endswith(",ns,p")
        notes = running.api.get("pods", "p", "ns")["metadata"]["annotations"]
        assert notes[keys.NVIDIA_PENDING] == notes[keys.NVIDIA_DONE]
        kinds = [r.path.rsplit("/", 1)[-1] for r in running.api.requests if r.method in ("PATCH", "POST")]
        assert kinds.index("n1") < kinds.index("binding")


async def test_our_own_agent_needs_none(running: Running) -> None:
    running.api.put("nodes", node("n1"))
    async with running.started():
        await running.place(pod("p"), "n1")
        assert lock_of(running) is None
        assert keys.NVIDIA_PENDING not in running.api.get("pods", "p", "ns")["metadata"]["annotations"]


async def test_waits_for_the_plug_in_of_another_pod(running: Running) -> None:
    running.api.put("nodes", node("n1", own_agent=False))
    async with running.started():
        await running.place(pod("a"), "n1")
        b = running.api.put("pods", pod("b"))
        await running.filter(b, "n1")
        async with anyio.create_task_group() as tasks:

            async def plug_in() -> None:
                await anyio.sleep(0.1)
                assert "nodeName" not in running.api.get("pods", "b", "ns")["spec"]
                served = running.api.get("nodes", "n1")
                del served["metadata"]["annotations"][keys.NODE_LOCK]
                running.api.put("nodes", served)

            tasks.start_soon(plug_in)
            with anyio.fail_after(2):
                assert await running.bind(b, "n1") == ""
        assert str(lock_of(running)).endswith(",ns,b")


async def test_gives_up_in_time_and_leaves_the_others_lock(running: Running) -> None:
    running.api.put("nodes", node("n1", own_agent=False))
    async with running.started(node_lock_retry_timeout_s=0.1):
        await running.place(pod("a"), "n1")
        b = running.api.put("pods", pod("b"))
        await running.filter(b, "n1")
        assert "node lock contention" in await running.bind(b, "n1")
        assert str(lock_of(running)).endswith(",ns,a")
        assert len(running.service.holds) <= 1


async def test_dead_owner_is_broken_at_once(running: Running) -> None:
    held = node("n1", own_agent=False, annotations={keys.NODE_LOCK: "2026-01-01T00:00:00Z,ns,gone"})
    running.api.put("nodes", held)
    async with running.started(node_lock_timeout_s=1e9):
        await running.place(pod("p"), "n1")
        assert str(lock_of(running)).endswith(",ns,p")


async def test_failed_binding_gives_the_lock_back(running: Running) -> None:
    running.api.put("nodes", node("n1", own_agent=False))
    async with running.started():
        made = running.api.put("pods", pod("p"))
        await running.filter(made, "n1")
        running.api.fail("POST", "binding", status=422)
        assert "422" in await running.bind(made, "n1")
        assert lock_of(running) is None


async def test_lock_in_nobodys_format_is_an_error(running: Running) -> None:
    running.api.put("nodes", node("n1", own_agent=False, annotations={keys.NODE_LOCK: "a,b,c,d"}))
    async with running.started():
        made = running.api.put("pods", pod("p"))
        await running.filter(made, "n1")
        assert keys.NODE_LOCK in await running.bind(made, "n1")


async def test_waiting_ends_when_the_caller_goes_away(running: Running) -> None:
    running.api.put("nodes", node("n1", own_agent=False))
    async with running.started():
        await running.place(pod("a"), "n1")
        b = running.api.put("pods", pod("b"))
        await running.filter(b, "n1")
        with anyio.move_on_after(0.1):
            await running.bind(b, "n1")
        await running.until(lambda: running.service.holds.get(b["metadata"]["uid"]) is None, 3)
        assert "nodeName" not in running.api.get("pods", "b", "ns")["spec"]


async def test_a_device_of_an_init_container_alone_takes_it_too(running: Running) -> None:
    running.api.put("nodes", node("n1", own_agent=False))
    asking = pod("p")
    asking["spec"]["initContainers"] = asking["spec"]["containers"]
    asking["spec"]["containers"] = [{"name": "app"}]
    async with running.started():
        await running.place(asking, "n1")
        assert str(lock_of(running)).endswith(",ns,p")
        assert running.api.get("pods", "p", "ns")["metadata"]["annotations"][keys.NVIDIA_PENDING].endswith(":;;")
