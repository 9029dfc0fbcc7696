"""Choosing devices out of groups, against listing every set."""

import random
from collections.abc import Iterator
from itertools import combinations

import pytest

from hami.model.groups import dealt, fewest_groups, largest_share


def slow(group: list[int], order: list[int], want: int) -> tuple[int, int, bool] | None:
    """The best objective of any set: groups used, devices left over in them, a whole group broken."""
    found = []
    for chosen in combinations(order, want):
        opened = {group[spot] for spot in chosen}
        left = [spot for spot in order if group[spot] in opened and spot not in chosen]
        whole = {one for one in opened if all(spot in order for spot in range(len(group)) if group[spot] == one)}
        found.append((len(opened), len(left), any(group[spot] in whole for spot in left)))
    return min(found, default=None)


def judged(group: list[int], order: list[int], chosen: tuple[int, ...]) -> tuple[int, int, bool]:
    best = slow(group, [*chosen], len(chosen))
    assert best is not None
    opened = {group[spot] for spot in chosen}
    left = [spot for spot in order if group[spot] in opened and spot not in chosen]
    whole = {one for one in opened if all(spot in order for spot in range(len(group)) if group[spot] == one)}
    return len(opened), len(left), any(group[spot] in whole for spot in left)


@pytest.mark.parametrize("seed", range(300))
def test_as_good_as_any_set(seed: int) -> None:
    rng = random.Random(seed)
    spots = rng.randint(1, 9)
    group = [rng.randint(0, rng.choice([1, 2, 4])) for _ in range(spots)]
    order = rng.sample(range(spots), rng.randint(0, spots))
    want = rng.randint(1, spots)
    chosen = fewest_groups(spots, order, want, lambda spot: group[spot])
    best = slow(group, order, want)
    assert (chosen is None) == (best is None)
    if chosen is not None:
        assert len(set(chosen)) == want
        assert set(chosen) <= set(order)
        assert judged(group, order, chosen) == best


@pytest.mark.parametrize(
    ("group", "order", "want", "chosen"),
    [
        pytest.param([0, 0, 0, 0, 1, 1, 1, 1], [7, 6, 5, 4, 3, 2, 1], 2, (3, 2), id="the half that is broken already"),
        pytest.param([0, 0, 0, 0, 1, 1], [5, 4, 3, 2, 1, 0], 2, (5, 4), id="the group that is used up"),
        pytest.param([0, 0, 0, 0, 1, 1], [3, 2, 1, 0, 5, 4], 2, (5, 4), id="the fit counts more than the order"),
        pytest.param([0, 0, 1, 1, 2, 2], [1, 0, 5, 4, 3, 2], 2, (1, 0), id="the order decides between equal ones"),
        pytest.param([0] * 4 + [1] * 4, [7, 6, 5, 4, 3, 2, 1, 0], 5, (7, 6, 5, 4, 3), id="the largest group first"),
        pytest.param([0, 0, 1, 1], [3, 0], 2, (3, 0), id="as many as pass: in their order"),
        pytest.param([0, 0], [1], 2, None, id="too few"),
    ],
)
def test_what_is_taken(group: list[int], order: list[int], want: int, chosen: tuple[int, ...] | None) -> None:
    assert fewest_groups(len(group), order, want, lambda spot: group[spot]) == chosen


def test_many_groups_cost_little() -> None:
    """64 devices, each in a group of its own: sets of 32 could not be listed."""
    chosen = fewest_groups(64, range(64), 32, lambda spot: spot)
    assert chosen is not None
    assert sorted(chosen) == list(range(32))


def test_how_much_lies_together() -> None:
    assert largest_share([0, 0, 1, 0]) == 0.75
    assert largest_share(["a"]) == 1.0


def deals(order: list[int], wants: list[int]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Every way to deal spots to containers."""
    if not wants:
        yield ()
        return
    for chosen in combinations(order, wants[0]):
        for others in deals([spot for spot in order if spot not in chosen], wants[1:]):
            yield chosen, *others


def judged_together(group: list[int], order: list[int], deal: tuple[tuple[int, ...], ...]) -> tuple[int, int, int]:
    """Groups of each container; spots left over in groups that are opened; whole groups broken."""
    taken = {spot for chosen in deal for spot in chosen}
    opened = {group[spot] for spot in taken}
    left = [spot for spot in order if group[spot] in opened and spot not in taken]
    whole = {one for one in opened if all(spot in order for spot in range(len(group)) if group[spot] == one)}
    return (
        sum(len({group[spot] for spot in chosen}) for chosen in deal),
        len(left),
        len({group[i] for i in left} & whole),
    )


@pytest.mark.parametrize("seed", range(200))
def test_several_containers_get_the_best_of_all_ways_one_by_one(seed: int) -> None:
    rng = random.Random(seed)
    spots = rng.randint(3, 8)
    group = [rng.randint(0, rng.choice([1, 2, 3])) for _ in range(spots)]
    order = rng.sample(range(spots), rng.randint(3, spots))
    wants = [rng.randint(1, 3) for _ in range(rng.randint(2, 3))]
    if sum(wants) > len(order):
        assert dealt(spots, order, wants, lambda i: group[i]) == fewest_groups(
            spots, order, wants[0], lambda i: group[i]
        )
        return
    deal: list[tuple[int, ...]] = []
    left = list(order)
    for place in range(len(wants)):
        own = [spot for chosen in deal for spot in chosen]
        chosen = dealt(spots, left, wants[place:], lambda i: group[i], own)
        assert chosen is not None
        assert len(set(chosen)) == wants[place]
        deal.append(chosen)
        left = [spot for spot in left if spot not in chosen]
    best = min(judged_together(group, order, way) for way in deals(order, wants))
    assert judged_together(group, order, tuple(deal)) == best


@pytest.mark.parametrize(
    ("group", "order", "wants", "chosen"),
    [
        pytest.param([0, 0, 0, 1, 1], [0, 1, 2, 3, 4], [1, 3], (3,), id="the single one leaves three together"),
        pytest.param(
            [0] * 4 + [1] * 4, list(range(8)), [3, 1], (0, 1, 2), id="room for the other one in the same group"
        ),
        pytest.param([0, 0, 1, 1], [3, 2, 1, 0], [2, 2], (3, 2), id="the order decides between equal ones"),
    ],
)
def test_the_first_of_several(group: list[int], order: list[int], wants: list[int], chosen: tuple[int, ...]) -> None:
    assert dealt(len(group), order, wants, lambda spot: group[spot]) == chosen


def test_too_many_ways_are_not_all_looked_at() -> None:
    """Ten groups of ten sizes and four containers: each looks for itself."""
    group = [number for number in range(10) for _ in range(number + 1)]
    chosen = dealt(len(group), range(len(group)), [9, 9, 9, 9], lambda spot: group[spot])
    assert chosen == fewest_groups(len(group), range(len(group)), 9, lambda spot: group[spot])
