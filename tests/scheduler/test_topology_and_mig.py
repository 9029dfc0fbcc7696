"""What a pod may ask of links, NUMA nodes and MIG, from its annotations to the devices written, over HTTP.

Not here: the choice itself (tests/alloc), what the agent makes of a reservation (tests/agent/test_mig).
"""

import json
from itertools import combinations

import pytest

from hami.model.wire import pod as keys
from tests.fakes.objects import Json, card, node, pod
from tests.scheduler.running import Running
from tests.scheduler.test_bad_nodes import allocated, cut, profiles

pytestmark = pytest.mark.anyio


def linked_node(name: str, islands: tuple[str, ...], numas: str) -> Json:
    """Cards joined by NVLink within an island, given by the cards' numbers; a NUMA node a card."""
    scores: dict[str, dict[str, int]] = {f"{name}-{i}": {} for i in range(len(numas))}
    for a, b in combinations(range(len(numas)), 2):
        joined = any(str(a) in island and str(b) in island for island in islands)
        score = 220 if joined else 20 if numas[a] == numas[b] else 10
        scores[f"{name}-{a}"][f"{name}-{b}"] = scores[f"{name}-{b}"][f"{name}-{a}"] = score
    text = json.dumps([{"uuid": uuid, "score": row} for uuid, row in scores.items()])
    cards = [card(f"{name}-{i}", i, numa=int(numa)) for i, numa in enumerate(numas)]
    return node(name, cards, annotations={keys.NVIDIA_LINKS: text})


def devices(running: Running, name: str) -> set[str]:
    return {part.split(",")[0] for part in allocated(running, name).rstrip(";").rstrip(":").split(":")}


@pytest.mark.parametrize(
    ("notes", "count", "want"),
    [
        ({}, 2, {"n-0", "n-2"}),
        ({keys.TOPOLOGY_REQUIRE: "link"}, 2, {"n-0", "n-2"}),
        ({keys.TOPOLOGY_REQUIRE: "link"}, 3, None),
        ({keys.TOPOLOGY_REQUIRE: "numa"}, 2, {"n-0", "n-1"}),
        ({keys.TOPOLOGY_REQUIRE: "numa"}, 3, None),
        ({keys.TOPOLOGY_REQUIRE: "numa,link"}, 2, None),
        ({keys.CARD_POLICY: "topology-aware"}, 1, {"n-1"}),
    ],
)
async def test_musts_and_wishes(running: Running, notes: dict[str, str], count: int, want: set[str] | None) -> None:
    # Joined are 0 and 2, which are of different NUMA nodes; 3 is busy. By default links decide among idle cards.
    running.api.put("nodes", linked_node("n", ("02",), "0011"))
    async with running.started():
        await running.place(pod("busy", annotations={"nvidia.com/use-gpuuuid": "n-3"}), "n")
        asked = pod("p", count=count, annotations=notes)
        if want is None:
            assert (await running.filter(asked, "n"))["NodeNames"] is None
        else:
            await running.place(asked, "n")
            assert devices(running, "p") == want


async def test_the_best_linked_node_wins(running: Running) -> None:
    running.api.put("nodes", linked_node("far", (), "0011"))
    running.api.put("nodes", linked_node("near", ("123",), "0011"))
    async with running.started():
        # By use alone the other node would be first: it is the fuller one.
        await running.place(pod("busy", annotations={"nvidia.com/use-gpuuuid": "far-0"}), "far")
        wish = {keys.CARD_POLICY: "topology-aware"}
        assert (await running.filter(pod("plain", count=3), "far", "near"))["NodeNames"] == ["far"]
        assert await running.place(pod("p", count=3, annotations=wish), "far", "near") == "near"
        assert devices(running, "p") == {"near-1", "near-2", "near-3"}


async def test_mig_from_memory_and_compute_to_a_reservation(running: Running) -> None:
    offered = profiles("1g.5gb", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb")
    running.api.put("nodes", node("m", [cut("m-0", 0, offered), cut("m-1", 1, offered)]))
    async with running.started():
        await running.place(pod("small", memory=9000), "m")
        await running.place(pod("strong", memory=4000, cores=50), "m")
        await running.place(pod("whole", memory=None, cores=100), "m")
        told = {
            p["metadata"]["name"]: json.loads(p["metadata"]["annotations"][keys.NVIDIA_MIG])
            for p in running.api.all("pods")
        }
        assert [part["profile"] for part in told["small"]] == ["1g.10gb"]
        assert [part["profile"] for part in told["strong"]] == ["4g.20gb"]
        assert [part["profile"] for part in told["whole"]] == ["7g.40gb"]
        assert told["small"][0]["gpuUUID"] == told["strong"][0]["gpuUUID"] != told["whole"][0]["gpuUUID"]
        assert (await running.filter(pod("soft", annotations={"nvidia.com/vgpu-mode": "hami-core"}), "m"))[
            "FailedNodes"
        ] == {"m": "2/2 CardTypeMismatch"}


async def test_a_refused_pod_is_told_whose_end_would_make_room_and_nobody_is_moved(running: Running) -> None:
    running.api.put("nodes", node("m", [cut("m-0", 0, profiles("1g.5gb", "3g.20gb", "7g.40gb"))]))
    async with running.started():
        await running.place(pod("stays", memory=15000), "m")
        await running.place(pod("may-go", memory=4000, annotations={keys.ALLOW_MOVE: "true"}), "m")
        before = [(p["metadata"]["name"], p["metadata"]["resourceVersion"]) for p in running.api.all("pods")]
        answer = await running.filter(pod("large", memory=15000), "m")
        assert answer["NodeNames"] is None
        (event,) = await running.events("FilteringFailed")
        assert "3g.20gb would fit m-0 of m without ns/may-go (may be moved)" in event["message"]
        assert [(p["metadata"]["name"], p["metadata"]["resourceVersion"]) for p in running.api.all("pods")] == before
