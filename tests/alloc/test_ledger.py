"""The ledger over time: random histories, what a pod holds in each phase, and pods and nodes in any order.

`check()` recounts everything and runs after every random step. Placement itself is compared in `test_engine.py`.
"""

from dataclasses import replace
from random import Random

import pytest

from hami.alloc.ledger import Held, Ledger, hold_of, holdings
from hami.alloc.place import place
from hami.model.claim import ContainerNeed, Mib, Need, Placed, PodRecord, PodRequest, Role, Share
from hami.model.device import Device, NodeInventory, NodeRecord
from hami.model.names import DeviceUuid, NodeName, PodKey, PodUid
from tests.alloc import worlds
from tests.alloc.worlds import NVIDIA, REGISTRY

A, B = DeviceUuid("GPU-a"), DeviceUuid("GPU-b")


def card(uuid: DeviceUuid, index: int = 0, memory: int = 16000) -> Device:
    return Device(uuid=uuid, index=index, slots=10, memory_mib=memory, cores=100, model="NVIDIA A10")


def node(name: str, *devices: Device, cordoned: frozenset[DeviceUuid] = frozenset()) -> NodeRecord:
    inventory = NodeInventory(vendor=NVIDIA, devices=devices)
    return NodeRecord(name=NodeName(name), inventories=(inventory,) if devices else (), cordoned=cordoned)


def share(memory: int, cores: int = 0, uuid: DeviceUuid = A) -> Share:
    return Share(uuid=uuid, kind=NVIDIA, memory_mib=memory, cores=cores)


def pod(uid: str, *containers: tuple[Role, tuple[Share, ...]], at: str = "n", inits_done: bool = False) -> PodRecord:
    return PodRecord(
        uid=PodUid(uid),
        key=PodKey("ns", uid),
        node=NodeName(at),
        roles=tuple(role for role, _ in containers),
        segments={NVIDIA: tuple(shares for _, shares in containers)},
        inits_done=inits_done,
    )


INIT, SIDE, APP = Role.INIT, Role.SIDECAR, Role.APP


@pytest.mark.parametrize(
    ("containers", "before", "after"),
    [
        ([(APP, 3000)], (1, 3000), (1, 3000)),
        ([(APP, 2000), (APP, 2000)], (2, 4000), (2, 4000)),
        ([(INIT, 4000), (APP, 2000), (APP, 2000)], (2, 4000), (2, 4000)),
        ([(INIT, 6000), (APP, 2000), (APP, 2000)], (2, 6000), (2, 4000)),
        ([(INIT, 6000), (INIT, 7000), (APP, 2000)], (1, 7000), (1, 2000)),
        ([(SIDE, 8000), (APP, 8000)], (2, 16000), (2, 16000)),
        # A plain init container runs beside the sidecars before it only.
        ([(INIT, 7000), (SIDE, 1000), (APP, 2000)], (2, 7000), (2, 3000)),
        ([(SIDE, 1000), (INIT, 7000), (APP, 2000)], (2, 8000), (2, 3000)),
        ([(SIDE, 1000), (INIT, 500), (SIDE, 1000), (APP, 2000)], (3, 4000), (3, 4000)),
    ],
    ids=str,
)
def test_phases(containers: list[tuple[Role, int]], before: tuple[int, int], after: tuple[int, int]) -> None:
    told = pod("p", *((role, (share(memory),)) for role, memory in containers))
    assert holdings(told) == {(NVIDIA, A): Held(before[0], before[1], 0)}
    assert holdings(replace(told, inits_done=True)) == {(NVIDIA, A): Held(after[0], after[1], 0)}


def test_an_init_container_alone_holds_nothing_when_it_is_done() -> None:
    told = pod("p", (INIT, (share(6000),)), (APP, ()), inits_done=True)
    assert holdings(told) == {}


def test_each_amount_takes_its_own_larger_phase() -> None:
    told = pod("p", (INIT, (share(1000, 90),)), (APP, (share(5000, 20),)), (APP, (share(1000, 20, B),)))
    assert holdings(told) == {(NVIDIA, A): Held(1, 5000, 90), (NVIDIA, B): Held(1, 1000, 20)}


def test_a_pod_before_its_node() -> None:
    ledger = Ledger(REGISTRY)
    ledger.put_pod(pod("p", (APP, (share(3000, 30),))))
    assert ledger.usage(NodeName("n")) == ()
    assert ledger.strays(NodeName("n")) == {(NVIDIA, A): Held(1, 3000, 30)}
    ledger.put_node(node("n", card(A), card(B, 1)))
    first, second = ledger.usage(NodeName("n"))
    assert (first.used_slots, first.used_memory_mib, first.used_cores) == (1, 3000, 30)
    assert (second.used_slots, second.used_memory_mib, second.used_cores) == (0, 0, 0)
    assert ledger.strays(NodeName("n")) == {}
    ledger.check()


def test_a_replaced_card_keeps_its_holders_in_sight() -> None:
    ledger = Ledger(REGISTRY)
    ledger.put_node(node("n", card(A)))
    ledger.put_pod(pod("p", (APP, (share(3000),))))
    ledger.put_node(node("n", card(B)))
    assert ledger.usage(NodeName("n"))[0].used_memory_mib == 0
    assert ledger.strays(NodeName("n")) == {(NVIDIA, A): Held(1, 3000, 0)}
    assert ledger.namespace_usage("ns", NVIDIA) == (3000, 0)
    ledger.put_node(node("n", card(A), card(B, 1)))
    assert ledger.usage(NodeName("n"))[0].used_memory_mib == 3000
    ledger.check()


def test_telling_the_same_thing_twice_changes_nothing() -> None:
    ledger = Ledger(REGISTRY)
    record, told = node("n", card(A)), pod("p", (APP, (share(3000),)))
    assert (ledger.put_node(record), ledger.put_pod(told)) == (True, True)
    assert (ledger.put_node(record), ledger.put_pod(told)) == (False, False)
    assert ledger.usage(NodeName("n"))[0].used_slots == 1
    assert (ledger.drop_pod(told.uid), ledger.drop_pod(told.uid)) == (True, False)
    assert (ledger.drop_node(record.name), ledger.drop_node(record.name)) == (True, False)
    ledger.check()


def test_a_moved_pod_holds_only_where_it_is() -> None:
    ledger = Ledger(REGISTRY)
    ledger.put_node(node("n", card(A)))
    ledger.put_node(node("m", card(A)))
    ledger.put_pod(pod("p", (APP, (share(3000),))))
    moved = pod("p", (APP, (share(2000),)), at="m")
    ledger.put_pod(moved)
    assert [ledger.usage(NodeName(name))[0].used_memory_mib for name in ("n", "m")] == [0, 2000]
    assert (ledger.pods_on(NodeName("n")), ledger.pods_on(NodeName("m"))) == ((), (moved,))
    assert ledger.pod(PodUid("p")) == moved
    ledger.check()


def test_giant_and_negative_amounts_are_bounded() -> None:
    ledger = Ledger(REGISTRY)
    ledger.put_node(node("n", card(A)))
    for i in range(300):
        ledger.put_pod(pod(f"p{i}", (APP, (share(2**200, 2**200),)), (APP, (share(-5, -5),))))
    usage = ledger.usage(NodeName("n"))[0]
    assert usage.used_slots == 600
    assert usage.used_memory_mib == 300 * 2**40
    ledger.check()
    for i in range(300):
        ledger.drop_pod(PodUid(f"p{i}"))
    assert ledger.usage(NodeName("n"))[0].used_memory_mib == 0
    ledger.check()


def test_without_restores_also_after_a_failure() -> None:
    ledger = Ledger(REGISTRY)
    ledger.put_node(node("n", card(A)))
    ledger.put_pod(pod("p", (APP, (share(3000),))))

    def fail() -> None:
        with ledger.without(PodUid("p")):
            assert ledger.usage(NodeName("n"))[0].used_memory_mib == 0
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert ledger.usage(NodeName("n"))[0].used_memory_mib == 3000
    ledger.check()


def test_families_that_nobody_knows_are_left_out() -> None:
    strange = NodeInventory(vendor=worlds.STRANGE, devices=(card(B),))
    ledger = Ledger(REGISTRY)
    ledger.put_node(NodeRecord(name=NodeName("n"), inventories=(strange,)))
    assert ledger.usage(NodeName("n")) == ()
    assert ledger.node(NodeName("n")) is not None
    ledger.check()


def test_check_finds_a_wrong_column() -> None:
    ledger = Ledger(REGISTRY)
    ledger.put_node(node("n", card(A)))
    ledger.put_pod(pod("p", (APP, (share(3000),))))
    for column, amount in (("memory_used", 1), ("cores_used", 1), ("slots_used", 1), ("marks", 1)):
        ledger.table.columns[column][0] += amount
        with pytest.raises(AssertionError):
            ledger.check()
        ledger.table.columns[column][0] -= amount
    ledger.table.node_columns["sum_memory_used"][0] += 1
    with pytest.raises(AssertionError, match="node sums"):
        ledger.check()


@pytest.mark.parametrize("seed", range(150))
def test_random_histories(seed: int) -> None:
    """Nodes come, go and change, pods come, move and go, decisions are held: the books are right after every step."""
    rng = Random(seed)
    ledger = Ledger(REGISTRY)
    nodes: dict[str, NodeRecord] = {}
    for step in range(120):
        name = f"n{rng.randrange(6)}"
        known = list(nodes.values()) or [node("n0", card(A))]
        match rng.randrange(9):
            case 0 | 1:
                nodes[name] = worlds.node(rng, name)
                ledger.put_node(nodes[name])
            case 2:
                nodes.pop(name, None)
                ledger.drop_node(NodeName(name))
            case 3 if name in nodes:
                every = [d.uuid for inventory in nodes[name].inventories for d in inventory.devices]
                nodes[name] = replace(nodes[name], cordoned=frozenset(u for u in every if rng.random() < 0.5))
                ledger.put_node(nodes[name])
            case 4 | 5 | 6:
                ledger.put_pod(worlds.record(rng, f"p{rng.randrange(20)}", known))
            case 7:
                ledger.drop_pod(PodUid(f"p{rng.randrange(20)}"))
            case _:
                request = worlds.request(rng, f"p{rng.randrange(20)}", known)
                verdict = place(ledger, request, None, node_policy="binpack", card_policy="spread", exclude=request.uid)
                if isinstance(verdict, Placed):
                    ledger.put_pod(hold_of(request, verdict.assignment))
        try:
            ledger.check()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, step {step}: {error}") from error
    for uid in list(ledger.pods):
        ledger.drop_pod(uid)
    ledger.check()
    left = [usage for name in nodes for usage in ledger.usage(NodeName(name))]
    assert not any(usage.used_slots or usage.used_memory_mib or usage.used_cores for usage in left)
    assert all(ledger.namespace_usage(namespace, NVIDIA) == (0, 0) for namespace in "ab")
    for name in list(nodes):
        ledger.drop_node(NodeName(name))
    ledger.check()
    assert not ledger.table.ids


def test_coming_and_going_nodes_reuse_their_rows() -> None:
    ledger = Ledger(REGISTRY)
    for i in range(500):
        ledger.put_node(node(f"n{i}", card(A), card(B, 1)))
        ledger.drop_node(NodeName(f"n{i}"))
    assert len(ledger.table.cards) == 2
    assert len(ledger.table.names) == 1


@pytest.mark.parametrize("seed", range(20))
def test_what_is_decided_never_exceeds_a_device(seed: int) -> None:
    """Decisions put into the ledger one after another never book more than a device has, in any phase."""
    rng = Random(seed)
    nodes = [worlds.node(rng, f"n{i}") for i in range(3)]
    ledger = Ledger(REGISTRY)
    for record in nodes:
        ledger.put_node(record)
    held = 0
    for number in range(60):
        request = worlds.request(rng, f"u{number}", nodes)
        verdict = place(ledger, request, None, node_policy="binpack", card_policy="binpack")
        if isinstance(verdict, Placed):
            ledger.put_pod(hold_of(request, verdict.assignment))
            held += 1
        for record in nodes:
            for usage in ledger.usage(record.name):
                device = usage.device
                assert usage.used_slots <= device.slots, f"seed {seed}, pod {number}"
                assert usage.used_memory_mib <= device.memory_mib, f"seed {seed}, pod {number}"
                assert usage.used_cores <= device.cores, f"seed {seed}, pod {number}"
    assert held


def test_a_hold_counts_what_was_decided() -> None:
    ledger = Ledger(REGISTRY)
    ledger.put_node(node("n", card(A)))
    request = PodRequest(
        uid=PodUid("u"),
        key=PodKey("ns", "u"),
        containers=(
            ContainerNeed(name="c", role=APP, needs=(Need(vendor=NVIDIA, count=1, memory=Mib(3000), cores=30),)),
        ),
    )
    verdict = place(ledger, request, ["n"], node_policy="binpack", card_policy="spread")
    assert isinstance(verdict, Placed)
    ledger.put_pod(hold_of(request, verdict.assignment))
    assert ledger.held_by(PodUid("u")) == {(NVIDIA, A): Held(1, 3000, 30)}
