"""Placement by hand-made cases: what fits a card, which card and node a policy takes, what a refusal says.

Each case is a row that a reader can check by head; the mass of combinations is in `test_engine.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from hami.alloc.explain import in_words
from hami.alloc.ledger import Ledger
from hami.alloc.place import place, place_on
from hami.alloc.policy import CardPolicy, SortKey, card_policy, spreads_nodes
from hami.alloc.quota import Quotas
from hami.model.claim import (
    Assignment,
    ContainerNeed,
    Memory,
    Mib,
    Need,
    NodeRefusal,
    Percent,
    Placed,
    PodRecord,
    PodRequest,
    Refused,
    Role,
    Selection,
    Share,
    Why,
)
from hami.model.device import Device, Links, NodeInventory, NodeRecord
from hami.model.names import DeviceUuid, NodeName, PodKey, PodUid
from tests.alloc.worlds import NVIDIA, REGISTRY


@dataclass(frozen=True)
class Card:
    """A T4 with what pods hold of it."""

    memory: int = 15360
    cores: int = 100
    slots: int = 10
    used: Sequence[tuple[int, int]] = ()
    """One sharer each: MiB, cores."""
    numa: int = 0
    model: str = "NVIDIA-Tesla T4"
    mode: str = "hami-core"
    healthy: bool = True


def cluster(nodes: Mapping[str, Sequence[Card]], cordoned: str = "") -> Ledger:
    """Cards are called `<node>-<i>`."""
    ledger = Ledger(REGISTRY)
    for name, cards in nodes.items():
        devices = tuple(
            Device(
                uuid=DeviceUuid(f"{name}-{i}"),
                index=i,
                slots=card.slots,
                memory_mib=card.memory,
                cores=card.cores,
                model=card.model,
                numa=card.numa,
                mode=card.mode,
                healthy=card.healthy,
            )
            for i, card in enumerate(cards)
        )
        ledger.put_node(
            NodeRecord(
                name=NodeName(name),
                inventories=(NodeInventory(vendor=NVIDIA, devices=devices),),
                cordoned=frozenset({DeviceUuid(cordoned)}),
            )
        )
        for i, card in enumerate(cards):
            for j, (memory, cores) in enumerate(card.used):
                share = Share(uuid=DeviceUuid(f"{name}-{i}"), kind=NVIDIA, memory_mib=memory, cores=cores)
                ledger.put_pod(
                    PodRecord(
                        uid=PodUid(f"{name}-{i}-{j}"),
                        key=PodKey("ns", f"{name}-{i}-{j}"),
                        node=NodeName(name),
                        roles=(Role.APP,),
                        segments={NVIDIA: ((share,),)},
                    )
                )
    return ledger


def ask(
    memory: Memory,
    cores: int = 0,
    count: int = 1,
    *,
    more: Sequence[tuple[Role, Memory, int]] = (),
    selection: Selection | None = None,
    uid: str = "u",
    policy: str | None = None,
) -> PodRequest:
    needs = [(Role.APP, memory, cores, count), *[(role, mem, core, 1) for role, mem, core in more]]
    needs.sort(key=lambda need: need[0] is Role.APP)
    return PodRequest(
        uid=PodUid(uid),
        key=PodKey("ns", uid),
        containers=tuple(
            ContainerNeed(name=f"c{i}", role=role, needs=(Need(vendor=NVIDIA, count=n, memory=mem, cores=core),))
            for i, (role, mem, core, n) in enumerate(needs)
        ),
        selections={} if selection is None else {NVIDIA: selection},
        card_policy=policy,
    )


def on_one(cards: Sequence[Card], request: PodRequest, policy: str = "spread") -> Assignment | NodeRefusal:
    return place_on(cluster({"n": cards}), request, NodeName("n"), card_policy=policy)


def held(assignment: Assignment | NodeRefusal) -> list[list[tuple[str, int, int]]]:
    assert isinstance(assignment, Assignment), assignment
    return [[(s.uuid, s.memory_mib, s.cores) for s in segment] for segment in assignment.segments[NVIDIA]]


FULL = Card(used=((15360, 0),))


@pytest.mark.parametrize(
    ("card", "memory", "cores", "want"),
    [
        (Card(), Mib(3000), 0, (3000, 0)),
        (Card(), Percent(50), 0, (7680, 0)),
        (Card(), Percent(33), 0, (5068, 0)),
        (Card(), Percent(100), 100, (15360, 100)),
        (Card(memory=50), Percent(1), 0, (1, 0)),
        (Card(memory=2**31 - 1), Percent(100), 0, (2**31 - 1, 0)),
        (Card(used=((11360, 0),)), Mib(4000), 0, (4000, 0)),
        (Card(used=((11361, 0),)), Mib(4000), 0, Why.NO_MEMORY),
        (Card(used=((1, 0),)), Percent(100), 0, Why.NO_MEMORY),
        (Card(used=((10, 50),)), Mib(10), 50, (10, 50)),
        (Card(used=((10, 50),)), Mib(10), 51, Why.NO_CORES),
        (Card(used=((10, 0),)), Mib(10), 100, Why.EXCLUSIVE_CONFLICT),
        (Card(used=((10, 100),)), Mib(10), 0, Why.CORES_EXHAUSTED),
        (Card(used=((10, 99),)), Mib(10), 0, (10, 0)),
        (Card(slots=1, used=((10, 0),)), Mib(10), 0, Why.SLOTS_EXHAUSTED),
        (Card(slots=0), Mib(10), 0, Why.SLOTS_EXHAUSTED),
        (Card(healthy=False), Mib(10), 0, Why.UNHEALTHY),
        (Card(mode="mig"), Mib(10), 0, Why.MIG_INFEASIBLE),
        # Scaled cores: above 100 a full request shares, below 100 it takes all there is, alone.
        (Card(cores=150, used=((10, 50),)), Mib(10), 100, (10, 100)),
        (Card(cores=50), Mib(10), 100, (10, 50)),
        (Card(cores=50, used=((10, 0),)), Mib(10), 100, Why.EXCLUSIVE_CONFLICT),
        (Card(cores=50), Mib(10), 60, Why.NO_CORES),
        # A card without cores serves those who want none.
        (Card(cores=0), Mib(10), 0, (10, 0)),
        (Card(cores=0), Mib(10), 100, Why.NO_CORES),
        # More is held than the card has: nothing fits, not even nothing.
        (Card(used=((99999, 0),)), Mib(1), 0, Why.NO_MEMORY),
        (Card(used=((10, 120),)), Mib(10), 0, Why.NO_CORES),
    ],
    ids=str,
)
def test_one_card(card: Card, memory: Memory, cores: int, want: tuple[int, int] | Why) -> None:
    answer = on_one([card], ask(memory, cores))
    if isinstance(want, Why):
        assert isinstance(answer, NodeRefusal)
        assert answer.counts == {want: 1}
        assert answer.text == f"1/1 {want.word}"
    else:
        assert held(answer) == [[("n-0", *want)]]


def test_cordoned() -> None:
    ledger = cluster({"n": [Card(), Card()]}, cordoned="n-1")
    assert held(place_on(ledger, ask(Mib(1)), NodeName("n"), card_policy="spread")) == [[("n-0", 1, 0)]]
    refusal = place_on(ledger, ask(Mib(1), count=2), NodeName("n"), card_policy="spread")
    assert isinstance(refusal, NodeRefusal)
    assert refusal.text == "1/2 AllocatedCardsInsufficientRequest, 1/2 CardCordoned"


def test_reasons_carry_numbers() -> None:
    cards = [Card(used=((13312, 0),)), Card(used=((14000, 0),)), Card(healthy=False), Card(model="NVIDIA A10")]
    refusal = on_one(cards, ask(Mib(4000), selection=Selection(type_in=("t4",))))
    assert isinstance(refusal, NodeRefusal)
    assert refusal.text == "1/4 CardNotHealth, 1/4 CardTypeMismatch, 2/4 CardInsufficientMemory"
    assert (refusal.devices, refusal.largest_free_mib) == (4, 2048)
    assert in_words([refusal]) == (
        "1 node: 2 devices short of memory (largest free 2,048 MiB), 1 unhealthy, 1 of another model or mode than asked"
    )


def test_more_devices_than_there_are() -> None:
    refusal = on_one([Card(healthy=False)], ask(Mib(1), count=2))
    assert isinstance(refusal, NodeRefusal)
    assert refusal.text == "NodeInsufficientDevice"


TWO_BY_TWO = [
    Card(numa=0, used=((4000, 0),)),
    Card(numa=0, used=((8000, 0),)),
    Card(numa=1, used=((2000, 0),)),
    Card(numa=1),
]


@pytest.mark.parametrize(
    ("policy", "count", "numa_bind", "want"),
    [
        ("spread", 1, False, "3"),
        ("spread", 2, False, "32"),
        ("binpack", 1, False, "1"),
        ("binpack", 3, False, "102"),
        ("foo", 2, False, "32"),
        ("", 2, False, "32"),
        (" binpack ", 1, False, "1"),
        ("Binpack", 1, False, "3"),
        ("numa", 2, False, "32"),
        ("mutex", 1, False, "3"),
        ("mutex", 2, False, Why.EXCLUSIVE_CONFLICT),
        ("mutex,binpack", 1, False, "3"),
        ("numa,binpack", 2, False, "23"),
        ("binpack,numa", 2, False, "10"),
        ("spread", 2, True, "32"),
        ("binpack", 2, True, "10"),
        ("binpack", 3, True, Why.NUMA_NOT_FIT),
        # The NUMA node only groups; which group is best is for the written words to say.
        ("binpack,numa", 2, True, "10"),
        ("numa,binpack", 2, True, "23"),
    ],
)
def test_card_order(policy: str, count: int, numa_bind: bool, want: str | Why) -> None:
    answer = on_one(TWO_BY_TWO, ask(Mib(1), count=count, selection=Selection(numa_bind=numa_bind)), policy)
    if isinstance(want, Why):
        assert isinstance(answer, NodeRefusal)
        assert want in answer.counts
    else:
        assert [uuid for uuid, _, _ in held(answer)[0]] == [f"n-{i}" for i in want]


def test_the_pods_own_policy_wins() -> None:
    assert held(on_one(TWO_BY_TWO, ask(Mib(1), policy="binpack"), "spread")) == [[("n-1", 1, 0)]]


def test_complete_ties_take_the_last_card_first() -> None:
    assert [uuid for uuid, _, _ in held(on_one([Card()] * 3, ask(Mib(1), count=3)))[0]] == ["n-2", "n-1", "n-0"]


def test_weights() -> None:
    cards = [Card(used=((1000, 0), (1000, 0))), Card(used=((3000, 0),))]
    for weights, want in (((1, 0, 0), "n-0"), ((0, 0, 1), "n-1")):
        request = ask(Mib(1), policy="binpack")
        request = PodRequest(uid=request.uid, key=request.key, containers=request.containers, weights=weights)
        assert held(on_one(cards, request, "binpack"))[0][0][0] == want


def test_the_request_enters_the_score_on_demand() -> None:
    # By use both cards are half full; with 2000 MiB more the small one is fuller.
    cards = [Card(memory=4000, used=((2000, 0),)), Card(memory=16000, used=((8000, 0),))]
    ledger = cluster({"n": cards})
    request = ask(Mib(2000))
    for scored, want in ((False, "n-1"), (True, "n-0")):
        answer = place_on(ledger, request, NodeName("n"), card_policy="binpack", request_scored=scored)
        assert held(answer)[0][0][0] == want


@pytest.mark.parametrize(
    ("selection", "want"),
    [
        (Selection(uuid_in=frozenset({DeviceUuid("n-0")})), "n-0"),
        (Selection(uuid_in=frozenset({DeviceUuid("m-0")})), Why.UUID_MISMATCH),
        (Selection(uuid_out=frozenset({DeviceUuid("n-1")})), "n-0"),
        (Selection(type_in=("A100",)), "n-0"),
        (Selection(type_in=("a100", "nothing")), "n-0"),
        (Selection(type_out=("A10",)), Why.TYPE_MISMATCH),
        (Selection(type_in=("A10",), type_out=("A100",)), "n-1"),
        (Selection(mode="hami-core,mig"), "n-1"),
        (Selection(mode="mig"), Why.TYPE_MISMATCH),
    ],
    ids=str,
)
def test_selection(selection: Selection, want: str | Why) -> None:
    cards = [Card(model="NVIDIA A100-SXM4"), Card(model="NVIDIA A10")]
    answer = on_one(cards, ask(Mib(1), selection=selection))
    if isinstance(want, Why):
        assert isinstance(answer, NodeRefusal)
        assert answer.counts == {want: 2}
    else:
        assert held(answer)[0][0][0] == want


@dataclass(frozen=True)
class Pod:
    """Containers by role and MiB on one card of 15360, in spec order, the app first in `ask`."""

    app: int
    others: Sequence[tuple[Role, int]] = field(default_factory=tuple)
    fits: bool = True


@pytest.mark.parametrize(
    "pod",
    [
        Pod(8000, [(Role.APP, 7360)]),
        Pod(8000, [(Role.APP, 7361)], fits=False),
        Pod(8000, [(Role.INIT, 15360)]),
        Pod(8000, [(Role.INIT, 15360), (Role.INIT, 15360)]),
        Pod(8000, [(Role.INIT, 15361)], fits=False),
        Pod(8000, [(Role.SIDECAR, 7360)]),
        Pod(8000, [(Role.SIDECAR, 7361)], fits=False),
        Pod(8000, [(Role.SIDECAR, 5000), (Role.INIT, 10360)]),
        Pod(8000, [(Role.SIDECAR, 5000), (Role.INIT, 10361)], fits=False),
        Pod(8000, [(Role.INIT, 10361), (Role.SIDECAR, 5000)]),
    ],
    ids=str,
)
def test_containers_of_one_pod(pod: Pod) -> None:
    answer = on_one([Card()], ask(Mib(pod.app), more=[(role, Mib(mib), 0) for role, mib in pod.others]))
    assert isinstance(answer, Assignment) is pod.fits


def test_containers_see_what_the_ones_before_took() -> None:
    request = ask(Mib(10000), more=[(Role.APP, Mib(10000), 0)])
    assert [segment[0][0] for segment in held(on_one([Card(), Card()], request, "binpack"))] == ["n-1", "n-0"]
    assert isinstance(on_one([Card()], request), NodeRefusal)


def test_segments_are_one_a_container() -> None:
    request = PodRequest(
        uid=PodUid("u"),
        key=PodKey("ns", "u"),
        containers=(
            ContainerNeed(name="plain", role=Role.INIT),
            ContainerNeed(name="a", role=Role.APP, needs=(Need(vendor=NVIDIA, count=1, memory=Mib(1), cores=0),)),
            ContainerNeed(name="plain2", role=Role.APP),
        ),
    )
    assert held(on_one([Card()], request)) == [[], [("n-0", 1, 0)], []]


def test_node_scores_and_policies() -> None:
    ledger = cluster({"idle": [Card(), Card()], "some": [Card(used=((3000, 30),)), Card()], "full": [FULL, FULL]})
    for policy, order in (("binpack", ["some", "idle"]), ("spread", ["idle", "some"]), ("foo", ["some", "idle"])):
        verdict = place(ledger, ask(Mib(1)), None, node_policy=policy, card_policy="spread")
        assert isinstance(verdict, Placed)
        assert [name for name, _ in verdict.scores] == order
        assert verdict.assignment.node == order[0]
        assert dict(verdict.scores)[NodeName("some")] == pytest.approx(2.9765625, abs=1e-6)
        assert list(verdict.refusals) == ["full"]
        assert verdict.refusals[NodeName("full")].text == "2/2 CardInsufficientMemory"


def test_equal_nodes_share_the_load() -> None:
    ledger = cluster({f"n{i}": [Card()] for i in range(8)})
    taken = set()
    for i in range(64):
        verdict = place(ledger, ask(Mib(1), uid=f"u{i}"), None, node_policy="binpack", card_policy="spread")
        assert isinstance(verdict, Placed)
        again = place(ledger, ask(Mib(1), uid=f"u{i}"), None, node_policy="binpack", card_policy="spread")
        assert verdict == again
        taken.add(verdict.assignment.node)
    assert len(taken) == 8


def test_nobody_fits() -> None:
    ledger = cluster({"a": [FULL], "b": [Card(healthy=False), FULL]})
    verdict = place(ledger, ask(Mib(1)), ["a", "b", "c"], node_policy="binpack", card_policy="spread")
    assert isinstance(verdict, Refused)
    assert {name: refusal.text for name, refusal in verdict.refusals.items()} == {
        "a": "1/1 CardInsufficientMemory",
        "b": "1/2 CardInsufficientMemory, 1/2 CardNotHealth",
        "c": "node unregistered",
    }
    assert len(verdict.refusals) == 3
    assert "UNHEALTHY" in repr(verdict.refusals)


@pytest.mark.parametrize("seed", range(20))
def test_candidates_come_in_any_order(seed: int) -> None:
    """Filters mostly name the same nodes in the same order; here nodes come, go, repeat and swap between them."""
    rng = Random(seed)
    sizes = {f"n{i}": rng.randint(1, 3) for i in range(12)}
    ledger = cluster({name: [Card(memory=1000 * size)] for name, size in sizes.items()})
    named = [*sizes, "", "stranger"]
    for _ in range(60):
        match rng.randrange(5):
            case 0:
                rng.shuffle(named)
            case 1:
                named = [*named, rng.choice(named)]
            case 2:
                ledger.drop_node(NodeName(rng.choice(sorted(sizes))))
            case 3:
                back = rng.choice(sorted(sizes))
                again = cluster({back: [Card(memory=1000 * sizes[back])]}).node(NodeName(back))
                assert again is not None
                ledger.put_node(again)
        # Texts of their own, as a body that was just read has them.
        names = ["".join(list(name)) for name in named]
        verdict = place(ledger, ask(Mib(2000)), names, node_policy="binpack", card_policy="spread")
        fitting = {name for name, _ in verdict.scores} if isinstance(verdict, Placed) else set()
        registered = {name for name in named if ledger.node(NodeName(name)) is not None}
        assert fitting == {name for name in registered if sizes[name] >= 2}
        assert set(verdict.refusals) == {*named} - fitting
        unregistered = {name for name, why in verdict.refusals.items() if Why.UNREGISTERED in why.counts}
        assert unregistered == {*named} - registered


def test_a_pod_does_not_stand_in_its_own_way() -> None:
    ledger = cluster({"n": [FULL]})
    request = ask(Mib(15360), uid="n-0-0")
    assert isinstance(place(ledger, request, ["n"], node_policy="binpack", card_policy="spread"), Refused)
    verdict = place(ledger, request, ["n"], node_policy="binpack", card_policy="spread", exclude=PodUid("n-0-0"))
    assert isinstance(verdict, Placed)
    ledger.check()


@pytest.mark.parametrize(
    ("request_", "hard", "fits"),
    [
        (ask(Mib(3000)), {"memory": "6000"}, True),
        (ask(Mib(3001)), {"memory": "6000"}, False),
        (ask(Mib(3000), count=2), {"memory": "9000"}, True),
        (ask(Mib(3000), count=2), {"memory": "8999"}, False),
        (ask(Percent(10)), {"memory": "4535"}, False),
        (ask(Mib(1), 0), {"cores": "0"}, True),
        (ask(Mib(1), 1), {"cores": "0"}, False),
        (ask(Mib(3000), more=[(Role.APP, Mib(3000), 0)]), {"memory": "8999"}, False),
        (ask(Mib(3000), more=[(Role.INIT, Mib(3000), 0)]), {"memory": "6000"}, True),
        (ask(Mib(3000), more=[(Role.INIT, Mib(4000), 0)]), {"memory": "6000"}, False),
        (ask(Mib(1000), more=[(Role.SIDECAR, Mib(1000), 0), (Role.INIT, Mib(2000), 0)]), {"memory": "6000"}, True),
        (ask(Mib(1000), more=[(Role.SIDECAR, Mib(1000), 0), (Role.INIT, Mib(2001), 0)]), {"memory": "6000"}, False),
    ],
    ids=str,
)
def test_quota(request_: PodRequest, hard: Mapping[str, str], fits: bool) -> None:
    """The namespace holds 3000 MiB on another card; every container can only go to `n-1` or `n-2`."""
    ledger = cluster({"n": [Card(slots=1, used=((3000, 0),)), Card(), Card()]})
    quota = Quotas(REGISTRY)
    quota.put(
        {
            "metadata": {"namespace": "ns", "name": "q"},
            "spec": {"hard": {f"limits.{NVIDIA}/{what}": amount for what, amount in hard.items()}},
        }
    )
    verdict = place(ledger, request_, ["n"], node_policy="binpack", card_policy="binpack", quota=quota)
    assert isinstance(verdict, Placed) is fits
    if isinstance(verdict, Refused):
        assert Why.QUOTA in verdict.refusals[NodeName("n")].counts


@pytest.mark.parametrize(
    ("text", "numa_bind", "keys", "ranked", "rules"),
    [
        ("binpack", False, "SCORE_UP NUMA_UP", "SCORE_UP", ""),
        ("binpack", True, "NUMA_DOWN SCORE_UP", "SCORE_UP", ""),
        ("spread", True, "NUMA_UP SCORE_DOWN", "SCORE_DOWN", ""),
        ("topology-aware", False, "SCORE_DOWN NUMA_UP", "", "linked"),
        ("binpack, topology-aware,mutex", False, "SCORE_UP", "", "mutex linked"),
        ("mutex", True, "USED_DOWN NUMA_UP", "USED_DOWN", "mutex"),
        ("numa", False, "NUMA_UP", "NUMA_UP", ""),
        ("numa,numa,binpack", False, "NUMA_UP SCORE_UP", "NUMA_UP SCORE_UP", ""),
        ("binpack,numa,spread", True, "NUMA_UP SCORE_UP SCORE_DOWN", "SCORE_UP NUMA_UP SCORE_DOWN", ""),
        ("mutex,foo", False, "SCORE_DOWN NUMA_UP", "SCORE_DOWN", "mutex"),
        (",", True, "NUMA_UP SCORE_DOWN", "SCORE_DOWN", ""),
    ],
)
def test_policy_words(text: str, numa_bind: bool, keys: str, ranked: str, rules: str) -> None:
    want = CardPolicy(
        keys=tuple(SortKey[key] for key in keys.split()),
        ranked=tuple(SortKey[key] for key in ranked.split()),
        mutex="mutex" in rules,
        linked="linked" in rules,
    )
    assert card_policy(text, numa_bind=numa_bind) == want


def linked(size: int, scores: Mapping[tuple[int, int], int], full: Sequence[int] = (), numas: int = 1) -> Ledger:
    """A node of `size` cards with symmetric pair scores, its NUMA nodes interleaved."""
    names = [DeviceUuid(f"n-{i}") for i in range(size)]
    both = {**scores, **{(b, a): score for (a, b), score in scores.items()}}
    rows = tuple((names[a], tuple((names[b], both[a, b]) for b in range(size) if (a, b) in both)) for a in range(size))
    ledger = cluster({"n": [Card(used=((15360, 0),) if i in full else (), numa=i % numas) for i in range(size)]})
    record = ledger.node(NodeName("n"))
    assert record is not None
    ledger.put_node(
        NodeRecord(
            name=record.name,
            inventories=(
                NodeInventory(vendor=NVIDIA, devices=record.inventories[0].devices, links=Links(scores=rows)),
            ),
        )
    )
    ledger.check()
    return ledger


LINE = {(0, 1): 100, (1, 2): 200, (2, 3): 100, (0, 3): 10}


@pytest.mark.parametrize(
    ("count", "full", "want"),
    [
        (1, [], "3"),  # the worst connected: 110 to the others, as 0 has, and tried before it
        (2, [], "21"),
        (3, [], "321"),
        (4, [], "3210"),
        (2, [1], "32"),
        (1, [1], "0"),
    ],
    ids=str,
)
def test_the_best_connected_cards(count: int, full: list[int], want: str) -> None:
    ledger = linked(4, LINE, full)
    answer = place_on(ledger, ask(Mib(1000), count=count), NodeName("n"), card_policy="topology-aware")
    assert [uuid for uuid, _, _ in held(answer)[0]] == [f"n-{i}" for i in want]


def test_links_within_one_numa_node() -> None:
    # 1-2 is the best pair, but on two NUMA nodes; within one, 0-2 beats 1-3.
    ledger = linked(4, {**LINE, (0, 2): 40, (1, 3): 30}, numas=2)
    request = ask(Mib(1000), count=2, selection=Selection(numa_bind=True))
    answer = place_on(ledger, request, NodeName("n"), card_policy="topology-aware")
    assert [uuid for uuid, _, _ in held(answer)[0]] == ["n-2", "n-0"]


def test_of_equally_connected_numa_nodes_the_last_tried() -> None:
    every = {(a, b): 100 for a in range(6) for b in range(a)}
    request = ask(Mib(1000), count=2, selection=Selection(numa_bind=True))
    for full, want in (([], ["n-3", "n-0"]), ([0], ["n-4", "n-1"]), ([0, 1], ["n-5", "n-2"])):
        answer = place_on(linked(6, every, full, numas=3), request, NodeName("n"), card_policy="topology-aware")
        assert [uuid for uuid, _, _ in held(answer)[0]] == want


def test_too_many_cards_for_links() -> None:
    every = {(a, 0): 100 for a in range(1, 129)}
    for size, connected in ((128, True), (129, False)):
        pairs = {(a, b): score for (a, b), score in every.items() if a < size}
        answer = place_on(linked(size, pairs), ask(Mib(1), count=2), NodeName("n"), card_policy="topology-aware")
        assert ("n-0" in [uuid for uuid, _, _ in held(answer)[0]]) is connected


def test_more_cards_than_sets_are_tried_for() -> None:
    """Two islands of ten among twenty cards: the set lies within one of them."""
    islands = {(a, b): 100 if a % 2 == b % 2 else 10 for a in range(20) for b in range(a)}
    answer = place_on(linked(20, islands), ask(Mib(1), count=6), NodeName("n"), card_policy="topology-aware")
    indices = [int(uuid.removeprefix("n-")) for uuid, _, _ in held(answer)[0]]
    assert len(set(indices)) == 6
    assert len({index % 2 for index in indices}) == 1


def test_nodes_of_one_build_share_their_links() -> None:
    ledger = linked(4, LINE)
    record = ledger.node(NodeName("n"))
    assert record is not None
    tables = ledger.table.links.tables
    for i in range(5):
        ledger.put_node(NodeRecord(name=NodeName(f"m{i}"), inventories=record.inventories))
    assert len(tables) == 1
    for i in range(5):
        ledger.drop_node(NodeName(f"m{i}"))
    assert tables[0] is not None
    ledger.drop_node(NodeName("n"))
    assert tables == [None], "nobody needs them any more"
    ledger.put_node(record)
    assert len(tables) == 1


def test_links_decide_among_cards_that_rank_alike() -> None:
    # Of idle cards, `spread` takes the best connected pair; a card in use is not idle, whatever its links.
    answer = place_on(linked(4, LINE), ask(Mib(1000), count=2), NodeName("n"), card_policy="spread")
    assert [uuid for uuid, _, _ in held(answer)[0]] == ["n-2", "n-1"]
    ledger = cluster({"n": [Card(), Card(used=((1000, 0),)), Card(), Card()]})
    record = ledger.node(NodeName("n"))
    assert record is not None
    known = linked(4, LINE).node(NodeName("n"))
    assert known is not None
    inventory = replace(record.inventories[0], links=known.inventories[0].links)
    ledger.put_node(replace(record, inventories=(inventory,)))
    for policy, want in (("spread", ["n-3", "n-2"]), ("binpack", ["n-1", "n-2"]), ("topology-aware", ["n-2", "n-1"])):
        answer = place_on(ledger, ask(Mib(1000), count=2), NodeName("n"), card_policy=policy)
        assert [uuid for uuid, _, _ in held(answer)[0]] == want, policy


def test_joined_cards_or_none() -> None:
    # 0-3 scores 10 only: not joined. With 1 and 2 full no two cards are.
    must = Selection(link_bind=True)
    for count, full, want in ((3, [], ["n-3", "n-2", "n-1"]), (2, [1], ["n-3", "n-2"]), (1, [1, 2], ["n-3"])):
        answer = place_on(
            linked(4, LINE, full), ask(Mib(1), count=count, selection=must), NodeName("n"), card_policy="spread"
        )
        assert [uuid for uuid, _, _ in held(answer)[0]] == want
    refusal = place_on(
        linked(4, LINE, [1, 2]), ask(Mib(1), count=2, selection=must), NodeName("n"), card_policy="spread"
    )
    assert isinstance(refusal, NodeRefusal)
    assert refusal.counts == {Why.LINKS_NOT_FIT: 2, Why.NO_MEMORY: 2}
    unknown = place_on(
        cluster({"n": [Card()] * 2}), ask(Mib(1), count=2, selection=must), NodeName("n"), card_policy=""
    )
    assert isinstance(unknown, NodeRefusal)
    assert unknown.counts == {Why.LINKS_NOT_FIT: 2}, "cards that are not known to be joined are not joined"


def test_nodes_rank_by_links_where_links_come_first() -> None:
    ledger = linked(4, LINE)
    record = ledger.node(NodeName("n"))
    assert record is not None
    plain = replace(record.inventories[0], links=None)
    ledger.put_node(NodeRecord(name=NodeName("fuller"), inventories=(plain,)))
    share = Share(uuid=DeviceUuid("n-0"), kind=NVIDIA, memory_mib=1000, cores=0)
    ledger.put_pod(
        PodRecord(
            uid=PodUid("other"),
            key=PodKey("ns", "other"),
            node=NodeName("fuller"),
            roles=(Role.APP,),
            segments={NVIDIA: ((share,),)},
        )
    )
    for policy, want in (("topology-aware", "n"), ("spread", "fuller")):
        verdict = place(ledger, ask(Mib(1000), count=2), None, node_policy="binpack", card_policy=policy)
        assert isinstance(verdict, Placed)
        assert verdict.assignment.node == want


def test_node_policy_words() -> None:
    assert [spreads_nodes(word) for word in ("spread", " spread ", "binpack", "Spread", "")] == [
        True,
        True,
        False,
        False,
        False,
    ]
