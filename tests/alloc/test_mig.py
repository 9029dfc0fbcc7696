"""MIG placement: the hardware's own counts, the oracle that tries everything, and placements that are never chosen.

Not covered: how a decision sees cards of a node (`test_engine.py`), and reservations on the wire
(`tests/model/test_mig_wire.py`).
"""

import os
from collections.abc import Iterator
from random import Random

import pytest

from hami.alloc import mig
from hami.alloc.mig import CardProfiles, Instance, MigCard, Wanted, blockers, place_all, place_one
from hami.model.claim import Memory, Mib, Percent
from hami.model.device import MigPlacement, MigProfile
from hami.model.mig import MODELS, MigModel, identify, read_profile_name
from tests.alloc import mig_oracle as oracle

CASES = int(os.environ.get("HAMI_MIG_CASES", "1000"))
SHARDS = 10


def model(product: str, memory_mib: int) -> MigModel:
    found = identify(product, memory_mib)
    assert found is not None
    return found


A100 = model("NVIDIA A100-SXM4-40GB", 40960)
A30 = model("NVIDIA A30", 24576)
PRO = model("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887)


def offered(of: MigModel, *names: str) -> tuple[MigProfile, ...]:
    """The model's profiles of these names; all without a suffix when none is named."""
    every = of.offered()
    if not names:
        return tuple(p for p in every if not read_profile_name(p.name, "name").suffix)
    found = tuple(p for p in every if p.name in names)
    assert len(found) == len(names)
    return found


HAMI = offered(A100, "1g.5gb", "2g.10gb", "3g.20gb", "7g.40gb")
PLAIN = offered(A100, "1g.5gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb")
DOUBLE = offered(A100)


def show(instance: Instance) -> tuple[int, str, int]:
    return instance.card, instance.profile.name, instance.placement.start


def one(profiles: tuple[MigProfile, ...], memory: Memory, cores: int = 0, taken: str = "") -> tuple[str, int] | None:
    """Profile and start on a single card; `taken` as `1g.5gb@6 2g.10gb@0`."""
    compiled = CardProfiles(profiles)
    found = place_one([MigCard(profiles=compiled, state=compiled.state(instances(profiles, taken)))], memory, cores)
    return None if found is None else (found.profile.name, found.placement.start)


def instances(profiles: tuple[MigProfile, ...], text: str) -> list[tuple[str, MigPlacement]]:
    sizes = {profile.name: profile.placements[0].size for profile in profiles}
    found = []
    for word in text.split():
        name, _, start = word.partition("@")
        found.append((name, MigPlacement(start=int(start), size=sizes[name])))
    return found


def layouts(profiles: tuple[MigProfile, ...]) -> tuple[int, int, int]:
    """Maximal sets of placements, maximal multisets of profiles, and reachable states, by plain enumeration."""
    places = [(p.name, frozenset(range(at.start, at.start + at.size))) for p in profiles for at in p.placements]
    found: set[frozenset[tuple[str, frozenset[int]]]] = set()
    states: set[frozenset[int]] = set()

    def grow(chosen: frozenset[tuple[str, frozenset[int]]], taken: frozenset[int], first: int) -> None:
        states.add(taken)
        if all(slices & taken for _, slices in places):
            found.add(chosen)
        for i in range(first, len(places)):
            if not places[i][1] & taken:
                grow(chosen | {places[i]}, taken | places[i][1], i + 1)

    grow(frozenset(), frozenset(), 0)
    return len(found), len({tuple(sorted(name for name, _ in layout)) for layout in found}), len(states)


@pytest.mark.parametrize(
    ("profiles", "want"),
    [
        pytest.param(PLAIN, (19, 14, 144), id="NVIDIA's nineteen"),
        pytest.param(DOUBLE, (78, 38, 192), id="with double memory"),
        pytest.param(HAMI, (16, 11, 144), id="HAMi's list"),
    ],
)
def test_tables_have_the_known_number_of_layouts(profiles: tuple[MigProfile, ...], want: tuple[int, int, int]) -> None:
    assert layouts(profiles) == want


@pytest.mark.parametrize("known", MODELS, ids=lambda known: f"{'-'.join(sorted(known.words))}-{known.memory_mib}")
def test_every_known_model_compiles(known: MigModel) -> None:
    compiled = CardProfiles(known.offered())
    assert compiled.problems == ()
    for profile in known.profiles:
        index = compiled.listed.index(next(p for p in compiled.listed if p.name == str(profile.name)))
        assert compiled.native.room(0)[index] == profile.shape.instances, profile.name


@pytest.mark.parametrize(
    ("profiles", "memory", "cores", "taken", "want"),
    [
        pytest.param(HAMI, Mib(1), 0, "", ("1g.5gb", 6), id="smallest at the end"),
        pytest.param(HAMI, Mib(9000), 0, "1g.5gb@6", ("2g.10gb", 4), id="2g beside the 1g keeps a half"),
        pytest.param(HAMI, Mib(4000), 60, "", ("7g.40gb", 0), id="cores count: 60 percent"),
        pytest.param(PLAIN, Mib(4000), 50, "", ("4g.20gb", 0), id="cores count: 4g has 58"),
        pytest.param(DOUBLE, Mib(9000), 0, "", ("1g.10gb", 6), id="double memory reaches slice 7"),
        pytest.param(DOUBLE, Mib(9000), 20, "", ("2g.10gb", 4), id="double memory has too little compute"),
        pytest.param(PLAIN, Mib(15000), 0, "", ("3g.20gb", 4), id="3g leaves the half with 4g"),
        pytest.param(PLAIN, Mib(15000), 0, "3g.20gb@4", ("3g.20gb", 0), id="3g at 0"),
        pytest.param(HAMI, Percent(100), 100, "", ("7g.40gb", 0), id="the whole card is the largest profile"),
        pytest.param(HAMI, Percent(50), 0, "", ("3g.20gb", 4), id="half a card is half its slices"),
        pytest.param(HAMI, Percent(12), 0, "", ("1g.5gb", 6), id="an eighth"),
        pytest.param(HAMI, Percent(13), 0, "", ("2g.10gb", 0), id="more than an eighth"),
        pytest.param(offered(A30), Percent(50), 0, "", ("2g.12gb", 0), id="half an A30"),
        pytest.param(offered(PRO), Percent(25), 0, "", ("1g.24gb", 9), id="a quarter of twelve slices"),
        pytest.param(offered(PRO), Mib(24193), 0, "", ("2g.48gb", 0), id="one MiB above a quarter"),
        pytest.param(HAMI, Mib(40321), 0, "", None, id="more than the largest"),
        pytest.param(HAMI, Mib(9000), 0, "1g.5gb@1 1g.5gb@3 1g.5gb@5", None, id="nothing but single slices"),
        pytest.param(
            HAMI, Mib(9000), 0, "1g.5gb@0 2g.10gb@2 1g.5gb@6", ("2g.10gb", 4), id="the one start that is left"
        ),
        pytest.param(
            HAMI, Mib(9000), 0, "1g.5gb@1 1g.5gb@3", ("2g.10gb", 4), id="larger profile only when the smaller is gone"
        ),
        pytest.param(HAMI, Mib(9000), 0, "1g.5gb@1 1g.5gb@2 1g.5gb@4 1g.5gb@6", None, id="no larger profile either"),
    ],
)
def test_one_card(
    profiles: tuple[MigProfile, ...], memory: Memory, cores: int, taken: str, want: tuple[str, int] | None
) -> None:
    assert one(profiles, memory, cores, taken) == want


def test_media_engines_are_there_once() -> None:
    profiles = A100.offered()
    assert one(profiles, Mib(4000)) == ("1g.5gb", 6), "an ordinary wish does not take the media engines"
    compiled = CardProfiles([p for p in profiles if p.name == "1g.5gb+me"])
    state = compiled.state([("1g.5gb+me", MigPlacement(start=3, size=1))])
    assert place_one([MigCard(profiles=compiled, state=state)], Mib(4000), 0) is None


def test_a_broken_card_is_used_before_a_whole_one() -> None:
    compiled = CardProfiles(HAMI)
    broken = compiled.state([("1g.5gb", MigPlacement(start=6, size=1))])
    cards = [MigCard(profiles=compiled, state=0), MigCard(profiles=compiled, state=broken)]
    found = place_one(cards, Mib(4000), 0)
    assert found is not None
    assert show(found) == (1, "1g.5gb", 5)


def test_a_card_without_a_free_slot_takes_nothing() -> None:
    compiled = CardProfiles(HAMI)
    assert place_one([MigCard(profiles=compiled, state=0, room=0)], Mib(1), 0) is None
    wanted = [Wanted(memory=Mib(1), cores=0, count=3)]
    assert place_all([MigCard(profiles=compiled, state=0, room=2)], wanted) is None


def test_containers_are_decided_together() -> None:
    compiled = CardProfiles(HAMI)
    wanted = [Wanted(memory=Mib(amount), cores=0) for amount in (4000, 9000, 15000)]
    found = place_all([MigCard(profiles=compiled, state=0)], wanted)
    assert found is not None
    assert [[i.profile.name for i in part] for part in found] == [["1g.5gb"], ["2g.10gb"], ["3g.20gb"]]


def test_four_times_nine_gigabytes_fit_with_double_memory() -> None:
    wanted = [Wanted(memory=Mib(9000), cores=0, count=4)]
    assert place_all([MigCard(profiles=CardProfiles(HAMI), state=0)], wanted) is None
    found = place_all([MigCard(profiles=CardProfiles(DOUBLE), state=0)], wanted)
    assert found is not None
    assert sorted(show(i)[1:] for i in found[0]) == [("1g.10gb", start) for start in (0, 2, 4, 6)]


def test_many_different_wishes_are_placed_one_by_one() -> None:
    compiled = CardProfiles(HAMI)
    wanted = [Wanted(memory=Mib(4000 + i), cores=0) for i in range(9)]
    assert len(wanted) > mig.MOST_KINDS
    found = place_all([MigCard(profiles=compiled, state=0)] * 2, wanted)
    assert found is not None
    slices = [(i.card, i.placement.start) for part in found for i in part]
    assert len(set(slices)) == 9
    assert {card for card, _ in slices} == {0, 1}
    assert place_all([MigCard(profiles=compiled, state=0)], wanted) is None


def weightings(rng: Random, profiles: tuple[MigProfile, ...]) -> Iterator[dict[str, int] | None]:
    yield None
    for _ in range(5):
        yield {profile.name: rng.randint(1, 1000) for profile in profiles}


def test_no_dominated_placement_is_chosen() -> None:
    """In 29 of the 153 decisions of HAMi's list with a choice, its fixed order takes a start beside a better one."""

    def kept(state: frozenset[int]) -> list[int]:
        return [oracle.most(profile, oracle.State(state)) for profile in HAMI]

    def dominated(chosen: list[int], others: list[list[int]]) -> bool:
        return any(all(a <= b for a, b in zip(chosen, rest, strict=True)) and chosen != rest for rest in others)

    reachable = {frozenset[int]()}
    places = [frozenset(range(at.start, at.start + at.size)) for p in HAMI for at in p.placements]
    while grown := {state | place for state in reachable for place in places if not state & place} - reachable:
        reachable |= grown
    decisions = fixed_dominated = 0
    compilations = [CardProfiles(HAMI, weights) for weights in weightings(Random(1), HAMI)]
    for state in reachable:
        for profile in HAMI:
            starts = {
                at.start: kept(state | frozenset(range(at.start, at.start + at.size)))
                for at in profile.placements
                if not state & frozenset(range(at.start, at.start + at.size))
            }
            if len(starts) < 2:
                continue
            decisions += 1
            fixed = max(starts) if profile.name[:2] in ("1g", "3g") else min(starts)
            fixed_dominated += dominated(starts[fixed], list(starts.values()))
            for compiled in compilations:
                mask = sum(1 << i for i in state)
                found = compiled.wish(Mib(profile.memory_mib), profile.cores).on(mask)
                assert found is not None
                chosen = compiled.instance(0, found[1])
                assert chosen.profile == profile
                assert not dominated(starts[chosen.placement.start], list(starts.values())), (sorted(state), profile)
    assert (decisions, fixed_dominated) == (153, 29)


def card(rng: Random, profiles: tuple[MigProfile, ...]) -> oracle.Card:
    state: oracle.State = frozenset()
    for _ in range(rng.randint(0, 3)):
        profile = rng.choice(profiles)
        place = rng.choice(profile.placements)
        if not oracle.takes(profile, place) & state:
            state |= oracle.takes(profile, place)
    return oracle.Card(profiles, state, rng.choice((1000, 1000, 2, 1, 0)))


def compiled_card(seen: oracle.Card) -> MigCard:
    compiled = CardProfiles(seen.profiles)
    singles = [("", MigPlacement(start=at, size=1)) for at in seen.state if isinstance(at, int)]
    media = compiled.full & ~((1 << compiled.native.slices) - 1) if "media" in seen.state else 0
    return MigCard(profiles=compiled, state=compiled.state(singles) | media, room=seen.room)


def wish(rng: Random, profiles: tuple[MigProfile, ...]) -> tuple[Memory, int]:
    cores = rng.choice((0, 0, 0, 10, 15, 30, 50, 100))
    if rng.random() < 0.3:
        return Percent(rng.choice((5, 12, 13, 25, 50, 51, 100))), cores
    return Mib(rng.choice(profiles).memory_mib + rng.choice((-500, 0, 0, 1))), cores


@pytest.mark.parametrize("shard", range(SHARDS))
def test_agrees_with_trying_everything(shard: int) -> None:
    for number in range(CASES // SHARDS):
        seed = shard * 1_000_000 + number
        rng = Random(seed)
        every = rng.choice((A100, A100, A30, PRO)).offered()
        cards = []
        for _ in range(rng.choice((1, 2, 3))):
            profiles = tuple(rng.sample(every, rng.randint(1, min(4, len(every)))))
            cards.append(card(rng, profiles))
        wishes = [wish(rng, every) for _ in range(rng.choice((1, 1, 2, 3)))]
        if rng.random() < 0.4:
            wishes = [wishes[0]] * len(wishes)
        label = f"seed {seed}"
        expected = oracle.cheapest(cards, wishes)
        seen = [compiled_card(one) for one in cards]
        found = place_all(seen, [Wanted(memory=memory, cores=cores) for memory, cores in wishes])
        assert (found is None) == (expected is None), label
        if found is not None:
            placed = [
                ((i.card, i.profile, i.placement), asked)
                for part, asked in zip(found, wishes, strict=True)
                for i in part
            ]
            assert oracle.cost_of(cards, placed) == expected, label
        first = place_one(seen, *wishes[0])
        alone = oracle.cheapest(cards, wishes[:1])
        assert (first is None) == (alone is None), label
        if first is not None:
            option = (first.card, first.profile, first.placement)
            assert oracle.cost_of(cards, [(option, wishes[0])]) == alone, label


def test_unusable_profiles_are_left_out_and_told() -> None:
    broken = (
        MigProfile(name="odd", memory_mib=1, cores=1, slice_count=1, placements=(MigPlacement(start=0, size=1),)),
        MigProfile(name="1g.1gb", memory_mib=1, cores=1, slice_count=1, placements=()),
        MigProfile(
            name="9g.9gb", memory_mib=1, cores=1, slice_count=9, placements=(MigPlacement(start=2**31 - 1, size=1),)
        ),
        MigProfile(
            name="8g.8gb",
            memory_mib=1,
            cores=1,
            slice_count=8,
            placements=(MigPlacement(start=0, size=1), MigPlacement(start=1, size=2)),
        ),
        HAMI[0],
        HAMI[0],
    )
    compiled = CardProfiles(broken)
    assert [problem.field for problem in compiled.problems] == [
        "migProfiles[0].name",
        "migProfiles[2].placements",
        "migProfiles[3].placements",
        "migProfiles[5].name",
    ]
    found = place_one([MigCard(profiles=compiled, state=0)], Mib(1), 0)
    assert found is not None
    assert found.profile == HAMI[0]
    empty = CardProfiles(())
    assert place_one([MigCard(profiles=empty, state=0)], Mib(0), 0) is None


def test_blockers_are_the_cheapest_to_move() -> None:
    compiled = CardProfiles(HAMI)
    taken = [
        (owner, name, place)
        for owner, (name, place) in zip(("a", "b", "c"), instances(HAMI, "1g.5gb@0 1g.5gb@1 1g.5gb@6"), strict=True)
    ]
    assert blockers(compiled, taken, {"a": 1, "b": 1, "c": 1}, "3g.20gb") == frozenset({"c"})
    assert blockers(compiled, taken, {"a": 1, "b": 1, "c": 5}, "3g.20gb") == frozenset({"a", "b"})
    assert blockers(compiled, taken, {"a": 1, "b": 1}, "3g.20gb") == frozenset({"a", "b"}), "c may not be moved"
    assert blockers(compiled, taken, {"a": 1}, "7g.40gb") is None
    assert blockers(compiled, taken, {}, "2g.10gb") == frozenset()
    assert blockers(compiled, taken, {}, "4g.20gb") is None
