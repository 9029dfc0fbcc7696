"""Cards in MIG mode in the engine: what pods hold of them, whole pods on whole nodes, and mixed nodes.

The tables themselves are compared with trying everything in `test_mig.py`; here the engine's use of them is, with
several containers of all roles, quotas, NUMA nodes and cards that cannot be trusted.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest

from hami.alloc.defragment import hint
from hami.alloc.ledger import Ledger, hold_of
from hami.alloc.place import place, place_on
from hami.alloc.quota import Quotas
from hami.alloc.slices import MOST_GRIDS, Grids, aligned
from hami.model.claim import (
    Assignment,
    ContainerNeed,
    Memory,
    Mib,
    MigReservation,
    Need,
    NodeRefusal,
    Percent,
    Placed,
    PodRecord,
    PodRequest,
    Role,
    Selection,
    Share,
    Why,
)
from hami.model.device import MIG, Device, MigPlacement, MigProfile, NodeInventory, NodeRecord
from hami.model.names import DeviceUuid, NodeName, PodKey, PodUid, VendorWord
from hami.vendors import registry
from tests.alloc import mig_oracle as oracle
from tests.alloc.test_mig import A30, A100, DOUBLE, HAMI, PRO

NVIDIA = VendorWord("NVIDIA")
N = NodeName("n")
CASES = int(os.environ.get("HAMI_SLICE_CASES", "1000"))
SHARDS = 5


def card(
    index: int, profiles: tuple[MigProfile, ...] = HAMI, *, mode: str = MIG, numa: int = 0, slots: int = 7
) -> Device:
    return Device(
        uuid=DeviceUuid(f"GPU-{index}"),
        index=index,
        slots=slots,
        memory_mib=40960,
        cores=100,
        model="NVIDIA A100-SXM4-40GB",
        numa=numa,
        mode=mode,
        mig_profiles=profiles if mode == MIG else (),
    )


def ledger_of(*cards: Device) -> Ledger:
    ledger = Ledger(registry())
    ledger.put_node(NodeRecord(name=N, inventories=(NodeInventory(vendor=NVIDIA, devices=cards),)))
    return ledger


Wish = tuple[Role, Memory, int, int]
"""Role, memory, cores, count."""


def ask(*wishes: Wish, uid: str = "u", selection: Selection | None = None, policy: str | None = None) -> PodRequest:
    return PodRequest(
        uid=PodUid(uid),
        key=PodKey("ns", uid),
        containers=tuple(
            ContainerNeed(
                name=f"c{i}", role=role, needs=(Need(vendor=NVIDIA, count=count, memory=memory, cores=cores),)
            )
            for i, (role, memory, cores, count) in enumerate(wishes)
        ),
        selections={NVIDIA: selection or Selection()},
        card_policy=policy,
    )


def app(memory: int, count: int = 1, cores: int = 0) -> Wish:
    return Role.APP, Mib(memory), cores, count


def answer(ledger: Ledger, request: PodRequest, quota: Quotas | None = None) -> Assignment | NodeRefusal:
    found = place_on(ledger, request, N, card_policy="binpack", quota=quota)
    ledger.check()
    return found


def placed(ledger: Ledger, request: PodRequest) -> list[str]:
    """Every instance as `container:card:profile@start`."""
    found = answer(ledger, request)
    assert isinstance(found, Assignment), found
    return [f"{r.container}:{r.uuid[-1]}:{r.profile}@{r.placement.start}" for r in found.reservations]


def why(ledger: Ledger, request: PodRequest, quota: Quotas | None = None) -> dict[Why, int]:
    found = answer(ledger, request, quota)
    assert isinstance(found, NodeRefusal), found
    return dict(found.counts)


def holder(uid: str, *words: str, role: Role = Role.APP, shares: int | None = None, done: bool = False) -> PodRecord:
    """A pod with one container that holds instances `card:profile@start`, and as many shares unless told otherwise."""
    sizes = {profile.name: profile.placements[0].size for profile in DOUBLE}
    reservations = []
    for i, word in enumerate(words):
        number, _, rest = word.partition(":")
        name, _, start = rest.partition("@")
        reservations.append(
            MigReservation(
                container=0,
                device=i,
                uuid=DeviceUuid(f"GPU-{number}"),
                profile=name,
                placement=MigPlacement(start=int(start), size=sizes[name]),
            )
        )
    given = tuple(Share(uuid=r.uuid, kind="NVIDIA", memory_mib=1000, cores=0) for r in reservations)
    return PodRecord(
        uid=PodUid(uid),
        key=PodKey("ns", uid),
        node=N,
        roles=(role,),
        segments={NVIDIA: (given if shares is None else given[:1] * shares,)},
        reservations=tuple(reservations),
        inits_done=done,
    )


def test_a_pod_and_its_end() -> None:
    ledger = ledger_of(card(0))
    request = ask(app(4000), app(15000))
    found = answer(ledger, request)
    assert isinstance(found, Assignment)
    assert found.segments[NVIDIA] == (
        (Share(uuid=DeviceUuid("GPU-0"), kind="NVIDIA", memory_mib=4864, cores=15),),
        (Share(uuid=DeviceUuid("GPU-0"), kind="NVIDIA", memory_mib=20096, cores=43),),
    )
    ledger.put_pod(hold_of(request, found))
    ledger.check()
    assert ledger.usage(N)[0].taken.state != 0
    assert why(ledger, ask(app(30000), uid="v")) == {Why.NO_MEMORY: 1}
    ledger.drop_pod(PodUid("u"))
    ledger.check()
    assert ledger.usage(N)[0].taken == (0, True)
    assert placed(ledger, ask(app(30000), uid="v")) == ["0:0:7g.40gb@0"]


def test_replacing_a_pod_sees_its_own_slices_free() -> None:
    ledger = ledger_of(card(0))
    ledger.put_pod(holder("u", "0:7g.40gb@0"))
    verdict = place(ledger, ask(app(30000)), None, node_policy="binpack", card_policy="spread", exclude=PodUid("u"))
    assert isinstance(verdict, Placed)
    ledger.check()
    assert why(ledger, ask(app(1), uid="v")) == {Why.MIG_INFEASIBLE: 1}


@pytest.mark.parametrize(
    ("pod", "sound"),
    [
        pytest.param(holder("p", "0:1g.5gb@6"), [True, True, True], id="told"),
        pytest.param(holder("p", "0:1g.5gb@6", shares=2), [False, True, True], id="a share without reservation"),
        pytest.param(
            replace(holder("p", "0:1g.5gb@6"), reservations=()), [False, True, True], id="unreadable reservations"
        ),
        pytest.param(holder("p", "2:1g.5gb@6"), [True, True, False], id="a reservation of a card that is not cut"),
        pytest.param(
            replace(holder("p", "0:1g.5gb@6"), segments=holder("p", "9:1g.5gb@6").segments),
            [False, False, True],
            id="a reservation that contradicts the shares",
        ),
        pytest.param(holder("p", "9:1g.5gb@6"), [True, True, True], id="a card that is gone, told alike"),
        pytest.param(
            replace(holder("p", "0:1g.5gb@6"), reservations=(), old_instances=frozenset({DeviceUuid("GPU-0")})),
            [True, True, True],
            id="an instance of an old release",
        ),
        pytest.param(
            replace(holder("p", "0:1g.5gb@6", role=Role.INIT, done=True), reservations=()),
            [True, True, True],
            id="an init container that has ended",
        ),
    ],
)
def test_what_cannot_be_told_is_not_given_out(pod: PodRecord, sound: list[bool]) -> None:
    ledger = ledger_of(card(0), card(1), card(2, mode="hami-core"))
    for order in (True, False):
        if order:
            ledger.put_pod(pod)
        else:
            # The node may come after its pods.
            record = ledger.node(N)
            assert record is not None
            ledger.drop_node(N)
            ledger.put_node(record)
        ledger.check()
        assert [usage.taken.sound for usage in ledger.usage(N)] == sound
    for number, usable in enumerate(sound):
        only = Selection(uuid_in=frozenset({DeviceUuid(f"GPU-{number}")}))
        found = answer(ledger, ask(app(1), uid="v", selection=only))
        full = pod.old_instances == {DeviceUuid(f"GPU-{number}")}
        assert isinstance(found, Assignment) is (usable and not full)
        if isinstance(found, NodeRefusal):
            assert (Why.MIG_INFEASIBLE if full else Why.UNHEALTHY) in found.counts
    ledger.drop_pod(pod.uid)
    ledger.check()
    assert all(usage.taken == (0, True) for usage in ledger.usage(N))


def test_an_init_containers_slices_are_free_when_it_has_ended() -> None:
    ledger = ledger_of(card(0))
    ledger.put_pod(holder("p", "0:3g.20gb@4", role=Role.INIT))
    assert placed(ledger, ask(app(15000), uid="v")) == ["0:0:3g.20gb@0"]
    ledger.put_pod(holder("p", "0:3g.20gb@4", role=Role.INIT, done=True))
    assert placed(ledger, ask(app(15000), uid="v")) == ["0:0:3g.20gb@4"]


def test_roles_share_instances_only_where_they_do_not_run_together() -> None:
    ledger = ledger_of(card(0))
    init = (Role.INIT, Mib(30000), 0, 1)
    # Init and app use the same instance, one after the other; an init container may use the app's larger one.
    assert placed(ledger, ask(init, app(30000))) == ["0:0:7g.40gb@0", "1:0:7g.40gb@0"]
    assert placed(ledger, ask((Role.INIT, Mib(1000), 0, 1), app(30000))) == ["0:0:7g.40gb@0", "1:0:7g.40gb@0"]
    # With room it has its own, so that it gets what it asked for.
    assert placed(ledger, ask((Role.INIT, Mib(1000), 0, 1), app(9000))) == ["0:0:1g.5gb@6", "1:0:2g.10gb@4"]
    # A sidecar runs beside everybody.
    assert why(ledger, ask((Role.SIDECAR, Mib(1000), 0, 1), app(30000))) == {Why.MIG_INFEASIBLE: 1}
    assert why(ledger, ask((Role.SIDECAR, Mib(1000), 0, 1), init)) == {Why.MIG_INFEASIBLE: 1}
    # Init containers one after another share, and wishes that mean the same profile are the same wish.
    several = [(Role.INIT, Mib(amount), 0, 1) for amount in (15000, 15001, 15002)]
    assert placed(ledger, ask(*several, app(16000))) == [f"{i}:0:3g.20gb@4" for i in range(4)]


def test_mutex_and_numa_bind_go_container_by_container() -> None:
    ledger = ledger_of(card(0), card(1, numa=1))
    assert placed(ledger, ask(app(4000), app(4000), policy="mutex")) == ["0:1:1g.5gb@6", "1:0:1g.5gb@6"]
    bound = Selection(numa_bind=True)
    assert why(ledger, ask(app(15000, 3), selection=bound)) == {
        Why.NUMA_NOT_FIT: 2, Why.TOO_FEW_PICKED: 2, Why.MIG_INFEASIBLE: 2,
    }  # fmt: skip
    ledger.put_pod(holder("p", "0:1g.5gb@6"))
    # The broken card is the cheaper NUMA node.
    assert placed(ledger, ask(app(4000, 2), selection=bound)) == ["0:0:1g.5gb@5", "0:0:1g.5gb@4"]


def test_joined_instances_are_not_to_be_had() -> None:
    ledger = ledger_of(card(0), card(1))
    must = Selection(link_bind=True)
    assert why(ledger, ask(app(4000, 2), selection=must)) == {Why.MIG_INFEASIBLE: 2}
    assert placed(ledger, ask(app(4000), selection=must)) == ["0:1:1g.5gb@6"]


def test_a_node_with_both_kinds_of_cards() -> None:
    ledger = ledger_of(card(0, mode="hami-core"), card(1))
    found = answer(ledger, ask(app(4000, 3)))
    assert isinstance(found, Assignment)
    assert len(found.segments[NVIDIA][0]) == 3
    assert {share.uuid for share in found.segments[NVIDIA][0]} <= {"GPU-0", "GPU-1"}
    assert len(found.reservations) == sum(share.uuid == "GPU-1" for share in found.segments[NVIDIA][0])
    for mode, cards in (("mig", {"GPU-1"}), ("hami-core", {"GPU-0"})):
        one = answer(ledger, ask(app(4000), selection=Selection(mode=mode)))
        assert isinstance(one, Assignment)
        assert {share.uuid for share in one.segments[NVIDIA][0]} == cards


def test_quota_counts_what_the_profile_has() -> None:
    ledger = ledger_of(card(0))
    for limit, fits in ((4864, True), (4863, False)):
        quota = Quotas(registry())
        hard = {"limits.nvidia.com/gpumem": str(limit)}
        quota.put({"metadata": {"namespace": "ns", "name": "q"}, "spec": {"hard": hard}})
        found = answer(ledger, ask(app(1)), quota)
        assert isinstance(found, Assignment) is fits
        if isinstance(found, NodeRefusal):
            assert found.counts == {Why.QUOTA: 1}
    # Two containers that are one decision are one booking as well.
    quota = Quotas(registry())
    quota.put({"metadata": {"namespace": "ns", "name": "q"}, "spec": {"hard": {"limits.nvidia.com/gpumem": "9727"}}})
    assert why(ledger, ask(app(1), app(1)), quota) == {Why.QUOTA: 1}


def test_many_wishes_and_giant_counts() -> None:
    ledger = ledger_of(card(0), card(1))
    # Nine amounts, but only two profiles are meant.
    nine = [app(4000 * (i % 2) + 500 * i + 1) for i in range(9)]
    assert (
        sorted(word.split(":")[2].split("@")[0] for word in placed(ledger, ask(*nine)))
        == ["1g.5gb"] * 6 + ["2g.10gb"] * 3
    )
    assert why(ledger, ask(app(1, 600))) == {Why.MIG_INFEASIBLE: 2}
    assert why(ledger, ask(app(1, 15))) == {Why.MIG_INFEASIBLE: 2, Why.TOO_FEW_PICKED: 14}


def test_a_node_without_slots_takes_no_more_instances() -> None:
    ledger = ledger_of(card(0, slots=2))
    assert len(placed(ledger, ask(app(1), app(1)))) == 2
    assert why(ledger, ask(app(1), app(1), app(1))) == {Why.SLOTS_EXHAUSTED: 1}
    assert why(ledger, ask(app(1, 3))) == {Why.MIG_INFEASIBLE: 1, Why.TOO_FEW_PICKED: 2}


@pytest.mark.parametrize(
    ("movable", "request_", "want"),
    [
        pytest.param(
            "", ask(app(15000)), "3g.20gb would fit GPU-0 of n without ns/c (may not be moved)", id="one in a half"
        ),
        pytest.param(
            "ab", ask(app(15000)), "3g.20gb would fit GPU-0 of n without ns/a, ns/b (may be moved)", id="allowed first"
        ),
        pytest.param(
            "", ask(app(30000)), "7g.40gb would fit GPU-0 of n without ns/a, ns/b, ns/c (may not be moved)", id="all"
        ),
        pytest.param("", ask(app(9000)), None, id="there is room"),
        pytest.param("", ask(app(50000)), None, id="no card is so large"),
        pytest.param("", ask((Role.INIT, Mib(30000), 0, 1)), None, id="nothing that stays"),
    ],
)
def test_who_stands_in_the_way(movable: str, request_: PodRequest, want: str | None) -> None:
    ledger = ledger_of(card(0), card(1, mode="hami-core"))
    for uid, word in (("a", "0:1g.5gb@0"), ("b", "0:1g.5gb@1"), ("c", "0:1g.5gb@6")):
        ledger.put_pod(replace(holder(uid, word), movable=uid in movable))
    found = hint(ledger, request_, [N])
    assert (found and found.text) == want
    ledger.check()


def test_an_old_instance_stands_in_the_way_wherever_it_lies() -> None:
    ledger = ledger_of(card(0))
    ledger.put_pod(
        replace(holder("old", "0:1g.5gb@6"), reservations=(), old_instances=frozenset({DeviceUuid("GPU-0")}))
    )
    found = hint(ledger, ask(app(1)), [N])
    assert found is not None
    assert found.pods == (PodKey("ns", "old"),)
    assert hint(ledger, ask(app(1)), []) is None


@pytest.mark.parametrize(
    ("asked", "want"),
    [
        # Slices 4 to 7 of the first card are free, 2 and 3 of the second: a 1g takes a 3g there, a 2g here.
        ([], "0:1:1g.5gb@3"),
        ([app(15000)], "0:1:1g.5gb@3"),
        ([app(9000)], "0:0:1g.5gb@6"),
        # Once everybody wants whole cards again, what is left of either is worth the same by demand: size decides.
        ([app(30000)] * 50, "0:1:1g.5gb@3"),
    ],
)
def test_what_is_asked_decides_which_profile_is_kept(asked: list[Wish], want: str) -> None:
    ledger = ledger_of(card(0), card(1))
    ledger.put_pod(holder("a", "0:3g.20gb@0"))
    ledger.put_pod(holder("b", "1:2g.10gb@0", "1:3g.20gb@4"))
    for i, wish in enumerate(asked):
        ledger.note(ask(wish, uid=f"asked-{i}"))
    assert placed(ledger, ask(app(4000))) == [want]


def test_nodes_rank_by_the_slices_that_a_pod_takes_away() -> None:
    ledger = Ledger(registry())
    for name in ("fuller", "broken", "idle"):
        cards = (replace(card(0), uuid=DeviceUuid(f"{name}-0")),)
        ledger.put_node(NodeRecord(name=NodeName(name), inventories=(NodeInventory(vendor=NVIDIA, devices=cards),)))

    def put(uid: str, node: str, word: str) -> None:
        one = holder(uid, word)
        reservations = tuple(replace(r, uuid=DeviceUuid(f"{node}-0")) for r in one.reservations)
        segments = {
            NVIDIA: (tuple(replace(s, uuid=DeviceUuid(f"{node}-0"), cores=40) for s in one.segments[NVIDIA][0]),)
        }
        ledger.put_pod(replace(one, node=NodeName(node), reservations=reservations, segments=segments))

    put("a", "fuller", "0:3g.20gb@0")
    put("b", "fuller", "0:1g.5gb@6")
    put("c", "broken", "0:1g.5gb@0")
    ledger.note(ask(app(9000), uid="noted"))

    def best(policy: str, request: PodRequest) -> str:
        found = place(ledger, request, None, node_policy=policy, card_policy="spread")
        assert isinstance(found, Placed)
        return found.assignment.node

    # A 1g fills up the half that is broken already: on the fuller node it takes the last 2g, on the idle one a half.
    assert best("binpack", ask(app(4000))) == "fuller"
    assert best("spread", ask(app(4000))) == "idle"
    assert best("fragmentation", ask(app(4000))) == "broken"
    ledger.check()


def test_profile_lists_are_shared_and_let_go() -> None:
    grids = Grids()
    same = [grids.join(card(i)) for i in range(3)]
    assert same == [0, 0, 0]
    assert grids.join(card(3, DOUBLE)) == 1
    assert grids.join(card(4, ())) == -1
    assert grids.join(card(5, mode="hami-core")) == -1
    for number in same:
        grids.leave(number)
    assert grids.native[0] is None
    assert grids.join(card(6, A30.offered())) == 0, "a free number is used again"
    assert MOST_GRIDS > 100


def reservation(container: int, uuid: str) -> MigReservation:
    return replace(holder("p", "0:1g.5gb@6").reservations[0], container=container, uuid=DeviceUuid(uuid))


@pytest.mark.parametrize(
    ("segments", "told", "want"),
    [
        (["", "a"], [1], [1]),
        (["", "a"], [0], [1]),  # HAMi 2.10 counts only containers with devices
        (["", "a", "", "b"], [0, 1], [1, 3]),
        (["a", "b"], [0, 1], [0, 1]),
        (["", "a"], [7], [7]),  # makes no sense either way
    ],
)
def test_reservations_count_containers_as_segments_do(segments: list[str], told: list[int], want: list[int]) -> None:
    shares = tuple(
        (Share(uuid=DeviceUuid(uuid), kind="NVIDIA", memory_mib=1, cores=0),) if uuid else () for uuid in segments
    )
    uuids = [uuid for uuid in segments if uuid]
    found = aligned(tuple(reservation(c, u) for c, u in zip(told, uuids, strict=True)), shares)
    assert [each.container for each in found] == want


# Whole pods against trying everything.


def oracle_cards(ledger: Ledger, cards: Sequence[Device], pods: Sequence[PodRecord]) -> list[oracle.Card]:
    found = []
    for device in cards:
        state: oracle.State = frozenset()
        for pod in pods:
            for r in pod.reservations:
                if r.uuid == device.uuid:
                    profile = next(p for p in device.mig_profiles if p.name == r.profile)
                    state |= oracle.takes(profile, r.placement)
        used = next(usage.used_slots for usage in ledger.usage(N) if usage.device.uuid == device.uuid)
        found.append(oracle.Card(device.mig_profiles, state, device.slots - used))
    return found


def random_holder(rng: Random, uid: str, cards: Sequence[Device], taken: dict[str, oracle.State]) -> PodRecord | None:
    device = rng.choice(cards)
    profile = rng.choice(device.mig_profiles)
    spot = rng.choice(profile.placements)
    slices = oracle.takes(profile, spot)
    if slices & taken.get(device.uuid, frozenset()):
        return None
    taken[device.uuid] = taken.get(device.uuid, frozenset()) | slices
    share = Share(uuid=device.uuid, kind="NVIDIA", memory_mib=profile.memory_mib, cores=profile.cores)
    return PodRecord(
        uid=PodUid(uid),
        key=PodKey("ns", uid),
        node=N,
        roles=(Role.APP,),
        segments={NVIDIA: ((share,),)},
        reservations=(MigReservation(container=0, device=0, uuid=device.uuid, profile=profile.name, placement=spot),),
    )


def check_disjoint(
    assignment: Assignment, request: PodRequest, cards: list[oracle.Card], devices: Sequence[Device]
) -> None:
    """Instances of containers that are there together do not overlap, with others' or with each other."""
    place_of = {device.uuid: i for i, device in enumerate(devices)}
    seen: list[tuple[Role, int, str, str, oracle.State]] = []
    for r in assignment.reservations:
        device = devices[place_of[r.uuid]]
        profile = next(p for p in device.mig_profiles if p.name == r.profile)
        assert r.placement in profile.placements
        slices = oracle.takes(profile, r.placement)
        assert not slices & cards[place_of[r.uuid]].state, "a slice that somebody holds"
        role = request.containers[r.container].role
        need = request.containers[r.container].needs[0]
        assert profile in oracle.sufficient(device.mig_profiles, need.memory, need.cores)
        for other_role, container, uuid, name, others in seen:
            if uuid != r.uuid or not others & slices:
                continue
            apart = Role.INIT in (role, other_role) and Role.SIDECAR not in (role, other_role)
            assert apart, "two that run together overlap"
            assert container != r.container, "two of one container overlap"
            assert (name, others) == (r.profile, slices), "overlapping instances are one and the same"
        seen.append((role, r.container, r.uuid, r.profile, slices))


@pytest.mark.parametrize("shard", range(SHARDS))
def test_pods_agree_with_trying_everything(shard: int) -> None:
    for number in range(CASES // SHARDS):
        seed = shard * 1_000_000 + number
        rng = Random(seed)
        profiles = rng.choice((HAMI, HAMI, DOUBLE, A100.offered(), A30.offered(), PRO.offered()))
        if rng.random() < 0.5:
            profiles = tuple(rng.sample(profiles, min(len(profiles), 4)))
        cards = [replace(card(i, profiles), slots=rng.choice((7, 7, 2))) for i in range(rng.choice((1, 1, 2)))]
        ledger = ledger_of(*cards)
        taken: dict[str, oracle.State] = {}
        pods = [p for i in range(rng.randint(0, 3)) if (p := random_holder(rng, f"p{i}", cards, taken)) is not None]
        for pod in pods:
            ledger.put_pod(pod)
        ledger.check()
        seen = oracle_cards(ledger, cards, pods)
        wishes: list[Wish] = []
        for _ in range(rng.choice((1, 2, 2, 3))):
            memory: Memory = Mib(rng.choice(profiles).memory_mib - rng.choice((0, 0, 300)))
            if rng.random() < 0.2:
                memory = Percent(rng.choice((12, 25, 50, 100)))
            role = rng.choice((Role.APP, Role.APP, Role.APP, Role.SIDECAR, Role.INIT))
            wishes.append((role, memory, rng.choice((0, 0, 0, 14, 40)), 1 if rng.random() < 0.8 else 2))
        request = ask(*wishes)
        found = answer(ledger, request)
        label = f"seed {seed}: {wishes}"
        everything = [(memory, cores) for _, memory, cores, count in wishes for _ in range(count)]
        if len(everything) > 4:
            continue
        apart = oracle.cheapest(seen, everything)
        if isinstance(found, Assignment):
            check_disjoint(found, request, seen, cards)
            if not any(role is Role.INIT for role, *_ in wishes):
                assert apart is not None, label
                options = []
                for r in found.reservations:
                    position = int(r.uuid.removeprefix("GPU-"))
                    profile = next(p for p in profiles if p.name == r.profile)
                    need = request.containers[r.container].needs[0]
                    options.append(((position, profile, r.placement), (need.memory, need.cores)))
                assert oracle.cost_of(seen, options)[:3] == apart[:3], label
        else:
            assert apart is None, label
