"""Families whose cards go together in groups, against the slow allocator: also where containers had to be rearranged.

Compared on every node: fits or not, the assignment, and the score with what the family says of the groups. Where
containers compete for cards any right assignment will do; its score is that of the same groups found in order.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest

from hami.alloc.ledger import Ledger
from hami.alloc.place import place, place_on
from hami.model.claim import ContainerNeed, Mib, Need, NodeRefusal, Placed, PodRecord, PodRequest, Refused, Role, Share
from hami.model.device import Device, NodeInventory, NodeRecord
from hami.model.names import DeviceUuid, NodeName, PodKey, PodUid, VendorWord
from hami.model.vendor import Chosen, Registry, Rule, Spot, Wanted
from hami.vendors.kunlun import XPU
from tests.alloc import oracle, worlds

ZONED = VendorWord("ZONED")
CASES = 100


def choose(spots: Sequence[Spot], order: Sequence[int], wanted: Wanted) -> Chosen | None:
    """All of one zone; a higher zone is better, and more so while everything on the node is idle."""
    for zone in (2, 1, 0):
        there = [i for i in order if spots[i].facts["zone"] == zone]
        if len(there) >= wanted.need.count:
            rank = (3.0 if all(spot.idle for spot in spots) else 2.0) * zone
            return Chosen(places=tuple(there[: wanted.need.count]), rank=rank)
    return None


REGISTRY = Registry((replace(worlds.vendor(ZONED, Rule.SHARED), choose=choose), XPU))


def device(name: str, index: int, memory_mib: int, zone: int = 0) -> Device:
    return Device(
        uuid=DeviceUuid(f"{name}-{index}"),
        index=index,
        slots=4,
        memory_mib=memory_mib,
        cores=100,
        model="Z",
        custom=(("zone", zone),),
    )


def node(rng: Random, name: str) -> NodeRecord:
    zoned = [
        device(f"{name}-z", i, rng.choice((1000, 2000, 4000)), rng.randint(0, 2)) for i in range(rng.randint(2, 5))
    ]
    whole = [device(f"{name}-x", i, 98304) for i in range(rng.choice((4, 8)))]
    parts = (NodeInventory(vendor=ZONED, devices=tuple(zoned)), NodeInventory(vendor=XPU.name, devices=tuple(whole)))
    return NodeRecord(name=NodeName(name), inventories=parts)


def holder(rng: Random, uid: str, nodes: Sequence[NodeRecord]) -> PodRecord:
    at = rng.choice(nodes)
    segments = {
        inventory.vendor: (
            tuple(
                Share(uuid=one.uuid, kind=inventory.vendor, memory_mib=rng.choice((500, 1000)), cores=0)
                for one in rng.sample(inventory.devices, rng.randint(0, 2))
            ),
        )
        for inventory in at.inventories
    }
    return PodRecord(uid=PodUid(uid), key=PodKey("a", uid), node=at.name, roles=(Role.APP,), segments=segments)


def request(rng: Random, uid: str) -> PodRequest:
    containers = [
        ContainerNeed(
            name=f"c{i}",
            role=role,
            needs=tuple(
                Need(vendor=ZONED, count=rng.choice((1, 1, 2)), memory=Mib(rng.choice((1000, 2000, 4000))), cores=0)
                if family == ZONED
                else Need(vendor=family, count=rng.choice((1, 2, 4)), memory=Mib(98304), cores=100)
                for family in rng.choice(((ZONED,), (ZONED,), (XPU.name,), (ZONED, XPU.name)))
            ),
        )
        for i, role in enumerate(worlds.roles(rng, 3))
    ]
    return PodRequest(uid=PodUid(uid), key=PodKey("a", uid), containers=tuple(containers))


def compare(seed: int) -> tuple[int, int]:
    """One random cluster and some requests; answers how many nodes fitted, and how many of these in another way."""
    rng = Random(seed)
    nodes = [node(rng, f"n{i}") for i in range(3)]
    pods = [holder(rng, f"p{i}", nodes) for i in range(rng.randint(0, 4))]
    ledger = Ledger(REGISTRY)
    for record in nodes:
        ledger.put_node(record)
    for pod in pods:
        ledger.put_pod(pod)
    fitting = rearranged = 0
    for number in range(4):
        asked = request(rng, f"u{number}")
        node_policy, card_policy = rng.choice(("binpack", "spread")), rng.choice(("binpack", "spread"))
        expected = oracle.decide(
            nodes, pods, asked, REGISTRY, node_policy=node_policy, card_policy=card_policy, limits={}
        )
        verdict = place(ledger, asked, None, node_policy=node_policy, card_policy=card_policy)
        scores = {} if isinstance(verdict, Refused) else dict(verdict.scores)
        label = f"seed {seed}, request {number}"
        assert set(scores) == {name for name, _ in expected.ranking}, label
        toward = -1 if node_policy == "spread" else 1
        for record in nodes:
            answer = place_on(ledger, asked, record.name, card_policy=card_policy)
            if record.name not in scores:
                assert isinstance(answer, NodeRefusal), label
                continue
            assert not isinstance(answer, NodeRefusal), label
            there = expected.nodes[record.name]
            if record.name in expected.otherwise:
                rearranged += 1
                assert expected.trial.is_right(there, answer), f"{label}: {answer}"
            else:
                assert answer == expected.assignments[record.name], label
            merit = expected.trial.merit_of(there, answer)
            want = oracle.node_score(there, REGISTRY) + toward * merit
            assert scores[record.name] == pytest.approx(want, abs=1e-2), f"{label}, {record.name}: {answer}"
            fitting += 1
        ledger.check()
    return fitting, rearranged


@pytest.mark.parametrize("shard", range(4))
def test_agrees_with_the_slow_allocator(shard: int) -> None:
    found = [compare(seed) for seed in range(shard * CASES, (shard + 1) * CASES)]
    # Both kinds of cases occur, and often enough.
    assert sum(rearranged for _, rearranged in found) > 5
    assert sum(fitting for fitting, _ in found) > 200


def test_groups_of_rearranged_containers_rank_their_node() -> None:
    """The first container wants a large card, and prefers the one that the second one needs for a pair."""
    ledger = Ledger(REGISTRY)
    for name, zone in (("middle", 1), ("high", 2)):
        cards = device(name, 0, 4000, zone), device(name, 1, 1000, zone), device(name, 2, 4000, 0)
        ledger.put_node(NodeRecord(name=NodeName(name), inventories=(NodeInventory(vendor=ZONED, devices=cards),)))
    needs = (
        Need(vendor=ZONED, count=1, memory=Mib(4000), cores=0),
        Need(vendor=ZONED, count=2, memory=Mib(1000), cores=0),
    )
    containers = tuple(ContainerNeed(name=str(i), role=Role.APP, needs=(need,)) for i, need in enumerate(needs))
    asked = PodRequest(uid=PodUid("u"), key=PodKey("a", "p"), containers=containers)
    for policy, sign in (("binpack", 1), ("spread", -1)):
        verdict = place(ledger, asked, None, node_policy=policy, card_policy="spread")
        assert isinstance(verdict, Placed)
        assert list(verdict.scores) == [("high", sign * 4.0), ("middle", sign * 2.0)]
        found = [[share.uuid for share in segment] for segment in verdict.assignment.segments[ZONED]]
        assert found == [["high-2"], ["high-1", "high-0"]]
