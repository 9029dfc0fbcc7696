"""Whether a node has room is told without choosing its cards; here it must be what choosing them finds.

Nodes are larger and stranger than in test_engine, which compares with a slow allocator: many NUMA nodes, more cards
than a mask has bits, cards of several kinds, cards in MIG mode beside plain ones.
"""

from dataclasses import replace
from random import Random

import pytest

from hami.alloc.ledger import Ledger
from hami.alloc.place import place, place_on
from hami.model.claim import (
    Assignment,
    ContainerNeed,
    Mib,
    Need,
    NodeRefusal,
    Percent,
    Placed,
    PodRecord,
    PodRequest,
    Role,
    Selection,
    Share,
)
from hami.model.device import MIG, Device, Links, NodeInventory, NodeRecord
from hami.model.mig import identify
from hami.model.names import DeviceUuid, NodeName, PodKey, PodUid
from hami.vendors import registry
from hami.vendors.nvidia import NVIDIA

A100 = identify("NVIDIA A100-SXM4-40GB", 40960)
assert A100 is not None
PROFILES = A100.offered()


def node(rng: Random, name: str) -> NodeRecord:
    size = rng.choice((1, 4, 8, 8, 16, 17, 33, 64, 65, 70))
    kinds = rng.choice((["plain"], ["plain"], ["mig"], ["plain", "mig"], ["plain", "other"]))
    numas = rng.choice((1, 2, 2, 4, 20))
    devices = []
    for i in range(size):
        kind = rng.choice(kinds)
        devices.append(
            Device(
                uuid=DeviceUuid(f"{name}-{i}"),
                index=i,
                slots=rng.choice((1, 2, 7)),
                memory_mib=rng.choice((40960, 40960, 2**31 - 1)),
                cores=rng.choice((100, 100, 100, 50, 150, 2000, 0)),
                model="NVIDIA A100-SXM4-40GB" if kind != "other" else "NVIDIA A10",
                numa=rng.randrange(numas) - 1,
                mode=MIG if kind == "mig" else "hami-core",
                healthy=rng.random() < 0.95,
                mig_profiles=PROFILES[: rng.choice((0, 4, 7))] if kind == "mig" else (),
            )
        )
    links = None
    if size <= 33 and rng.random() < 0.6:
        score = {(i, j): rng.choice((10, 100, 200)) for i in range(size) for j in range(i)}
        links = Links(
            scores=tuple(
                (a.uuid, tuple((b.uuid, score[max(i, j), min(i, j)]) for j, b in enumerate(devices) if i != j))
                for i, a in enumerate(devices)
            )
        )
    return NodeRecord(
        name=NodeName(name), inventories=(NodeInventory(vendor=NVIDIA.name, devices=tuple(devices), links=links),)
    )


def holder(rng: Random, uid: str, at: NodeRecord) -> PodRecord:
    device = rng.choice(at.inventories[0].devices)
    share = Share(
        uuid=device.uuid,
        kind=NVIDIA.name,
        memory_mib=rng.choice((0, 4000, 40960, 50000)),
        cores=rng.choice((0, 30, 100, 200)),
    )
    return PodRecord(
        uid=PodUid(uid),
        key=PodKey("ns", uid),
        node=at.name,
        roles=(Role.APP,),
        segments={NVIDIA.name: ((share,),)},
    )


def request(rng: Random, uid: str, nodes: list[NodeRecord]) -> PodRequest:
    need = Need(
        vendor=NVIDIA.name,
        count=rng.choice((1, 1, 2, 4, 8)),
        memory=rng.choice((Mib(0), Mib(4000), Mib(9000), Mib(40960), Mib(2**31), Percent(100), Percent(30))),
        cores=rng.choice((0, 0, 10, 99, 100)),
    )
    uuids = frozenset(d.uuid for n in nodes for d in n.inventories[0].devices if rng.random() < 0.5)
    selection = Selection(
        numa_bind=rng.random() < 0.3,
        link_bind=rng.random() < 0.2,
        uuid_in=uuids if rng.random() < 0.15 else frozenset(),
        uuid_out=uuids if rng.random() < 0.15 else frozenset(),
        type_in=("A100",) if rng.random() < 0.2 else (),
        mode=rng.choice((None, None, None, "mig", "hami-core")),
    )
    containers = [ContainerNeed(name="c0", role=Role.APP, needs=(need,))]
    if rng.random() < 0.3:
        second = replace(need, memory=rng.choice((need.memory, Mib(9000))))
        containers.append(ContainerNeed(name="c1", role=rng.choice((Role.APP, Role.INIT)), needs=(second,)))
    return PodRequest(
        uid=PodUid(uid), key=PodKey("ns", uid), containers=tuple(containers), selections={NVIDIA.name: selection}
    )


@pytest.mark.parametrize("seed", range(60))
def test_what_is_seen_at_a_glance_is_what_choosing_finds(seed: int) -> None:
    rng = Random(seed)
    ledger = Ledger(registry())
    nodes = [node(rng, f"n{i}") for i in range(3)]
    # So many that one named node is looked at alone, and all of them by passing over their cards at once.
    others = [node(rng, f"other{i}") for i in range(10)]
    for one in nodes:
        ledger.put_node(one)
        for number in range(rng.randint(0, 2 * len(one.inventories[0].devices))):
            ledger.put_pod(holder(rng, f"{one.name}-{number}", one))
    for one in others:
        ledger.put_node(one)
    seen = set()
    for number in range(60):
        asked = request(rng, f"p{number}", nodes)
        policy = rng.choice(("spread", "binpack", "topology-aware", "mutex", "numa,binpack"))
        all_of_them = place(ledger, asked, None, node_policy="binpack", card_policy=policy)
        fitting = {name for name, _ in all_of_them.scores} if isinstance(all_of_them, Placed) else set()
        for one in nodes:
            surveyed = place(ledger, asked, [one.name], node_policy="binpack", card_policy=policy)
            chosen = place_on(ledger, asked, one.name, card_policy=policy)
            label = f"seed {seed}, request {number}, {one.name}"
            if isinstance(surveyed, Placed):
                assert surveyed.assignment == chosen, label
            else:
                assert surveyed.refusals[one.name] == chosen, label
            assert (one.name in fitting) == isinstance(chosen, Assignment), label
            if isinstance(chosen, NodeRefusal):
                assert all_of_them.refusals[one.name] == chosen, label
            seen.add(isinstance(chosen, Assignment))
        if number % 10 == 0:
            ledger.put_pod(holder(rng, f"late-{number}", rng.choice(nodes)))
            ledger.check()
    assert seen == {True, False}, f"seed {seed}: every request got the same answer"
