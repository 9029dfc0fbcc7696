"""Who decides, and what it must know first: the Lease, the listing, and what callers hear until then."""

from typing import Any

import anyio
import pytest

from hami.kube.watch import Added, Deleted, Modified
from hami.scheduler.leader import Leadership
from hami.scheduler.service import Options
from tests.fakes.apiserver import Json
from tests.fakes.objects import bound, node, pod
from tests.scheduler.running import LOOPBACK, Running


def lease(holder: str, *, transitions: int = 0, renewed: str = "1", duration: Any = 15) -> Json:
    return {
        "metadata": {"namespace": "kube-system", "name": "hami-scheduler"},
        "spec": {
            "holderIdentity": holder,
            "leaseTransitions": transitions,
            "renewTime": renewed,
            "leaseDurationSeconds": duration,
        },
    }


@pytest.mark.parametrize(
    ("holder", "ours"),
    [
        ("host-1_uid", True),
        ("host-10_uid", False),
        ("host_1_uid", False),
        ("host-1", False),
        ("", False),
        ("_x", False),
    ],
)
def test_the_holder_is_the_part_before_the_last_underscore(holder: str, ours: bool) -> None:
    leadership = Leadership("host-1", elect=True)
    leadership.fold(Added(lease(holder)), 100.0)
    assert leadership.active(100.0) is ours


def test_a_lease_that_stands_still_runs_out() -> None:
    leadership = Leadership("h", elect=True)
    assert leadership.fold(Added(lease("h_1")), 0.0)
    assert leadership.active(14.0)
    assert not leadership.fold(Modified(lease("h_1")), 14.0)
    assert not leadership.active(15.0)
    assert "run out" in leadership.why_not(15.0)
    assert not leadership.fold(Modified(lease("h_1", renewed="2")), 16.0)
    assert leadership.active(30.0)


def test_another_term_of_the_same_holder_is_a_change() -> None:
    leadership = Leadership("h", elect=True)
    leadership.fold(Added(lease("h_1")), 0.0)
    assert leadership.fold(Modified(lease("h_1", transitions=2)), 1.0)


def test_nobody_leads_without_a_lease() -> None:
    leadership = Leadership("h", elect=True)
    assert not leadership.active(0.0)
    assert "nobody" in leadership.why_not(0.0)
    leadership.fold(Added(lease("h_1", duration="no number")), 0.0)
    assert leadership.active(1.0)
    leadership.fold(Deleted(lease("h_1")), 1.0)
    assert not leadership.active(1.0)


@pytest.mark.anyio
async def test_follower_answers_an_error_and_takes_over_with_a_fresh_listing(running: Running) -> None:
    running.api.put("nodes", node("n1", 1))
    running.api.put("leases", lease("other_1"))
    options = Options(http=LOOPBACK, lease=("kube-system", "hami-scheduler"), host="me")
    async with running.started(options=options):
        await running.until(lambda: "other_1" in running.service.leadership.why_not(0))
        assert "other_1 holds" in (await running.filter(pod("p"), "n1"))["Error"]
        made = running.api.put("pods", pod("p"))
        assert "other_1 holds" in await running.bind(made, "n1")
        async with running.http.get(f"http://{running.bound.http}/readyz") as answer:
            assert answer.status == 200
        listings = len([r for r in running.api.asked("GET", "/pods$") if "watch" not in r.query])
        # The old leader's last bind, which our watch may not have shown yet.
        running.api.put("pods", bound("last", "n1", "n1-0,NVIDIA,16000,0:;"))
        running.api.fail("GET", "/pods$", delay_s=0.2)
        running.api.put("leases", lease("me_2", transitions=1))
        await running.until(lambda: running.service.leadership.active(running.service._clock.monotonic()))
        assert "not synced" in (await running.filter(pod("p"), "n1"))["Error"]
        async with running.http.get(f"http://{running.bound.http}/readyz") as answer:
            assert answer.status == 200
        await running.until(lambda: running.service.picture.listed)
        assert len([r for r in running.api.asked("GET", "/pods$") if "watch" not in r.query]) > listings
        assert (await running.filter(pod("p"), "n1"))["FailedNodes"] == {"n1": "1/1 CardInsufficientMemory"}


@pytest.mark.anyio
async def test_own_pod_is_labelled_with_its_role(running: Running) -> None:
    running.api.put("pods", pod("me"))
    running.api.put("leases", lease("me_1"))
    options = Options(http=LOOPBACK, lease=("kube-system", "hami-scheduler"), host="me", pod=("ns", "me"))
    async with running.started(options=options):
        await running.until(
            lambda: (
                running.api.get("pods", "me", "ns")["metadata"].get("labels") == {"hami.io/scheduler-role": "leader"}
            )
        )
        running.api.put("leases", lease("you_1", transitions=1))
        await running.until(
            lambda: running.api.get("pods", "me", "ns")["metadata"]["labels"]["hami.io/scheduler-role"] == "follower"
        )


@pytest.mark.anyio
async def test_not_ready_before_everything_is_listed(running: Running) -> None:
    running.api.put("nodes", node("n1"))
    running.api.fail("GET", "/pods$", delay_s=0.3)
    async with running.started(wait=False):
        await anyio.sleep(0.05)
        async with running.http.get(f"http://{running.bound.http}/readyz") as answer:
            assert answer.status == 503
        async with running.http.get(f"http://{running.bound.http}/healthz") as answer:
            assert (answer.status, await answer.read()) == (200, b"")
        assert "not synced" in (await running.filter(pod("p"), "n1"))["Error"]
        await running.until(lambda: running.service.picture.listed)
        async with running.http.get(f"http://{running.bound.http}/readyz") as answer:
            assert answer.status == 200
