"""MIG placement: profile, card and slices for one wish or for all wishes of a pod, and what stands in the way.

The typed face of `_mig`. A card is its profile list and a *state*, the set of its taken slices. Among all cards,
profiles and starts the choice has, in this order: the fewest memory slices beyond the smallest sufficient profile, the
least compute beyond it, the least loss, the earlier card, and last the start that HAMi would try first (1g and 3g from
the end, others from the beginning). The loss of a state is what an idle card would still take and this one no longer
does, instance by instance of every profile, weighted by slices, and by the demand for each profile where it is known:
on one card it keeps halves and quarters together, among cards it uses up broken ones before it breaks a whole one.

Several wishes of a pod are decided together and exactly, up to `MOST_KINDS` different ones and `MOST_SETS` combinations
of their counts; beyond that they are placed one after another, the largest first.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd
from typing import Final, TypeVar

from hami.alloc._mig import NUMBERS, Plan, Profiles, Wish, share_out
from hami.model.claim import Memory, Percent
from hami.model.device import MigPlacement, MigProfile
from hami.model.mig import read_profile_name
from hami.model.names import WireError

Owner = TypeVar("Owner", bound=Hashable)

MOST_SLICES: Final = NUMBERS["MOST_SLICES"]
MOST_KINDS: Final = NUMBERS["MOST_KINDS"]
MOST_SETS: Final = NUMBERS["MOST_SETS"]
MOST_WEIGHT: Final = 4096
"""Largest weight of a profile: costs of sixteen cards then still fit their part of the number."""
_KEPT_WISHES: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Instances that one container asks for, all alike."""

    memory: Memory
    cores: int
    """Percent of a card; an instance has at least as many."""
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One decided instance."""

    card: int
    """Position among the cards given."""
    profile: MigProfile
    placement: MigPlacement


class CardProfiles:
    """The profiles of one kind of card, compiled. Equal lists should share one of these: the tables are its weight.

    Profiles and placements that no table holds (unreadable name, outside the slices any card has, twice the same) are
    left out and told in `problems`; the others are used.
    """

    def __init__(self, profiles: Sequence[MigProfile], weights: Mapping[str, int] | None = None) -> None:
        self.listed = tuple(profiles)
        problems: list[WireError] = []
        usable = _usable(self.listed, problems)
        self.problems = tuple(problems)
        self.usable = bool(usable)
        self._media = {profile.name for _, profile, _ in usable if _holds_media(profile.name)}
        unit = gcd(*(number for _, _, places in usable for place in places for number in (place.start, place.size)))
        self._unit = max(1, unit)
        end = max((place.start + place.size for _, _, places in usable for place in places), default=1)
        self._slices = -(-end // self._unit)
        rows = [self._row(index, profile, places, weights) for index, profile, places in sorted(usable, key=_by_size)]
        self.native: Final = Profiles(self._slices, self._unit, bool(self._media), rows)
        self._meanings = [self._meaning(place) for place in range(sum(len(places) for *_, places in rows))]
        self._wishes: dict[Wanted, Wish] = {}
        self._alike: dict[tuple[tuple[int, int], ...], Wish] = {}

    def state(self, taken: Iterable[tuple[str, MigPlacement]]) -> int:
        """The state of a card with these instances, (profile name, placement); parts outside the card do not count."""
        mask = 0
        for name, place in taken:
            mask |= self._mask(place)
            if self._media and _holds_media(name):
                mask |= 1 << self._slices
        return mask

    @property
    def full(self) -> int:
        """The state of a card that takes nothing more."""
        return self.native.states - 1

    def wish(self, memory: Memory, cores: int) -> Wish:
        """The compiled wish; kept, because the pods of one workload ask alike. Wishes that mean the same are one."""
        key = Wanted(memory=memory, cores=cores)
        if (known := self._wishes.get(key)) is None:
            if len(self._wishes) >= _KEPT_WISHES:
                self._wishes.clear()
                self._alike.clear()
            amount = min(memory.amount, 2**40)
            made = Wish(self.native, amount, isinstance(memory, Percent), cores)
            known = self._wishes[key] = self._alike.setdefault(made.signature, made)
        return known

    def learn(self, asked: Iterable[tuple[Memory, int, float]]) -> None:
        """Weigh what is lost by what is asked: (memory, cores, how often), each as the smallest profile that serves it.

        Half of a profile's weight is its size alone, so that nothing becomes worthless because nobody asked lately; the
        other half is by its share of what was asked. Wishes compiled before are forgotten.
        """
        sizes = self.native.sizes
        often = dict.fromkeys(sizes, 0.0)
        for memory, cores, times in asked:
            if (found := self.wish(memory, cores).on(0)) is not None:
                often[self.native.place(found[1])[0]] += times
        total = sum(often.values())
        shares = {i: 1 / len(sizes) + (often[i] / total if total > 0 else 1 / len(sizes)) for i in sizes}
        most = max(size * shares[i] for i, size in sizes.items())
        self.native.reweigh({i: max(1, round(MOST_WEIGHT * size * shares[i] / most)) for i, size in sizes.items()})
        self._wishes.clear()
        self._alike.clear()

    def instance_of(self, place: int) -> tuple[MigProfile, MigPlacement]:
        """What a placement's number means: the profile, and where its instance lies."""
        return self._meanings[place]

    def instance(self, card: int, place: int) -> Instance:
        """The instance that a placement's number means, on the card at that position."""
        profile, placement = self._meanings[place]
        return Instance(card=card, profile=profile, placement=placement)

    def _meaning(self, place: int) -> tuple[MigProfile, MigPlacement]:
        index, start, mask = self.native.place(place)
        size = (mask & ((1 << self._slices) - 1)).bit_count() * self._unit
        return self.listed[index], MigPlacement(start=start, size=size)

    def starts(self, name: str) -> tuple[MigPlacement, ...]:
        """The usable placements of a profile, by its name."""
        return tuple(place for profile in self.listed if profile.name == name for place in profile.placements)

    def _mask(self, place: MigPlacement) -> int:
        first = min(place.start, MOST_SLICES) // self._unit
        end = min(-(-min(place.start + place.size, MOST_SLICES) // self._unit), self._slices)
        return ((1 << max(0, end - first)) - 1) << first

    def _row(
        self, index: int, profile: MigProfile, places: Sequence[MigPlacement], weights: Mapping[str, int] | None
    ) -> tuple[int, int, int, int, int, list[tuple[int, int]]]:
        media = 1 << self._slices if profile.name in self._media else 0
        weight = places[0].size // self._unit if weights is None else weights.get(profile.name, 0)
        ordered = sorted(places, key=lambda place: place.start, reverse=profile.slice_count in (1, 3))
        return (
            index,
            profile.memory_mib,
            profile.cores,
            min(profile.slice_count, MOST_SLICES),
            max(1, min(weight, MOST_WEIGHT)),
            [(place.start, self._mask(place) | media) for place in ordered],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MigCard:
    """A card as a decision sees it."""

    profiles: CardProfiles
    state: int
    room: int = 1 << 20
    """How many more sharers it may take."""


def check_profiles(profiles: Sequence[MigProfile], field: str) -> tuple[WireError, ...]:
    """What of a registered list cannot be used, named below `field`."""
    problems: list[WireError] = []
    if not _usable(profiles, problems, field) and not problems:
        problems.append(WireError(field, "a profile, or the card takes nothing"))
    return tuple(problems)


def place_one(cards: Sequence[MigCard], memory: Memory, cores: int) -> Instance | None:
    """One instance on the card and slices of least cost; `cards` in the order in which the policy prefers them."""
    best: tuple[int, int, int] | None = None
    for position, card in enumerate(cards):
        found = card.profiles.wish(memory, cores).on(card.state) if card.room > 0 else None
        if found is not None and (best is None or found[0] < best[0]):
            best = found[0], position, found[1]
    return None if best is None else cards[best[1]].profiles.instance(best[1], best[2])


def place_all(cards: Sequence[MigCard], wanted: Sequence[Wanted]) -> tuple[tuple[Instance, ...], ...] | None:
    """Every wish of a pod at the least total cost, one tuple a wish; None when they do not all fit."""
    kinds = list(dict.fromkeys((wish.memory, wish.cores) for wish in wanted))
    counts = [sum(wish.count for wish in wanted if (wish.memory, wish.cores) == kind) for kind in kinds]
    sets = 1
    for count in counts:
        sets *= count + 1
    if not kinds:
        return ()
    if len(kinds) <= MOST_KINDS and sets <= MOST_SETS:
        placed = _together(cards, kinds, counts)
    else:
        placed = _one_by_one(cards, kinds, counts)
    if placed is None:
        return None
    waiting = {kind: iter(found) for kind, found in zip(kinds, placed, strict=True)}
    return tuple(tuple(next(waiting[wish.memory, wish.cores]) for _ in range(wish.count)) for wish in wanted)


def blockers(
    card: CardProfiles, taken: Sequence[tuple[Owner, str, MigPlacement]], costs: Mapping[Owner, int], name: str
) -> frozenset[Owner] | None:
    """Whose removal makes room for a profile at the least total cost: fewest owners, then the lowest start on ties.

    `taken` are the card's instances with owner and profile name. Empty when there is room already, None when the card
    does not offer the profile. An owner without a cost may not be moved.
    """
    options: list[tuple[int, int, int, frozenset[Owner]]] = []
    for place in card.starts(name):
        wanted = card.state([(name, place)])
        there = frozenset(owner for owner, held, at in taken if card.state([(held, at)]) & wanted)
        if wanted and all(owner in costs for owner in there):
            options.append((sum(costs[owner] for owner in there), len(there), place.start, there))
    return min(options, key=lambda option: option[:3])[3] if options else None


def _together(
    cards: Sequence[MigCard], kinds: Sequence[tuple[Memory, int]], counts: list[int]
) -> list[list[Instance]] | None:
    plans: dict[int, Plan] = {}
    for card in cards:
        if id(card.profiles) not in plans:
            plans[id(card.profiles)] = Plan([card.profiles.wish(*kind) for kind in kinds], counts)
    by_card = [plans[id(card.profiles)] for card in cards]
    found = share_out(by_card, [card.state for card in cards], [max(0, card.room) for card in cards])
    if found is None:
        return None
    placed: list[list[Instance]] = [[] for _ in kinds]
    for position, (card, plan, chosen) in enumerate(zip(cards, by_card, found[1], strict=True)):
        for kind, place in plan.places(card.state, chosen) or ():
            placed[kind].append(card.profiles.instance(position, place))
    return placed


def _one_by_one(
    cards: Sequence[MigCard], kinds: Sequence[tuple[Memory, int]], counts: Sequence[int]
) -> list[list[Instance]] | None:
    states, rooms = [card.state for card in cards], [card.room for card in cards]
    placed: list[list[Instance]] = [[] for _ in kinds]
    # What fits least often on the cards as they are is the largest.
    fits = [sum(card.profiles.wish(*kind).most_on(card.state) for card in cards) for kind in kinds]
    for kind in sorted(range(len(kinds)), key=lambda kind: fits[kind]):
        for _ in range(counts[kind]):
            now = [
                MigCard(profiles=card.profiles, state=state, room=room)
                for card, state, room in zip(cards, states, rooms, strict=True)
            ]
            found = place_one(now, *kinds[kind])
            if found is None:
                return None
            placed[kind].append(found)
            states[found.card] |= cards[found.card].profiles.state([(found.profile.name, found.placement)])
            rooms[found.card] -= 1
    return placed


def _usable(
    profiles: Sequence[MigProfile], problems: list[WireError], within: str = "migProfiles"
) -> list[tuple[int, MigProfile, list[MigPlacement]]]:
    usable: list[tuple[int, MigProfile, list[MigPlacement]]] = []
    names: set[str] = set()
    total = 0
    for index, profile in enumerate(profiles):
        field = f"{within}[{index}]"
        try:
            read_profile_name(profile.name, f"{field}.name")
        except WireError as error:
            problems.append(error)
            continue
        places = list(dict.fromkeys(p for p in profile.placements if p.start + p.size <= MOST_SLICES))
        if len(places) < len(profile.placements):
            expected = f"different placements within {MOST_SLICES} slices"
            problems.append(WireError(f"{field}.placements", expected, profile.name))
        if len({place.size for place in places}) > 1:
            problems.append(WireError(f"{field}.placements", "placements of one size", profile.name))
            continue
        if any(a.start + a.size > b.start for a, b in pairwise(sorted(places, key=lambda place: place.start))):
            # Told, and used all the same: no two instances ever get slices in common.
            problems.append(WireError(f"{field}.placements", "placements apart from each other", profile.name))
        if profile.name in names:
            problems.append(WireError(f"{field}.name", "every profile once", profile.name))
            continue
        if len(usable) == NUMBERS["MOST_PROFILES"] - 1 or total + len(places) > NUMBERS["MOST_PLACES"]:
            problems.append(WireError(field, "no more profiles and placements than any card has", profile.name))
            break
        if places:
            names.add(profile.name)
            total += len(places)
            usable.append((index, profile, places))
    return usable


def _by_size(row: tuple[int, MigProfile, Sequence[MigPlacement]]) -> tuple[int, int, bool, int, int]:
    index, profile, places = row
    plain = read_profile_name(profile.name, "name").suffix == ""
    return places[0].size, profile.slice_count, not plain, profile.memory_mib, index


def _holds_media(name: str) -> bool:
    try:
        return read_profile_name(name, "profile").media
    except WireError:
        return False
