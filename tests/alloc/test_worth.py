"""What the rest of a node is worth, and what placements cost, against a slow filling in plain Python.

Covered: values of random nodes, costs that are remembered, groups of idle devices that are kept together, and that the
policy changes where a pod goes but never whether it fits. Not covered: how well it packs (`bench/packing.py`).
"""

from dataclasses import dataclass, replace
from random import Random

import pytest

from hami.alloc import _ask, _worth
from hami.alloc.demand import Demand, Kind, Want, kind_of
from hami.alloc.ledger import DeviceUsage, Ledger, hold_of
from hami.alloc.place import place
from hami.model.claim import ContainerNeed, Mib, Need, Percent, Placed, PodRequest, Refused, Role, Selection
from hami.model.device import MIG, Device, NodeInventory, NodeRecord
from hami.model.host import Host
from hami.model.names import DeviceUuid, NodeName, PodKey, PodUid, VendorWord
from hami.model.vendor import Rule
from tests.alloc import worlds
from tests.alloc.worlds import NVIDIA, REGISTRY

FOREVER = 2**60


@dataclass
class Card:
    """One device while a node is filled."""

    usage: DeviceUsage
    memory: int
    cores: int
    slots: int
    idle: bool


def accepts(card: Card, want: Want) -> bool:
    device, selection = card.usage.device, want.selection
    model = device.model.lower()
    return (
        card.usage.vendor == want.vendor
        and device.mode != MIG
        and (not selection.type_in or any(word.lower() in model for word in selection.type_in))
        and not any(word.lower() in model for word in selection.type_out)
        and (selection.mode is None or device.mode in selection.mode)
    )


def amounts(card: Card, want: Want) -> tuple[int, int]:
    device = card.usage.device
    cores = want.cores if want.cores < 100 else device.cores if 0 < device.cores < 100 else 100
    return want.memory.of(device.memory_mib), cores


def serves(card: Card, want: Want) -> bool:
    memory, cores = amounts(card, want)
    rules = REGISTRY[want.vendor].rules
    alone = Rule.SHARED not in rules or (Rule.FULL_CORES_IS_EXCLUSIVE in rules and want.cores >= 100)
    exhausted = cores == 0 and card.usage.device.cores != 0 and card.cores <= 0
    return (
        accepts(card, want)
        and card.slots > 0
        and (card.idle or not alone)
        and card.memory >= memory
        and card.cores >= cores
        and not exhausted
    )


def left(card: Card) -> int:
    """Per mille of memory and of cores, added up."""
    device = card.usage.device
    memory = card.memory * 1000 // device.memory_mib if device.memory_mib and card.memory > 0 else 0
    cores = card.cores * 1000 // device.cores if device.cores and card.cores > 0 else 0
    return memory + cores


def give(card: Card, want: Want) -> int:
    memory, cores = amounts(card, want)
    device = card.usage.device
    share = max(
        memory * 1000 // device.memory_mib if device.memory_mib else 0,
        cores * 1000 // device.cores if device.cores else 0,
    )
    card.memory, card.cores, card.slots, card.idle = card.memory - memory, card.cores - cores, card.slots - 1, False
    return min(share, 1000)


def filled(cards: list[Card], kind: Kind) -> int | None:
    """Milli-devices that a pod of this kind takes, by best fit; None, and nothing taken, where it does not fit."""
    before = [replace(card) for card in cards]
    got = 0
    for want in kind.wants:
        used: list[Card] = []
        for _ in range(want.count):
            fitting = [card for card in cards if not any(card is other for other in used) and serves(card, want)]
            if not fitting:
                for card, old in zip(cards, before, strict=True):
                    card.memory, card.cores, card.slots, card.idle = old.memory, old.cores, old.slots, old.idle
                return None
            used.append(min(fitting, key=left))
            got += give(used[-1], want)
    return got


def rows(ledger: Ledger, name: NodeName) -> list[tuple[int, DeviceUsage]]:
    return list(zip(ledger.table.span(name), ledger.usage(name), strict=True))


def worth(ledger: Ledger, kinds: list[Kind], name: NodeName) -> float:
    """The mean over all runs of what fills the node."""
    runs = ledger.table.engine.free_worth.sequences(ledger.table.ids[name])
    numbers = {usage.device.uuid: ledger.table.columns["kind"][row] for row, usage in rows(ledger, name)}
    total = 0
    for run in runs:
        cards = [
            Card(
                usage=usage,
                memory=usage.device.memory_mib - usage.used_memory_mib,
                cores=usage.device.cores - usage.used_cores,
                slots=usage.device.slots - usage.used_slots,
                idle=usage.used_slots == 0,
            )
            for usage in ledger.usage(name)
            if usage.device.healthy and not usage.cordoned and usage.device.mode != MIG
        ]
        # Of equally good cards the first is taken, in an order in which equal nodes look equal.
        cards.sort(
            key=lambda card: (
                numbers[card.usage.device.uuid], left(card), card.memory, card.cores, card.usage.device.memory_mib,
                card.slots, card.idle,
            )
        )  # fmt: skip
        host = ledger.host_left(name) or Host(cpu_milli=FOREVER, memory_mib=FOREVER)
        for case in run:
            kind = kinds[case]
            if not host.covers(kind.host):
                continue
            got = filled(cards, kind)
            if got is not None:
                total += got
                host = host.minus(kind.host)
    return total / len(runs)


def sized(rng: Random, request: PodRequest) -> PodRequest:
    return replace(request, host=Host(cpu_milli=rng.choice((0, 500, 4000)), memory_mib=rng.choice((0, 100, 2000))))


def alike(rng: Random, name: str) -> NodeRecord:
    """A node whose cards are of one make, as most are."""
    uuids = [DeviceUuid(f"{name}-{i}") for i in range(rng.randint(1, 8))]
    first = worlds.device(rng, uuids[0], 0)
    devices = tuple(replace(first, uuid=uuid, index=i, mode="hami-core") for i, uuid in enumerate(uuids))
    return NodeRecord(name=NodeName(name), inventories=(NodeInventory(vendor=NVIDIA, devices=devices),))


def world(rng: Random) -> tuple[Ledger, list[NodeRecord], list[PodRequest]]:
    make = rng.choice((alike, worlds.node))
    nodes = [make(rng, f"n{i}") for i in range(3)]
    nodes = [
        replace(node, host=rng.choice((None, Host(cpu_milli=rng.choice((3000, 20_000)), memory_mib=5000))))
        for node in nodes
    ]
    ledger = Ledger(REGISTRY)
    for node in nodes:
        ledger.put_node(node)
    for i in range(rng.randint(0, 6)):
        ledger.put_pod(replace(worlds.record(rng, f"p{i}", nodes), host=Host(cpu_milli=1000, memory_mib=300)))
    asked = [sized(rng, worlds.request(rng, f"u{i}", nodes)) for i in range(rng.randint(1, 30))]
    return ledger, nodes, asked


@pytest.mark.parametrize("seed", range(150))
def test_a_node_is_worth_what_fills_it(seed: int) -> None:
    rng = Random(seed)
    ledger, nodes, asked = world(rng)
    demand = Demand()
    for request in asked:
        demand.note(request)
    ledger.table.draw(demand, REGISTRY)
    kinds = [kind for kind, _ in demand.weights()]
    for node in nodes:
        if node.name in ledger.table.ids:
            found = ledger.table.engine.free_worth.state_value(ledger.table.ids[node.name])
            assert found == pytest.approx(worth(ledger, kinds, node.name), rel=1e-6), (seed, node.name)
    ledger.check()


@pytest.mark.parametrize("seed", range(60))
def test_the_policy_changes_where_a_pod_goes_but_not_whether_it_fits(seed: int) -> None:
    rng = Random(seed)
    ledger, _, asked = world(rng)
    for request in asked:
        ledger.note(request)
        plain = replace(request, node_policy=None, card_policy=None)
        found = place(ledger, plain, None, node_policy="fragmentation", card_policy="fragmentation")
        reference = place(ledger, plain, None, node_policy="binpack", card_policy="spread")
        assert isinstance(found, Placed) == isinstance(reference, Placed), seed
        assert set(found.refusals) == set(reference.refusals), seed
        if isinstance(found, Placed):
            prices = [price for _, price in found.scores]
            assert prices == sorted(prices)
            assert found.scores[0][0] == found.assignment.node
            ledger.put_pod(hold_of(plain, found.assignment))
            ledger.check()


@pytest.mark.parametrize("seed", range(40))
def test_remembered_costs_are_those_of_a_ledger_without_memory(seed: int) -> None:
    """The same nodes, pods and arrivals told to a new ledger before each decision lead to the same decisions."""
    rng = Random(seed)
    ledger, nodes, asked = world(rng)
    asked = [*asked, *(sized(rng, worlds.request(rng, f"v{i}", nodes)) for i in range(30 - len(asked)))]
    for request in asked:
        ledger.note(request)
    for number in range(8):
        wanted = replace(
            rng.choice(asked), uid=PodUid(f"w{number}"), node_policy="fragmentation", card_policy="fragmentation"
        )
        fresh = Ledger(REGISTRY)
        for node in nodes:
            fresh.put_node(node)
        for request in asked:
            fresh.note(request)
        for pod in ledger.pods.values():
            fresh.put_pod(pod)
        found = place(ledger, wanted, None, node_policy="binpack", card_policy="spread")
        again = place(fresh, wanted, None, node_policy="binpack", card_policy="spread")
        if isinstance(found, Refused):
            assert isinstance(again, Refused), seed
            continue
        assert isinstance(again, Placed), seed
        assert (found.assignment, list(found.scores)) == (again.assignment, list(again.scores)), seed
        ledger.put_pod(hold_of(wanted, found.assignment))


def cards(name: str, count: int) -> NodeRecord:
    """A node of whole cards of 1,000 MiB."""
    devices = tuple(
        Device(uuid=DeviceUuid(f"{name}-{i}"), index=i, slots=10, memory_mib=1000, cores=100, model="A")
        for i in range(count)
    )
    return NodeRecord(name=NodeName(name), inventories=(NodeInventory(vendor=NVIDIA, devices=devices),))


def asking(uid: str, memory: Mib | Percent, *, count: int = 1, cores: int = 0, host: Host | None = None) -> PodRequest:
    need = Need(vendor=VendorWord(NVIDIA), count=count, memory=memory, cores=cores)
    return PodRequest(
        uid=PodUid(uid),
        key=PodKey("ns", uid),
        containers=(ContainerNeed(name="c", role=Role.APP, needs=(need,)),),
        selections={NVIDIA: Selection()},
        node_policy="fragmentation",
        card_policy="fragmentation",
        host=host or Host(cpu_milli=0, memory_mib=0),
    )


def put(ledger: Ledger, request: PodRequest, nodes: list[str] | None = None) -> str:
    """Place and keep; the name of the chosen node's chosen card."""
    found = place(ledger, request, nodes, node_policy="binpack", card_policy="spread")
    assert isinstance(found, Placed)
    ledger.put_pod(hold_of(request, found.assignment))
    (segment,) = found.assignment.segments[NVIDIA]
    return segment[0].uuid


def test_a_share_goes_where_its_rest_can_be_used() -> None:
    """600 MiB are free on one card and 450 on another; pods of 600 and of 400 keep coming: each has its place."""
    ledger = Ledger(REGISTRY)
    ledger.put_node(cards("n", 2))
    first = put(ledger, replace(asking("a", Mib(400)), card_policy="spread"))
    second = put(ledger, replace(asking("b", Mib(550)), card_policy="spread"))
    assert first != second
    for i in range(20):
        ledger.note(asking(f"six{i}", Mib(600)))
        ledger.note(asking(f"four{i}", Mib(400)))
    assert put(ledger, asking("new-four", Mib(400))) == second
    assert put(ledger, asking("new-six", Mib(600))) == first


def test_cards_without_cpu_beside_them_are_worth_nothing() -> None:
    """Of two equal nodes the one that has no CPU for anybody else gives up its card."""
    ledger = Ledger(REGISTRY)
    for name, cpu in (("poor", 1000), ("rich", 64_000)):
        ledger.put_node(replace(cards(name, 2), host=Host(cpu_milli=cpu, memory_mib=10_000)))
    for i in range(30):
        ledger.note(asking(f"usual{i}", Percent(100), cores=100, host=Host(cpu_milli=8000, memory_mib=0)))
    modest = asking("modest", Percent(100), cores=100, host=Host(cpu_milli=500, memory_mib=0))
    assert put(ledger, modest).startswith("poor")


def test_groups_of_idle_cards_are_kept_while_they_are_wanted() -> None:
    ledger = Ledger(REGISTRY)
    for i in range(6):
        ledger.put_node(cards(f"n{i}", 4))
    for i in range(40):
        ledger.note(asking(f"gang{i}", Percent(100), count=4, cores=100))
        ledger.note(asking(f"single{i}", Percent(100), cores=100))
    broken = {put(ledger, asking(f"s{i}", Percent(100), cores=100)).split("-")[0] for i in range(8)}
    assert len(broken) == 2
    ledger.check()


def test_pods_that_few_nodes_can_take_come_to_these_the_more_often() -> None:
    """Half of all pods insist on a model that one node of ten has: there they outnumber the others ten to one."""
    ledger = Ledger(REGISTRY)
    for i in range(10):
        node = cards(f"n{i}", 2)
        if i == 0:
            devices = tuple(replace(device, model="RARE") for device in node.inventories[0].devices)
            node = replace(node, inventories=(NodeInventory(vendor=NVIDIA, devices=devices),))
        ledger.put_node(node)
    for i in range(50):
        ledger.note(asking(f"any{i}", Mib(500)))
        wants_rare = replace(asking(f"rare{i}", Mib(600)), selections={NVIDIA: Selection(type_in=("RARE",))})
        ledger.note(wants_rare)
    drawn = ledger.table.engine.free_worth.sequences
    rare, common = ([case for run in drawn(ledger.table.ids[name]) for case in run] for name in ("n0", "n1"))
    assert sum(case == 1 for case in rare) == pytest.approx(10 / 11 * len(rare), rel=0.01)
    assert set(common) == {0}
    assert len(rare) > 2 * len(common)


def test_of_equal_nodes_the_one_with_cpu_to_spare_is_taken() -> None:
    ledger = Ledger(REGISTRY)
    for name, cpu in (("tight", 40_000), ("roomy", 80_000)):
        ledger.put_node(replace(cards(name, 2), host=Host(cpu_milli=cpu, memory_mib=10_000)))
    for i in range(30):
        ledger.note(asking(f"usual{i}", Mib(500), host=Host(cpu_milli=1000, memory_mib=0)))
    assert put(ledger, asking("new", Mib(500), host=Host(cpu_milli=1000, memory_mib=0))).startswith("roomy")


def test_without_any_demand_the_fuller_node_is_taken() -> None:
    ledger = Ledger(REGISTRY)
    for name in ("a", "b", "c"):
        ledger.put_node(cards(name, 2))
    first = put(ledger, asking("1", Mib(100)))
    assert put(ledger, asking("2", Mib(100))).split("-")[0] == first.split("-")[0]


def test_a_pod_come_and_gone_leaves_nothing_behind() -> None:
    ledger = Ledger(REGISTRY)
    ledger.put_node(cards("n", 3))
    for i in range(25):
        ledger.note(asking(f"p{i}", Mib(300 + 10 * i)))
    value = ledger.table.engine.free_worth.state_value
    before = value(0)
    put(ledger, asking("x", Mib(500)))
    assert value(0) < before
    ledger.drop_pod(PodUid("x"))
    assert value(0) == before
    ledger.drop_node(NodeName("n"))
    assert ledger.fragments() == 0
    ledger.check()


def test_values_are_not_worked_out_twice() -> None:
    ledger = Ledger(REGISTRY)
    for i in range(50):
        ledger.put_node(cards(f"n{i}", 4))
    for i in range(25):
        ledger.note(asking(f"p{i}", Mib(300 + 10 * i)))
    worth = ledger.table.engine.free_worth
    place(ledger, asking("x", Mib(300)), None, node_policy="binpack", card_policy="spread")
    assert worth.evaluated == 2  # all nodes are alike: as they are, and with the pod
    place(ledger, asking("y", Mib(300)), None, node_policy="binpack", card_policy="spread")
    assert worth.evaluated == 2


def test_new_models_are_valued_as_soon_as_something_arrives() -> None:
    ledger = Ledger(REGISTRY)
    ledger.put_node(cards("n", 2))
    for i in range(25):
        ledger.note(asking(f"p{i}", Mib(500)))
    other = cards("m", 2)
    devices = tuple(replace(device, model="B") for device in other.inventories[0].devices)
    ledger.put_node(replace(other, inventories=(NodeInventory(vendor=NVIDIA, devices=devices),)))
    assert ledger.table.knows_new_kinds
    ledger.note(asking("one more", Mib(500)))
    value = ledger.table.engine.free_worth.state_value
    assert value(ledger.table.ids["m"]) == value(ledger.table.ids["n"]) == 2000


def test_the_numbers_of_both_engines_are_in_step() -> None:
    shared = {"ROW_SOUND": "ROW_HEALTHY"} | {name: name for name in ("OF_FAMILY", "ELIGIBLE", "IS_MIG")}
    assert {name: _worth.NUMBERS[name] for name in shared} == {
        name: _ask.NUMBERS[other] for name, other in shared.items()
    }
    assert set(_worth.NUMBERS) == set(shared)


def test_a_kind_leaves_out_what_is_the_pods_own() -> None:
    one = asking("one", Mib(500))
    other = replace(
        one,
        uid=PodUid("other"),
        selections={NVIDIA: Selection(uuid_in=frozenset({DeviceUuid("n-0")}))},
        weights=(3, 1, 1),
    )
    assert kind_of(one) == kind_of(other)
    assert kind_of(one) != kind_of(asking("three", Mib(501)))
