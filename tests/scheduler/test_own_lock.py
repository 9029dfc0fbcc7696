"""The lock of a family's own: a time without an owner, taken before the binding and given back only by who took it."""

import anyio
import pytest

from tests.fakes.apiserver import Json
from tests.scheduler.running import Running

pytestmark = pytest.mark.anyio

LOCK = "cambricon.com/dsmlu.lock"
COUNT = "cambricon.com/vmlu"


def mlu_node(name: str = "n1", lock: str = "") -> Json:
    capacity = {COUNT: "4", "cambricon.com/mlu.smlu.vcore": "400", "cambricon.com/mlu.smlu.vmemory": "384"}
    return {
        "metadata": {"name": name, "annotations": {LOCK: lock} if lock else {}},
        "status": {"capacity": capacity, "allocatable": capacity},
    }


def mlu_pod(name: str) -> Json:
    amounts = {COUNT: "1"}
    container = {"name": "c", "resources": {"limits": amounts, "requests": amounts}}
    return {"metadata": {"name": name, "namespace": "ns", "uid": f"uid-{name}"}, "spec": {"containers": [container]}}


def lock_of(running: Running) -> str | None:
    value = running.api.get("nodes", "n1")["metadata"]["annotations"].get(LOCK)
    return None if value is None else str(value)


async def test_taken_with_the_time_alone_and_what_the_plug_in_reads(running: Running) -> None:
    running.api.put("nodes", mlu_node())
    async with running.started():
        await running.place(mlu_pod("p"), "n1")
        value = lock_of(running)
        assert value is not None
        assert value.endswith("Z")
        assert "," not in value
        notes = running.api.get("pods", "p", "ns")["metadata"]["annotations"]
        assert notes["CAMBRICON_DSMLU_PROFILE"] == "3_100_96"
        assert notes["CAMBRICON_DSMLU_ASSIGNED"] == "false"


async def test_another_pod_waits_and_the_lock_stays_its_owners(running: Running) -> None:
    running.api.put("nodes", mlu_node())
    async with running.started(node_lock_retry_timeout_s=0.1):
        await running.place(mlu_pod("a"), "n1")
        first = lock_of(running)
        b = running.api.put("pods", mlu_pod("b"))
        await running.filter(b, "n1")
        with anyio.fail_after(5):
            assert "node lock contention" in await running.bind(b, "n1")
        assert lock_of(running) == first


async def test_a_lock_of_somebody_else_ends_after_two_minutes(running: Running) -> None:
    running.api.put("nodes", mlu_node(lock="2026-01-01T00:00:00Z"))
    async with running.started():
        await running.place(mlu_pod("p"), "n1")
        assert lock_of(running) not in (None, "2026-01-01T00:00:00Z")
