"""Binds whose answer is lost, late, or a conflict: no pod is lost and no device is given twice."""

import anyio
import pytest

from hami.model.wire import pod as keys
from hami.scheduler import binding
from tests.fakes.objects import node, pod
from tests.scheduler.running import Running

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "SEND_S", 0.3)


async def test_arrived_but_unanswered_is_success(running: Running) -> None:
    running.api.put("nodes", node("n1"))
    async with running.started():
        running.api.fail("POST", "binding", after=True)
        assert await running.place(pod("p"), "n1") == "n1"
        assert len(running.api.asked("POST", "binding")) == 1
        assert running.api.get("pods", "p", "ns")["metadata"]["annotations"][keys.NODE] == "n1"


async def test_never_arrived_is_sent_once_more_unchanged(running: Running) -> None:
    running.api.put("nodes", node("n1"))
    async with running.started():
        running.api.fail("POST", "binding", drop=True)
        assert await running.place(pod("p"), "n1") == "n1"
        first, second = running.api.asked("POST", "binding")
        assert first.body == second.body


async def test_first_binding_arrives_late(running: Running) -> None:
    """Unbound when read back, bound when sent again: the conflict says that the first one had arrived."""
    running.api.put("nodes", node("n1"))
    async with running.started():
        made = running.api.put("pods", pod("p"))
        await running.filter(made, "n1")
        running.api.fail("POST", "binding", drop=True)
        late = {**made, "spec": {**made["spec"], "nodeName": "n1"}}
        running.api.fail("POST", "binding", delay_s=0.2, status=409)
        async with anyio.create_task_group() as tasks:

            async def arrive() -> None:
                await anyio.sleep(0.1)
                running.api.put("pods", late)

            tasks.start_soon(arrive)
            assert await running.bind(made, "n1") == ""


async def test_twice_lost_is_an_error_and_frees_the_devices(running: Running) -> None:
    running.api.put("nodes", node("n1", 1))
    async with running.started():
        made = running.api.put("pods", pod("p", memory=10000))
        await running.filter(made, "n1")
        running.api.fail("POST", "binding", drop=True, times=2)
        assert "two attempts" in await running.bind(made, "n1")
        assert len(running.service.holds) == 0
        assert (await running.filter(pod("q", memory=10000), "n1"))["NodeNames"] == ["n1"]


async def test_unknown_outcome_keeps_the_devices_and_the_answer(running: Running) -> None:
    running.api.put("nodes", node("n1", 1))
    async with running.started():
        made = running.api.put("pods", pod("p", memory=10000))
        await running.filter(made, "n1")
        running.api.fail("POST", "binding", after=True)
        running.api.end_watches()
        running.api.fail("GET", "/pods", status=500, times=10_000)
        assert "does not say" in await running.bind(made, "n1")
        assert (await running.filter(pod("q", memory=10000), "n1"))["NodeNames"] is None
        # kube-scheduler tries the pod again: the same node, and the Binding turns out to have arrived.
        assert (await running.filter(made, "n1"))["NodeNames"] == ["n1"]
        running.api.faults.clear()
        assert await running.bind(made, "n1") == ""
        await running.until(lambda: len(running.service.holds) == 0, 20)
        running.service.picture.ledger.check()


async def test_bound_elsewhere_meanwhile(running: Running) -> None:
    for name in ("n1", "n2"):
        running.api.put("nodes", node(name))
    async with running.started():
        made = running.api.put("pods", pod("p"))
        (chosen,) = (await running.filter(made, "n1", "n2"))["NodeNames"]
        other = "n2" if chosen == "n1" else "n1"
        running.api.fail("POST", "binding", drop=True)
        running.api.fail("GET", "pods/p", delay_s=0.1)
        async with anyio.create_task_group() as tasks:

            async def elsewhere() -> None:
                await anyio.sleep(0.05)
                running.api.put("pods", {**made, "spec": {**made["spec"], "nodeName": other}})

            tasks.start_soon(elsewhere)
            assert f"bound to node {other}" in await running.bind(made, chosen)
        await running.until(lambda: len(running.service.holds) == 0)


@pytest.mark.parametrize("what", ["deleted", "replaced"])
async def test_pod_that_is_no_more(running: Running, what: str) -> None:
    running.api.put("nodes", node("n1"))
    async with running.started():
        made = running.api.put("pods", pod("p"))
        await running.filter(made, "n1")
        running.api.remove("pods", "p", "ns")
        if what == "replaced":
            running.api.put("pods", pod("p", uid="uid-other"))
        assert await running.bind(made, "n1") != ""
        await running.until(lambda: len(running.service.holds) == 0)


async def test_refilter_during_the_bind_waits_its_turn(running: Running) -> None:
    running.api.put("nodes", node("n1"))
    async with running.started():
        made = running.api.put("pods", pod("p"))
        await running.filter(made, "n1")
        running.api.fail("POST", "binding", delay_s=0.2)
        async with anyio.create_task_group() as tasks:
            errors: list[str] = []

            async def bind() -> None:
                errors.append(await running.bind(made, "n1"))

            tasks.start_soon(bind)
            await anyio.sleep(0.05)
            assert "being bound" in (await running.filter(made, "n1"))["Error"]
            assert "being bound" in await running.bind(made, "n1")
        assert errors == [""]
        assert len(running.api.asked("POST", "binding")) == 1


async def test_watch_shows_the_pod_before_the_answer_comes(running: Running) -> None:
    running.api.put("nodes", node("n1"))
    async with running.started():
        made = running.api.put("pods", pod("p"))
        await running.filter(made, "n1")
        hold = running.service.holds.get(made["metadata"]["uid"])
        assert hold is not None
        running.api.fail("POST", "binding", after=True)
        running.api.fail("GET", "pods/p", delay_s=0.2)
        assert await running.bind(made, "n1") == ""
        assert len(running.service.holds) == 0
        running.service.picture.ledger.check()
