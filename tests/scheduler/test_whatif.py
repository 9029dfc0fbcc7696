"""Questions that change nothing: evictions that would help, and nodes as described. The picture is equal afterwards."""

import json

import pytest

from hami.model.wire import pod as keys
from tests.fakes.objects import bound, card, node, pod
from tests.scheduler.running import Running

pytestmark = pytest.mark.anyio


async def test_only_evictions_that_make_room_are_kept(running: Running) -> None:
    running.api.put("nodes", node("n1", 1))
    running.api.put("nodes", node("n2", 1))
    big = running.api.put("pods", bound("big", "n1", "n1-0,NVIDIA,12000,0:;"))["metadata"]["uid"]
    small = running.api.put("pods", bound("small", "n1", "n1-0,NVIDIA,1000,0:;"))["metadata"]["uid"]
    other = running.api.put("pods", bound("other", "n2", "n2-0,NVIDIA,16384,0:;"))["metadata"]["uid"]
    async with running.started():
        victims = {
            "n1": {"Pods": [{"UID": big}], "NumPDBViolations": 1},
            "n2": {"Pods": [{"UID": small}], "NumPDBViolations": 0},
        }
        body = {"Pod": pod("p", memory=10000), "NodeNameToMetaVictims": victims}
        assert await running.ask("/preempt", body) == {"NodeNameToMetaVictims": {"n1": victims["n1"]}}
        cheap = {"n1": {"Pods": [{"UID": small}]}, "n2": {"Pods": [{"UID": other}]}}
        answer = await running.ask("/preempt", {"Pod": pod("p", memory=10000), "NodeNameToMetaVictims": cheap})
        assert list(answer["NodeNameToMetaVictims"]) == ["n2"]
        running.service.picture.ledger.check()
        assert len(running.service.picture.ledger.pods) == 3


async def test_evictions_for_a_pod_without_devices_are_none_of_our_business(running: Running) -> None:
    async with running.started():
        body = {"Pod": pod("p", count=0), "NodeNameToMetaVictims": {"n1": {"Pods": [{"UID": "x"}]}}}
        assert list((await running.ask("/preempt", body))["NodeNameToMetaVictims"]) == ["n1"]
        broken = {"Pod": pod("p", memory="16Gi"), "NodeNameToMetaVictims": {"n1": {"Pods": [{"UID": "x"}]}}}
        assert await running.ask("/preempt", broken) == {"NodeNameToMetaVictims": {}}


async def test_simulation_knows_what_runs_and_takes_nodes_that_do_not_exist(running: Running) -> None:
    running.api.put("nodes", node("n1", 1))
    running.api.put("pods", bound("old", "n1", "n1-0,NVIDIA,10000,0:;"))
    async with running.started():
        listed = [node("n1", 1), node("planned", 1), node("cpu", [])]
        answer = await running.ask("/filter-simulation", {"Pod": pod("p", memory=8000), "Nodes": {"items": listed}})
        assert answer["NodeNames"] == ["planned"]
        assert [item["metadata"]["name"] for item in answer["Nodes"]["items"]] == ["planned"]
        assert answer["FailedNodes"] == {"n1": "1/1 CardInsufficientMemory", "cpu": "node unregistered"}
        named = await running.ask("/filter-simulation", {"Pod": pod("p", memory=4000), "NodeNames": ["n1", "planned"]})
        assert named["NodeNames"] == ["n1"]
        assert len(running.service.holds) == 0
        assert running.api.all("events") == []


async def test_simulation_answers_every_fitting_node(running: Running) -> None:
    async with running.started():
        listed = [node("a", 1), node("b", [card("b-0", model="NVIDIA H100")])]
        answer = await running.ask("/filter-simulation", {"Pod": pod("p"), "Nodes": {"items": listed}})
        assert sorted(answer["NodeNames"]) == ["a", "b"]


async def test_simulation_respects_the_quota_of_pods_elsewhere(running: Running) -> None:
    running.api.put("nodes", node("n1", 1))
    running.api.put("pods", bound("old", "n1", "n1-0,NVIDIA,10000,0:;"))
    running.api.put(
        "resourcequotas",
        {"metadata": {"namespace": "ns", "name": "q"}, "spec": {"hard": {"limits.nvidia.com/gpumem": "12000"}}},
    )
    async with running.started():
        answer = await running.ask(
            "/filter-simulation", {"Pod": pod("p", memory=4000), "Nodes": {"items": [node("planned", 1)]}}
        )
        assert answer["FailedNodes"] == {"planned": "1/1 ResourceQuotaNotFit"}


async def test_unusable_simulation_names_the_field(running: Running) -> None:
    async with running.started():
        answer = await running.ask("/filter-simulation", {"Pod": pod("p", memory="x"), "NodeNames": ["n1"]})
        assert "nvidia.com/gpumem" in answer["Error"]


async def test_foreign_schedulers_unbound_pod_counts(running: Running) -> None:
    running.api.put("nodes", node("n1", 1))
    notes = {keys.NODE: "n1", keys.NVIDIA_DONE: "n1-0,NVIDIA,10000,0:;", keys.TIME: "1800000000"}
    running.api.put("pods", pod("foreign", annotations=notes))
    async with running.started():
        assert (await running.filter(pod("p", memory=10000), "n1"))["NodeNames"] is None
        assert json.dumps(running.api.get("pods", "foreign", "ns")["metadata"]["annotations"]) == json.dumps(notes)
