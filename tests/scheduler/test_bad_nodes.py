"""Nodes that report nonsense, through HTTP and a scripted API server: what else there is works on, and one event on the
node says what is wrong.

Not here: what each reader accepts (tests/model, tests/alloc), pods' own annotations (test_picture).
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from hami.model.device import Device
from hami.model.mig import identify
from hami.model.names import DeviceUuid, NodeName
from hami.model.wire import pod as keys
from hami.model.wire.node import write_inventory
from tests.fakes.objects import Json, card, node, pod
from tests.scheduler.running import Running

pytestmark = pytest.mark.anyio

A100 = "NVIDIA A100-SXM4-40GB"


def profiles(*names: str) -> list[Json]:
    """Profiles of an A100 as its node registers them."""
    model = identify(A100, 40960)
    assert model is not None
    offered = tuple(profile for profile in model.offered() if profile.name in names)
    device = Device(
        uuid=DeviceUuid("any"), index=0, slots=7, memory_mib=40960, cores=100, model=A100, mig_profiles=offered
    )
    (registered,) = json.loads(write_inventory((device,), "json"))
    return list(registered["migProfiles"])


def cut(uuid: str, index: int, offered: list[Json]) -> Json:
    return card(uuid, index, memory=40960, model=A100, mode="mig", migProfiles=offered, count=7)


def links(scores: object) -> Json:
    return node("bad", 3, annotations={keys.NVIDIA_LINKS: scores if isinstance(scores, str) else json.dumps(scores)})


def one_sided() -> Json:
    return links([{"uuid": "bad-0", "score": {"bad-1": 100, "bad-2": 100}}, {"uuid": "bad-1", "score": {"bad-0": 20}}])


def unknown_profiles() -> Json:
    odd = {**profiles("1g.5gb")[0], "name": "tiny"}
    return node("bad", [cut("bad-0", 0, [odd]), cut("bad-1", 1, [odd, *profiles("1g.5gb", "3g.20gb")])])


def overlapping() -> Json:
    (two,) = profiles("2g.10gb")
    two["placements"] = [{"start": 0, "size": 2}, {"start": 1, "size": 2}, {"start": 2, "size": 2}]
    return node("bad", [cut(f"bad-{i}", i, [*profiles("1g.5gb"), two]) for i in range(2)])


def twice() -> Json:
    return node("bad", [card("bad-0", 0), card("bad-1", 1), card("bad-1", 2)])


def one_unreadable_card() -> Json:
    return node("bad", [card("bad-0", 0), card("bad-1", 1, devmem="plenty"), card("bad-2", 2)])


def allocated(running: Running, name: str) -> str:
    return str(running.api.get("pods", name, "ns")["metadata"]["annotations"][keys.NVIDIA_DONE])


# (what is wrong, part of the event, how much memory a pod asks, how many such pods the node still takes)
CASES: list[tuple[Callable[[], Json], str, int, int]] = [
    (lambda: links("[[["), f"[{keys.NVIDIA_LINKS}]", 16384, 3),
    (lambda: links([{"uuid": "bad-0", "score": 7}]), f"[{keys.NVIDIA_LINKS}][0].score", 16384, 3),
    (one_sided, f"[{keys.NVIDIA_LINKS}].score: expected the same score from both ends", 16384, 3),
    (unknown_profiles, "[bad-0].migProfiles[0].name: expected a MIG profile name", 15000, 2),
    (overlapping, "[bad-0].migProfiles[1].placements: expected placements apart from each other", 9000, 4),
    (twice, f"[{keys.NVIDIA_NODE}]: expected every UUID once, got 'bad-1'", 16384, 2),
    (one_unreadable_card, f"[{keys.NVIDIA_NODE}][1].devmem: expected", 16384, 2),
]


@pytest.mark.parametrize(("broken", "told", "memory", "room"), CASES, ids=[case[1] for case in CASES])
async def test_the_rest_works_on_and_one_event_names_it(
    running: Running, broken: Callable[[], Json], told: str, memory: int, room: int
) -> None:
    made = broken()
    running.api.put("nodes", made)
    running.api.put("nodes", node("good"))
    async with running.started():
        for i in range(room):
            assert await running.place(pod(f"p{i}", memory=memory), "bad") == "bad"
        refused = await running.filter(pod("over", memory=memory), "bad", "good")
        assert refused["NodeNames"] == (["good"] if memory <= 16384 else None)
        refused = await running.filter(pod("over", memory=memory), "bad")
        assert refused["NodeNames"] is None
        assert "bad" in refused["FailedNodes"]
        # The node says other things now, and the same nonsense still.
        for beat in range(3):
            running.api.put("nodes", {**made, "metadata": {**made["metadata"], "labels": {"beat": str(beat)}}})
        running.api.put("nodes", node("later"))
        await running.until(lambda: running.service.picture.ledger.node(NodeName("later")) is not None)
        (event,) = await running.events("InvalidAnnotation")
        assert event["involvedObject"]["kind"] == "Node"
        assert event["involvedObject"]["name"] == "bad"
        assert event["type"] == "Warning"
        assert event.get("count", 1) == 1
        assert told in event["message"]
        running.service.picture.ledger.check()


async def test_two_instances_never_share_slices_of_overlapping_placements(running: Running) -> None:
    running.api.put("nodes", overlapping())
    async with running.started():
        for i in range(4):
            await running.place(pod(f"p{i}", memory=9000), "bad")
        found = [json.loads(p["metadata"]["annotations"][keys.NVIDIA_MIG]) for p in running.api.all("pods")]
        held: list[tuple[Any, int]] = [
            (part["gpuUUID"], part["placement"]["start"] + i)
            for (part,) in found
            for i in range(part["placement"]["size"])
        ]
        assert len(held) == len(set(held)) == 8


async def test_cards_that_come_and_go(running: Running) -> None:
    whole = node("bad", 3)
    running.api.put("nodes", whole)
    running.api.put("nodes", node("good"))
    async with running.started():
        picture = running.service.picture
        for i in range(3):
            await running.place(pod(f"p{i}", memory=10000), "bad")
        await running.until(lambda: len(picture.ledger.pods) == 3)
        lost = next(f"p{i}" for i in range(3) if "bad-1" in allocated(running, f"p{i}"))
        for _ in range(2):
            running.api.put("nodes", node("bad", [card("bad-0", 0), card("bad-2", 2)]))
            await running.until(lambda: len(picture.ledger.usage(NodeName("bad"))) == 2)
            # What the others have left is still given out, and nothing else.
            assert (await running.filter(pod("small", memory=6384), "bad"))["NodeNames"] == ["bad"]
            answer = await running.filter(pod("small", memory=6385), "bad", "good")
            assert answer["NodeNames"] == ["good"]
            picture.ledger.check()
            running.api.put("nodes", whole)
            await running.until(lambda: len(picture.ledger.usage(NodeName("bad"))) == 3)
        answer = await running.filter(pod("small", memory=6385), "bad")
        # The pod of the card that was away holds it again.
        assert answer["FailedNodes"] == {"bad": "3/3 CardInsufficientMemory"}
        assert [held for held in picture.ledger.usage(NodeName("bad")) if held.used_memory_mib != 10000] == []
        (event,) = await running.events("InvalidAnnotation")
        assert event["involvedObject"]["name"] == "bad"
        assert "expected the card bad-1, which pods hold" in event["message"]
        running.api.remove("pods", lost, "ns")
        await running.until(lambda: len(picture.ledger.pods) == 2)
        assert (await running.filter(pod("whole", memory=16384), "bad"))["NodeNames"] == ["bad"]
