"""MIG placement by trying everything: sets of slices, plain recursion, costs as tuples.

Shares no code with the engine's tables. A state is a frozenset of taken slices, with "media" in it when the card's
media engines are taken.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import gcd

from hami.model.claim import Memory, Percent
from hami.model.device import MigPlacement, MigProfile

State = frozenset[int | str]
Option = tuple[int, MigProfile, MigPlacement]
Cost = tuple[int, int, int, int]


@dataclass(frozen=True)
class Card:
    profiles: tuple[MigProfile, ...]
    state: State
    room: int = 1000


def takes(profile: MigProfile, place: MigPlacement) -> State:
    media: set[int | str] = {"media"} if "+me" in profile.name else set()
    return frozenset(media | set(range(place.start, place.start + place.size)))


def slices_of(profiles: Sequence[MigProfile]) -> int:
    return max(place.start + place.size for profile in profiles for place in profile.placements)


@cache
def most(profile: MigProfile, state: State) -> int:
    free = [place for place in profile.placements if not takes(profile, place) & state]
    return max((1 + most(profile, state | takes(profile, place)) for place in free), default=0)


def unit(profiles: Sequence[MigProfile]) -> int:
    return gcd(*(n for profile in profiles for place in profile.placements for n in (place.start, place.size)))


@cache
def loss(profiles: tuple[MigProfile, ...], state: State) -> int:
    """What an idle card would take and this one does not; every instance weighs its slices, in the smallest unit."""
    nothing: State = frozenset()
    return sum(p.placements[0].size // unit(profiles) * (most(p, nothing) - most(p, state)) for p in profiles)


def sufficient(profiles: Sequence[MigProfile], memory: Memory, cores: int) -> list[MigProfile]:
    def holds(profile: MigProfile) -> bool:
        if isinstance(memory, Percent):
            return Fraction(profile.placements[0].size, slices_of(profiles)) >= Fraction(memory.amount, 100)
        return profile.memory_mib >= memory.amount

    return [profile for profile in profiles if holds(profile) and profile.cores >= cores]


def options(cards: Sequence[Card], memory: Memory, cores: int) -> Iterator[tuple[Option, Cost]]:
    """Every placement with its cost: waste of memory slices and of compute, growth of loss, rank."""
    for rank, card in enumerate(cards):
        enough = sufficient(card.profiles, memory, cores)
        if card.room < 1 or not enough:
            continue
        scale = unit(card.profiles)
        least = min((p.placements[0].size, p.slice_count) for p in enough)
        for profile in enough:
            for place in profile.placements:
                taken = takes(profile, place)
                if not taken & card.state:
                    before, after = loss(card.profiles, card.state), loss(card.profiles, card.state | taken)
                    cost = (
                        (place.size - least[0]) // scale,
                        max(0, profile.slice_count - least[1]),
                        after - before,
                        rank,
                    )
                    yield (rank, profile, place), cost


def cheapest(cards: Sequence[Card], wishes: Sequence[tuple[Memory, int]]) -> Cost | None:
    """The least total cost of one instance for each wish."""
    if not wishes:
        return (0, 0, 0, 0)
    best: Cost | None = None
    for (rank, profile, place), cost in options(cards, *wishes[0]):
        card = cards[rank]
        after = Card(card.profiles, card.state | takes(profile, place), card.room - 1)
        rest = cheapest([*cards[:rank], after, *cards[rank + 1 :]], wishes[1:])
        if rest is not None:
            total = (cost[0] + rest[0], cost[1] + rest[1], cost[2] + rest[2], cost[3] + rest[3])
            best = total if best is None else min(best, total)
    return best


def cost_of(cards: Sequence[Card], placed: Sequence[tuple[Option, tuple[Memory, int]]]) -> Cost:
    """What a finished answer costs; AssertionError when it is not a legal one."""
    now = list(cards)
    total = (0, 0, 0, 0)
    for option, (memory, cores) in placed:
        legal: Mapping[Option, Cost] = dict(options(now, memory, cores))
        assert option in legal, f"{option} is taken, too small or not offered"
        cost = legal[option]
        total = (total[0] + cost[0], total[1] + cost[1], total[2] + cost[2], total[3] + cost[3])
        rank, profile, place = option
        now[rank] = Card(now[rank].profiles, now[rank].state | takes(profile, place), now[rank].room - 1)
    return total
