"""From a filter call to the bound pod, through HTTP and a scripted API server: the ordinary ways, and what is written.

Not here: answers that get lost (test_lost_answers), locks (test_locks), who leads (test_leader).
"""

import pytest

from hami.model.wire import pod as keys
from tests.fakes.objects import bound, card, node, pod
from tests.scheduler.running import Running

pytestmark = pytest.mark.anyio


async def test_one_write_carries_everything(running: Running) -> None:
    running.api.put("nodes", node("n1"))
    async with running.started():
        assert await running.place(pod("p", memory=3000, cores=30), "n1") == "n1"
        stored = running.api.get("pods", "p", "ns")
        notes = stored["metadata"]["annotations"]
        assert notes[keys.NVIDIA_DONE] in ("n1-0,NVIDIA,3000,30:;", "n1-1,NVIDIA,3000,30:;")
        assert notes[keys.NODE] == "n1"
        assert notes[keys.BIND_PHASE] == "allocating"
        assert notes[keys.BIND_TIME].isdigit()
        assert stored["metadata"]["labels"][keys.NODE] == "n1"
        writes = [r for r in running.api.requests if r.method != "GET" and "events" not in r.path]
        assert [(r.method, r.path.rsplit("/", 1)[-1]) for r in writes] == [("POST", "binding")]


async def test_filter_writes_nothing_and_holds(running: Running) -> None:
    running.api.put("nodes", node("n1", 1))
    async with running.started():
        first = await running.filter(pod("a", memory=10000), "n1")
        assert first == {
            "Nodes": None,
            "NodeNames": ["n1"],
            "FailedNodes": None,
            "FailedAndUnresolvableNodes": None,
            "Error": "",
        }
        second = await running.filter(pod("b", memory=10000), "n1")
        assert second["NodeNames"] is None
        assert second["FailedNodes"] == {"n1": "1/1 CardInsufficientMemory"}
        assert not [r for r in running.api.requests if r.method != "GET" and "events" not in r.path]
        # A filter of the same pod decides anew: its own hold does not stand in its way.
        assert (await running.filter(pod("a", memory=12000), "n1"))["NodeNames"] == ["n1"]


async def test_refusal_is_one_event_with_counts_however_often(running: Running) -> None:
    running.api.put("nodes", node("n1"))
    running.api.put("nodes", node("n2", [card("n2-0", health=False)]))
    async with running.started():
        for _ in range(3):
            answer = await running.filter(pod("p", memory=20000), "n1", "n2", "cpu")
            assert answer["FailedNodes"] == {
                "n1": "2/2 CardInsufficientMemory",
                "n2": "1/1 CardNotHealth",
                "cpu": "node unregistered",
            }
        (event,) = await running.events("FilteringFailed")
        assert event["message"].startswith("no available node, 3 nodes do not meet: ")
        assert "2 devices short of memory (largest free 16,384 MiB)" in event["message"]
        assert "1 nodes CardInsufficientMemory(n1)" in event["message"]
        assert len(event["message"].encode()) <= 1024
        assert event["involvedObject"] == {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": "ns",
            "name": "p",
            "uid": "uid-p",
        }
        assert event["source"] == {"component": "hami-scheduler"}
        assert event["type"] == "Warning"


async def test_success_events(running: Running) -> None:
    running.api.put("nodes", node("n1"))
    async with running.started():
        await running.place(pod("p"), "n1", "nowhere")
        (found,) = await running.events("FilteringSucceed")
        assert found["message"] == "find fit node(n1), 1 nodes not fit, 1 nodes fit(n1:0.00)"
        (done,) = await running.events("BindingSucceed")
        assert done["message"] == "Successfully binding node [n1] to ns/p"


async def test_unusable_request_names_the_field(running: Running) -> None:
    running.api.put("nodes", node("n1"))
    async with running.started():
        answer = await running.filter(pod("p", memory="16Gi"), "n1")
        assert answer["NodeNames"] is None
        assert answer["FailedNodes"]["n1"].startswith("InvalidDeviceRequest")
        (event,) = await running.events("FilteringFailed")
        assert "spec.containers[0].resources.limits[nvidia.com/gpumem]" in event["message"]


async def test_weights_that_cannot_be_read(running: Running) -> None:
    running.api.put("nodes", node("n1"))
    async with running.started():
        answer = await running.filter(pod("p", annotations={keys.SCORE_WEIGHTS: "slot=1"}), "n1")
        assert answer["Error"].startswith("calcScore failed ")
        assert answer["Error"].endswith(" for pod p")


async def test_pod_without_devices_passes(running: Running) -> None:
    async with running.started():
        answer = await running.filter(pod("p", count=0), "b", "a")
        assert answer["NodeNames"] == ["b", "a"]


async def test_node_objects_are_answered_as_objects(running: Running) -> None:
    listed = [running.api.put("nodes", node(name)) for name in ("n1", "n2")]
    async with running.started():
        answer = await running.ask("/filter", {"pod": pod("p"), "nodes": {"items": listed}})
        (name,) = answer["NodeNames"]
        assert [item["metadata"]["name"] for item in answer["Nodes"]["items"]] == [name]


async def test_ranked_answers_all_and_binds_where_it_is_told(running: Running) -> None:
    for name in ("n1", "n2", "n3"):
        running.api.put("nodes", node(name))
    running.api.put("pods", bound("busy", "n2", "n2-0,NVIDIA,8000,0:;"))
    async with running.started(filter_answer="ranked"):
        made = running.api.put("pods", pod("p"))
        answer = await running.filter(made, "n1", "n2", "n3")
        assert answer["NodeNames"][0] == "n2"
        assert sorted(answer["NodeNames"]) == ["n1", "n2", "n3"]
        body = {"Pod": made, "NodeNames": answer["NodeNames"]}
        async with running.http.post(f"http://{running.bound.http}/prioritize", json=body) as reply:
            scores = {entry["Host"]: entry["Score"] for entry in await reply.json()}
        assert scores == {"n2": 10, "n1": 0, "n3": 0}
        assert await running.bind(made, "n3") == ""
        notes = running.api.get("pods", "p", "ns")["metadata"]["annotations"]
        assert notes[keys.NODE] == "n3"
        assert notes[keys.NVIDIA_DONE].startswith("n3-")
        running.service.picture.ledger.check()


@pytest.mark.parametrize(("scored", "want"), [(False, "large"), (True, "small")])
async def test_the_request_enters_the_score_on_demand(running: Running, scored: bool, want: str) -> None:
    # Both cards are half full; with 2000 MiB more the small one is fuller.
    running.api.put("nodes", node("n1", [card("small", 0, memory=4000), card("large", 1, memory=16000)]))
    running.api.put("pods", bound("busy", "n1", "small,NVIDIA,2000,0:large,NVIDIA,8000,0:;"))
    async with running.started(score_request=scored, card_policy="binpack"):
        await running.place(pod("p", memory=2000), "n1")
        notes = running.api.get("pods", "p", "ns")["metadata"]["annotations"]
        assert notes[keys.NVIDIA_DONE] == f"{want},NVIDIA,2000,0:;"


async def test_bind_without_a_hold_places_again(running: Running) -> None:
    running.api.put("nodes", node("n1", 1))
    async with running.started():
        a, b = (running.api.put("pods", pod(name, memory=10000)) for name in "ab")
        assert await running.bind(a, "n1") == ""
        assert running.api.get("pods", "a", "ns")["metadata"]["annotations"][keys.NVIDIA_DONE]
        assert "CardInsufficientMemory" in await running.bind(b, "n1")
        assert "nodeName" not in running.api.get("pods", "b", "ns")["spec"]
        (event,) = await running.events("BindingFailed")
        assert "no longer fits" in event["message"]


async def test_bind_again_is_success_and_elsewhere_an_error(running: Running) -> None:
    running.api.put("nodes", node("n1"))
    running.api.put("nodes", node("n2"))
    async with running.started():
        made = pod("p")
        await running.place(made, "n1")
        assert await running.bind(made, "n1") == ""
        assert "bound to node n1" in await running.bind(made, "n2")
        await running.until(lambda: len(running.service.holds) == 0)
        assert await running.bind(made, "n1") == ""
        assert "bound to node n1" in await running.bind(made, "n2")


async def test_keys_of_an_earlier_attempt_are_removed(running: Running) -> None:
    running.api.put("nodes", node("n1"))
    old = {keys.NVIDIA_PENDING: "x,NVIDIA,1,1:;", keys.NVIDIA_MIG: "[]", "mine": "stays"}
    async with running.started():
        await running.place(pod("p", annotations=old), "n1")
        notes = running.api.get("pods", "p", "ns")["metadata"]["annotations"]
        assert keys.NVIDIA_MIG not in notes
        assert keys.NVIDIA_PENDING not in notes
        assert notes["mine"] == "stays"
        assert len(running.api.asked("PATCH", "pods/p")) == 1


async def test_deleted_pod_gives_its_hold_back(running: Running) -> None:
    running.api.put("nodes", node("n1", 1))
    async with running.started():
        a = running.api.put("pods", pod("a", memory=10000))
        assert (await running.filter(a, "n1"))["NodeNames"] == ["n1"]
        running.api.remove("pods", "a", "ns")
        await running.until(lambda: len(running.service.holds) == 0)
        assert (await running.filter(pod("b", memory=10000), "n1"))["NodeNames"] == ["n1"]


async def test_call_for_a_pod_that_is_gone_holds_nothing(running: Running) -> None:
    running.api.put("nodes", node("n1", 1))
    async with running.started():
        made = running.api.put("pods", pod("p"))
        running.api.remove("pods", "p", "ns")
        await running.until(lambda: running.service.holds.is_gone(made["metadata"]["uid"]))
        assert "deleted" in (await running.filter(made, "n1"))["Error"]
        assert len(running.service.holds) == 0


async def test_waiting_pod_is_nudged_when_room_appears(running: Running) -> None:
    running.api.put("nodes", node("n1", 1))
    running.api.put("pods", bound("old", "n1", "n1-0,NVIDIA,10000,0:;"))
    async with running.started():
        made = running.api.put("pods", pod("p", memory=10000))
        far = running.api.put("pods", pod("far", memory=20000))
        assert (await running.filter(made, "n1"))["NodeNames"] is None
        assert (await running.filter(far, "n1"))["NodeNames"] is None
        running.api.remove("pods", "old", "ns")
        await running.until(
            lambda: "hami.io/room-seen" in running.api.get("pods", "p", "ns")["metadata"].get("annotations", {}), 2
        )
        assert len(running.api.asked("PATCH", "pods")) == 1
        assert (await running.filter(made, "n1"))["NodeNames"] == ["n1"]


async def test_cordon_counts_at_once(running: Running) -> None:
    running.api.put("nodes", node("n1", 1))
    async with running.started():
        running.api.put("nodes", node("n1", 1, annotations={keys.CORDON: "n1-0"}))
        await running.until(lambda: bool(running.service.picture.ledger.usage("n1")[0].cordoned))  # type: ignore[arg-type]
        answer = await running.filter(pod("p"), "n1")
        assert answer["FailedNodes"] == {"n1": "1/1 CardCordoned"}


async def test_unreadable_node_is_told_once_and_others_serve(running: Running) -> None:
    running.api.put("nodes", node("n1"))
    broken = node("broken")
    broken["metadata"]["annotations"][keys.NVIDIA_NODE] = '[{"id": 7}]'
    running.api.put("nodes", broken)
    async with running.started():
        running.api.put("nodes", broken)
        (event,) = await running.events("InvalidAnnotation")
        assert keys.NVIDIA_NODE in event["message"]
        assert event["involvedObject"]["kind"] == "Node"
        assert event["metadata"]["namespace"] == "default"
        assert (await running.filter(pod("p"), "n1", "broken"))["NodeNames"] == ["n1"]


async def test_label_that_the_server_dropped_is_added(running: Running) -> None:
    running.api.put("nodes", node("n1"))
    unlabelled = bound("p", "n1", "n1-0,NVIDIA,10000,0:;")
    del unlabelled["metadata"]["labels"]
    running.api.put("pods", unlabelled)
    async with running.started():
        await running.until(lambda: running.api.get("pods", "p", "ns")["metadata"].get("labels") == {keys.NODE: "n1"})


async def test_quota_of_the_namespace_holds(running: Running) -> None:
    running.api.put("nodes", node("n1"))
    running.api.put(
        "resourcequotas",
        {"metadata": {"namespace": "ns", "name": "q"}, "spec": {"hard": {"limits.nvidia.com/gpumem": "5000"}}},
    )
    async with running.started():
        await running.place(pod("a", memory=3000), "n1")
        answer = await running.filter(pod("b", memory=3000), "n1")
        assert answer["FailedNodes"] == {"n1": "2/2 ResourceQuotaNotFit"}
        running.api.remove("resourcequotas", "q", "ns")
        await running.until(lambda: len(running.service.picture.quotas._by_namespace) == 0)
        assert (await running.filter(pod("b", memory=3000), "n1"))["NodeNames"] == ["n1"]
