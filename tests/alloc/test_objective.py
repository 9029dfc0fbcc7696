"""What is chosen for one need, against every set of cards there is: musts, policy, links, best rest, in this order.

The slow allocator of `oracle.py` goes the engine's way, NUMA node by NUMA node; here its objective is held against
every set that the musts allow, on one node with a random matrix of links.
"""

from dataclasses import replace
from functools import partial
from itertools import combinations
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
    Placed,
    PodRecord,
    PodRequest,
    Role,
    Selection,
    Share,
)
from hami.model.device import Device, Links, NodeInventory, NodeRecord
from hami.model.names import DeviceUuid, NodeName, PodKey, PodUid
from tests.alloc.oracle import Node, Trial, link_sum, pod_usage
from tests.alloc.worlds import NVIDIA, REGISTRY

SEEDS = 1000
POLICIES = ("binpack", "spread", "topology-aware", "numa,binpack", "mutex")
HERE = NodeName("here")


def node(rng: Random) -> NodeRecord:
    size, numas = rng.randint(3, 9), rng.choice((1, 2, 2, 3))
    devices = tuple(
        Device(
            uuid=DeviceUuid(f"card-{i}"),
            index=i,
            slots=4,
            memory_mib=8000,
            cores=100,
            model="NVIDIA A100",
            numa=rng.randrange(numas),
        )
        for i in range(size)
    )
    values = rng.choice(((10, 200), (10, 100, 200), (50, 100)))
    score = {pair: rng.choice(values) for pair in combinations(range(size), 2)}
    links = Links(
        scores=tuple(
            (one.uuid, tuple((other.uuid, score[min(i, j), max(i, j)]) for j, other in enumerate(devices) if i != j))
            for i, one in enumerate(devices)
        )
    )
    return NodeRecord(name=HERE, inventories=(NodeInventory(vendor=NVIDIA, devices=devices, links=links),))


def holder(rng: Random, uid: str, at: NodeRecord) -> PodRecord:
    share = Share(uuid=rng.choice(at.inventories[0].devices).uuid, kind=NVIDIA, memory_mib=3000, cores=10)
    return PodRecord(
        uid=PodUid(uid), key=PodKey("ns", uid), node=HERE, roles=(Role.APP,), segments={NVIDIA: ((share,),)}
    )


@pytest.mark.parametrize("numa_bind", [False, True])
@pytest.mark.parametrize("link_bind", [False, True])
def test_no_set_is_better(link_bind: bool, numa_bind: bool) -> None:
    found = 0
    for seed in range(SEEDS):
        rng = Random(seed)
        record = node(rng)
        pods = [holder(rng, f"p{i}", record) for i in range(rng.choice((0, 0, 2, 5, 9)))]
        policy = rng.choice(POLICIES)
        need = Need(vendor=NVIDIA, count=rng.randint(1, 4), memory=Mib(4000), cores=10)
        selection = Selection(numa_bind=numa_bind, link_bind=link_bind)
        request = PodRequest(
            uid=PodUid("u"),
            key=PodKey("ns", "u"),
            containers=(ContainerNeed(name="c", role=Role.APP, needs=(need,)),),
            selections={NVIDIA: selection},
        )
        ledger, state = Ledger(REGISTRY), Node(record)
        ledger.put_node(record)
        for pod in pods:
            ledger.put_pod(pod)
            for key, used in pod_usage(pod).items():
                total = state.of(key[0], next(d for d in record.inventories[0].devices if d.uuid == key[1]))
                total.slots += used.slots
                total.memory += used.memory
                total.cores += used.cores
        trial = Trial(request, REGISTRY, policy, {}, {}, False)
        scores = trial.scores(state)
        free = [d for d in record.inventories[0].devices if trial.passes(state, need, selection, d)]

        cost = partial(trial.cost, state, need, selection, free=free, scores=scores)
        allowed = trial.sets(state, 0, need)
        answer = place_on(ledger, request, HERE, card_policy=policy)
        label = f"seed {seed}, {policy}, {need.count} of {len(free)}"
        assert isinstance(answer, Assignment) == bool(allowed), label
        if isinstance(answer, Assignment):
            uuids = {share.uuid for share in answer.segments[NVIDIA][0]}
            chosen = tuple(device for device in free if device.uuid in uuids)
            assert chosen in allowed, label
            assert cost(chosen) == min(map(cost, allowed)), label
            found += 1
    assert found > SEEDS // 4


def several(rng: Random, uid: str) -> PodRequest:
    """Containers that compete for cards, so that some pods fit only in another order than theirs."""
    needs = [
        Need(vendor=NVIDIA, count=rng.randint(1, 3), memory=Mib(rng.choice((2000, 5000, 8000))), cores=10)
        for _ in range(rng.randint(1, 3))
    ]
    return PodRequest(
        uid=PodUid(uid),
        key=PodKey("ns", uid),
        containers=tuple(
            ContainerNeed(name=f"c{i}", role=rng.choice((Role.APP, Role.APP, Role.SIDECAR, Role.INIT)), needs=(one,))
            for i, one in enumerate(needs)
        ),
        selections={NVIDIA: Selection(numa_bind=rng.random() < 0.2, link_bind=rng.random() < 0.2)},
    )


def test_nodes_rank_by_the_links_of_what_they_would_give() -> None:
    rearranged = 0
    for seed in range(SEEDS):
        rng = Random(seed)
        ledger = Ledger(REGISTRY)
        nodes = {}
        for name in ("a", "b", "c"):
            record = replace(node(rng), name=NodeName(name))
            ledger.put_node(record)
            nodes[record.name] = record
            for i in range(rng.choice((0, 3, 9))):
                ledger.put_pod(replace(holder(rng, f"{name}-{i}", record), node=record.name))
        request = several(rng, f"u{seed}")
        verdict = place(ledger, request, None, node_policy="binpack", card_policy="topology-aware")
        if not isinstance(verdict, Placed):
            continue
        ranks = []
        for name, score in verdict.scores:
            answer = place_on(ledger, request, name, card_policy="topology-aware")
            assert isinstance(answer, Assignment)
            trial = Trial(request, REGISTRY, "topology-aware", {}, {}, False)
            state = Node(nodes[name])
            cards = {device.uuid: device for device in nodes[name].inventories[0].devices}
            scores = trial.scores(state)
            links = sum(link_sum([cards[share.uuid] for share in part], scores) for part in answer.segments[NVIDIA])
            ranks.append((-links, -score))
            for pod in ledger.pods_on(name):
                for key, used in pod_usage(pod).items():
                    total = state.of(key[0], cards[key[1]])
                    total.slots, total.memory = total.slots + used.slots, total.memory + used.memory
                    total.cores += used.cores
            rearranged += isinstance(trial.on(state), NodeRefusal)
        assert ranks == sorted(ranks), f"seed {seed}"
    assert rearranged > SEEDS // 50
