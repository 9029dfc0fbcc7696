"""Choosing devices out of groups, against listing every set."""

import random
from itertools import combinations

import pytest

from hami.model.groups import fewest_groups, largest_share


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
