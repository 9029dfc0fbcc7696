"""Choosing devices out of groups, exactly: the fewest groups, the least left over, the least damage.

Families whose devices lie in groups (halves of a board, cards of several dies, link zones) all want the same: a
container's devices in as few groups as can be, without opening a larger group than needed, and without breaking one
that is still whole. The number of sets grows fast, so they are never listed: over groups in the order of preference,
the best set for each (number of groups, devices in them, one of them broken before) is enough. Of several containers
each gets its devices such that the rest serves the others best: over what each could leave in each group.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Final, NamedTuple

MOST_STEPS: Final = 5_000
"""Ways to deal devices to containers that are looked at; beyond, each container looks for itself only."""

_State = tuple[int, int, bool]
_Cost = tuple[int, int, int]


def fewest_groups(
    spots: int, order: Sequence[int], want: int, group_of: Callable[[int], Hashable]
) -> tuple[int, ...] | None:
    """`want` of the spots in `order`, out of so many `spots`; None where there are not as many.

    The objective, most important first: the number of groups; devices left over in them; whether a group of which every
    spot passes is left broken; the earliest in `order`. The largest groups are named first.
    """
    groups: dict[Hashable, list[int]] = {}
    for spot in order:
        groups.setdefault(group_of(spot), []).append(spot)
    if len(order) <= want:
        return tuple(order) if len(order) == want else None
    members = list(groups.values())
    whole = [group_of(spot) for spot in range(spots)]
    intact = [len(passing) == whole.count(group) for group, passing in groups.items()]
    counts = sorted(map(len, members), reverse=True)
    fewest = next(i for i, total in enumerate(accumulate(counts), 1) if total >= want)
    best: dict[_State, tuple[int, ...]] = {(0, 0, False): ()}
    for i, passing in enumerate(members):
        for (number, total, broken), taken in list(best.items()):
            state = number + 1, total + len(passing), broken or not intact[i]
            if state[0] <= fewest and (state not in best or (*taken, i) < best[state]):
                best[state] = (*taken, i)
    able = [(state, taken) for state, taken in best.items() if state[0] == fewest and state[1] >= want]
    (_, total, _), taken = min(able, key=lambda one: (_cost(one[0], want), one[1]))
    return _filled([members[i] for i in taken], [intact[i] for i in taken], total - want)


class _Group(NamedTuple):
    """What counts of a group; groups that are equal in it are equal."""

    size: int
    """Devices that pass, or that the pod has already."""
    intact: bool
    """These are all that it has."""
    left: int


def dealt(
    spots: int,
    order: Sequence[int],
    wants: Sequence[int],
    group_of: Callable[[int], Hashable],
    own: Sequence[int] = (),
) -> tuple[int, ...] | None:
    """As `fewest_groups`, for the first of several containers that want so many each; `own` are the pod's already.

    The objective, most important first: the groups of each container, summed; devices left over in groups of which the
    pod has some; how many groups it leaves broken of which every spot was free; the first container's earliest in
    `order`. Asked anew for each container in turn, the answers add up to the best for all. Where there are not enough
    devices for all, or too many ways (`MOST_STEPS`), the first one's own best.
    """
    if (len(wants) == 1 and not own) or sum(wants) > len(order):
        return fewest_groups(spots, order, wants[0], group_of)
    members: dict[Hashable, list[int]] = {}
    for spot in order:
        members.setdefault(group_of(spot), []).append(spot)
    there = [group_of(spot) for spot in range(spots)]
    mine = [group_of(spot) for spot in own if spot not in order]
    groups = []
    for one, passing in members.items():
        size = len(passing) + mine.count(one)
        groups.append(_Group(size, size == there.count(one), len(passing)))
    cheapest = _cheapest(tuple(groups), tuple(wants))
    if cheapest is None:
        return fewest_groups(spots, order, wants[0], group_of)
    places = {spot: place for place, spot in enumerate(order)}
    first = min(
        sorted(places[spot] for one, amount in zip(members.values(), amounts, strict=True) for spot in one[:amount])
        for amounts in cheapest
    )
    taken = [order[place] for place in first]
    own_groups = [group_of(spot) for spot in taken]
    return tuple(sorted(taken, key=lambda spot: (-own_groups.count(group_of(spot)), places[spot])))


@lru_cache(maxsize=4096)
def _cheapest(groups: tuple[_Group, ...], wants: tuple[int, ...]) -> tuple[tuple[int, ...], ...] | None:
    """What the first container may take of each group where all of them together cost least; None: too many ways."""
    search = _Search(wants)
    found: dict[_Cost, list[tuple[int, ...]]] = {}
    for amounts in search.ways(groups, wants[0]):
        cost = search.cost(1, _after(groups, amounts))
        found.setdefault((cost[0] + sum(map(bool, amounts)), *cost[1:]), []).append(amounts)
    return None if search.spent else tuple(found[min(found)])


class _Search:
    """The least cost of the containers from a certain one on, by what is left of the groups."""

    def __init__(self, wants: Sequence[int]) -> None:
        self._wants = wants
        self._known: dict[tuple[int, tuple[_Group, ...]], _Cost] = {}
        self._steps = 0

    @property
    def spent(self) -> bool:
        """It would take too long: what was answered is not the best."""
        return self._steps > MOST_STEPS

    def cost(self, first: int, groups: tuple[_Group, ...]) -> _Cost:
        """Groups of these containers, devices left over and groups broken in the end. There are enough devices."""
        if first == len(self._wants):
            opened = [group for group in groups if group.left < group.size]
            broken = sum(group.intact and group.left > 0 for group in opened)
            return 0, sum(group.left for group in opened), broken
        key = first, groups
        if key not in self._known:
            costs = []
            for amounts in self.ways(groups, self._wants[first]):
                rest = self.cost(first + 1, _after(groups, amounts))
                costs.append((rest[0] + sum(map(bool, amounts)), *rest[1:]))
            self._known[key] = min(costs, default=(0, 0, 0))
        return self._known[key]

    def ways(self, groups: Sequence[_Group], want: int) -> Iterator[tuple[int, ...]]:
        """All amounts by group that come to so many, until it is spent; of equal groups the first one gives most."""
        twins = [
            max((i for i in range(place) if groups[i] == groups[place]), default=-1) for place in range(len(groups))
        ]
        behind = [sum(group.left for group in groups[place:]) for place in range(len(groups) + 1)]

        def rest(place: int, want: int, before: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
            self._steps += 1
            if want > behind[place] or self.spent:
                return
            if place == len(groups):
                yield before
                return
            most = min(groups[place].left, want)
            most = most if twins[place] < 0 else min(most, before[twins[place]])
            for amount in range(most, -1, -1):
                yield from rest(place + 1, want - amount, (*before, amount))

        return rest(0, want, ())


def _after(groups: Sequence[_Group], amounts: Sequence[int]) -> tuple[_Group, ...]:
    """What is left, in an order of its own, because which of equal groups is which does not matter."""
    left = (group._replace(left=group.left - amount) for group, amount in zip(groups, amounts, strict=True))
    return tuple(sorted(left))


def _cost(state: _State, want: int) -> tuple[int, bool]:
    leftover = state[1] - want
    return leftover, bool(leftover) and not state[2]


def _filled(members: Sequence[Sequence[int]], intact: Sequence[bool], leftover: int) -> tuple[int, ...]:
    """All spots of these groups but the last ones of one: of a broken group if there is one, of the smallest such."""
    # No group can be left out, so each has more than what is left over.
    opened = min(range(len(members)), key=lambda i: (intact[i], len(members[i]), -i))
    parts = [list(spots[: len(spots) - leftover * (i == opened)]) for i, spots in enumerate(members)]
    return tuple(spot for part in sorted(parts, key=len, reverse=True) for spot in part)


def largest_share(groups: Sequence[Hashable]) -> float:
    """How much of a set lies in its largest group, 0 to 1; the groups are those of its devices."""
    return max(groups.count(group) for group in groups) / len(groups)
