"""Choosing devices out of groups, exactly: the fewest groups, the least left over, the least damage.

Families whose devices lie in groups (halves of a board, cards of several dies, link zones) all want the same: a
container's devices in as few groups as can be, without opening a larger group than needed, and without breaking one
that is still whole. The number of sets grows fast, so they are never listed: over groups in the order of preference,
the best set for each (number of groups, devices in them, one of them broken before) is enough.
"""

from collections.abc import Callable, Hashable, Sequence
from itertools import accumulate

_State = tuple[int, int, bool]


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
