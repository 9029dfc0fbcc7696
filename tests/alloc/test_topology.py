"""The choice of linked cards against trying every subset, and the shapes that real machines have."""

import os
from itertools import combinations
from random import Random

import pytest

from hami.alloc import topology
from hami.alloc.topology import Matrix, check_links, choose, compiled, matrix, prefer
from hami.model.device import Links
from hami.model.names import DeviceUuid

CASES = int(os.environ.get("HAMI_TOPOLOGY_CASES", "1000"))
SHARDS = 10
GROUPS = ((2, 84), (4, 14), (8, 3))


def score(scores: Matrix, cards: tuple[int, ...]) -> int:
    return sum(scores[a][b] for a, b in combinations(cards, 2))


def is_joined(scores: Matrix, cards: tuple[int, ...]) -> bool:
    reached, ahead = set(cards[:1]), list(cards[:1])
    while ahead:
        here = ahead.pop()
        for card in set(cards) - reached:
            if scores[here][card] >= topology.FAST_LINK:
                reached.add(card)
                ahead.append(card)
    return reached == set(cards)


def rest(scores: Matrix, free: list[int]) -> int:
    return sum(
        weight * max((score(scores, group) for group in combinations(free, size)), default=0) for size, weight in GROUPS
    )


def rest_by_class(scores: Matrix, free: list[int]) -> int:
    """The documented measure above 16 cards: what one class of cards that are linked alike would still give."""
    total = 0
    for size, weight in GROUPS:
        best = 0
        for first in range(len(scores)):
            alike = [c for c in free if c == first or like(scores, first, c)]
            if first in free and len(alike) >= size:
                best = max(best, score(scores, tuple(alike[:size])))
        total += weight * best
    return total


def like(scores: Matrix, a: int, b: int) -> bool:
    return all(scores[a][c] == scores[b][c] for c in range(len(scores)) if c not in (a, b))


def brute(
    scores: Matrix, order: list[int], want: int, sure: int, others: list[int], joined: bool
) -> tuple[int, ...] | None:
    """The first best set in the order of preference."""
    best: tuple[int, int] | None = None
    found: tuple[int, ...] | None = None
    for more in combinations(order[sure:], want - sure):
        cards = (*order[:sure], *more)
        if joined and not is_joined(scores, cards):
            continue
        left = sorted((set(order) | set(others)) - set(cards))
        measure = rest if len(scores) <= topology.MOST_EXACT else rest_by_class
        value = score(scores, cards), measure(scores, left)
        if best is None or value > best:
            best, found = value, cards
    return found


def symmetric(n: int, pair: "dict[tuple[int, int], int]") -> Matrix:
    return tuple(tuple(0 if a == b else pair[min(a, b), max(a, b)] for b in range(n)) for a in range(n))


def random_matrix(rng: Random, n: int) -> Matrix:
    levels = rng.choice(((10, 120), (10, 20, 50, 110, 220), (0, 100), (50,), tuple(range(0, 300, 7))))
    return symmetric(n, {(a, b): rng.choice(levels) for a, b in combinations(range(n), 2)})


def islands(rng: Random, sizes: list[int]) -> Matrix:
    """Uniform islands with uniform distances between them: what racks and partitions look like."""
    inside = [rng.choice((100, 200, 300)) for _ in sizes]
    between = {pair: rng.choice((10, 10, 20, 110)) for pair in combinations(range(len(sizes)), 2)}
    home = [i for i, size in enumerate(sizes) for _ in range(size)]
    pairs = {}
    for a, b in combinations(range(len(home)), 2):
        pairs[a, b] = inside[home[a]] if home[a] == home[b] else between[home[a], home[b]]
    return symmetric(len(home), pairs)


@pytest.mark.parametrize("shard", range(SHARDS))
def test_agrees_with_trying_every_subset(shard: int) -> None:
    for number in range(CASES // SHARDS):
        seed = shard * 1_000_000 + number
        rng = Random(seed)
        n = rng.randint(1, 9)
        scores = random_matrix(rng, n)
        cards = rng.sample(range(n), n)
        order, others = cards[: rng.randint(1, n)], []
        if rng.random() < 0.5:
            others = cards[len(order) :]
        want = rng.randint(1, len(order))
        sure = rng.choice((0, 0, rng.randint(0, want)))
        joined = rng.random() < 0.3
        found = choose(compiled(scores), order, want, sure=sure, others=others, joined=joined)
        assert found == brute(scores, order, want, sure, others, joined), f"seed {seed}"


@pytest.mark.parametrize("seed", range(40))
def test_agrees_above_sixteen_cards(seed: int) -> None:
    rng = Random(seed)
    sizes = rng.choice(([4] * 5, [8, 8, 4], [17], [6, 5, 4, 3], [9, 9]))
    scores = islands(rng, list(sizes))
    cards = rng.sample(range(len(scores)), len(scores))
    order, others = cards[: rng.randint(4, 12)], cards[12:]
    want = rng.randint(1, min(5, len(order)))
    sure, joined = rng.choice((0, 0, 1)), rng.random() < 0.3
    found = choose(compiled(scores), order, want, sure=sure, others=others, joined=joined)
    expected = brute(scores, order, want, sure, others, joined)
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        left = [[c for c in [*order, *others] if c not in taken] for taken in (found, expected)]
        assert score(scores, found) == score(scores, expected)
        assert rest_by_class(scores, left[0]) == rest_by_class(scores, left[1])
        assert not joined or is_joined(scores, found)


@pytest.mark.parametrize("seed", range(30))
def test_best_score_is_the_best_of_all_subsets(seed: int) -> None:
    rng = Random(seed)
    n = rng.randint(1, 10)
    scores = random_matrix(rng, n)
    free = rng.sample(range(n), rng.randint(0, n))
    for want in range(1, n + 1):
        expected = max((score(scores, group) for group in combinations(free, want)), default=None)
        assert compiled(scores).best(free, want) == expected


def test_sixteen_cards_have_an_exact_answer() -> None:
    rng = Random(7)
    scores = random_matrix(rng, 16)
    found = choose(compiled(scores), range(16), 8)
    assert found is not None
    assert score(scores, found) == max(score(scores, group) for group in combinations(range(16), 8))


def test_uniform_links_are_one_class() -> None:
    switch = symmetric(8, dict.fromkeys(combinations(range(8), 2), 1810))
    links = compiled(switch)
    assert links.uniform
    assert links.classes == 1
    assert choose(links, [5, 2, 7, 1], 2) == (5, 2), "the order of preference decides"
    assert not compiled(random_matrix(Random(1), 8)).uniform


LINE = symmetric(4, {(0, 1): 100, (0, 2): 0, (0, 3): 10, (1, 2): 200, (1, 3): 0, (2, 3): 100})


def test_one_card_leaves_the_best_rest() -> None:
    assert choose(compiled(LINE), [3, 2, 1, 0], 1) == (3,)
    assert choose(compiled(LINE), [3, 2, 0], 1) == (0,), "without card 1 the pair 2-3 is the best that is left"


def test_joined_sets_only() -> None:
    assert choose(compiled(LINE), [0, 1, 2, 3], 3, joined=True) == (0, 1, 2)
    assert choose(compiled(LINE), [0, 3], 2, joined=True) is None
    assert choose(compiled(LINE), [0, 3], 1, joined=True) == (0,), "one card is joined with itself"
    assert choose(compiled(LINE), [0, 3], 3) is None


def uuids(text: str) -> list[DeviceUuid]:
    return [DeviceUuid(word) for word in text.split()]


def links(**rows: dict[str, int]) -> Links:
    return Links(
        scores=tuple(
            (DeviceUuid(a), tuple((DeviceUuid(b), value) for b, value in row.items())) for a, row in rows.items()
        )
    )


def test_one_sided_and_strange_scores_do_no_harm() -> None:
    told = links(a={"b": 50, "a": 9}, b={"a": 10, "c": 40}, d={"x": 7})
    assert matrix(uuids("a b c"), told) == ((0, 10, 0), (10, 0, 0), (0, 0, 0))
    problem = check_links(told, "score")
    assert problem is not None
    assert (problem.field, problem.got) == ("score.score", (50, 10))
    assert check_links(links(a={"b": 5}, b={"a": 5}), "score") is None
    assert matrix(uuids("a c"), told) is None, "nothing is known of these"
    assert matrix(uuids("a b"), links(a={"b": 2**31 - 1}, b={"a": 2**31 - 1})) == ((0, 2**20), (2**20, 0))
    assert matrix(uuids("a b"), links(a={"b": -5}, b={"a": -5})) is None


def test_what_kubelet_is_told() -> None:
    told = links(a={"b": 100, "c": 10}, b={"a": 100, "c": 200}, c={"a": 10, "b": 200})
    available = uuids("a b c")
    assert prefer(told, available, (), 2) == ("b", "c")
    assert prefer(told, available, uuids("a"), 2) == ("a", "b")
    assert prefer(told, available, uuids("c"), 1) == ("c",)
    assert prefer(told, available, (), 3) == ("a", "b", "c")
    assert prefer(told, available, (), 9) == ("a", "b", "c")
    assert prefer(None, available, (), 2) == ("a", "b")
    assert prefer(told, available, (), 0) == ()
