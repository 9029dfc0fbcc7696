"""What `bench/packing.py` works out by itself: seeds, repacking by first fit decreasing, published figures."""

import argparse
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import packing
from hami.simulate.replay import Policy, Replay
from hami.simulate.workload import Order, arrivals
from hami.vendors import registry
from tests.simulate.worlds import table


def first_fit_decreasing(shares: Counter[int]) -> int:
    """The plain rule, one share after the other, each into the tightest GPU that has room."""
    free: list[int] = []
    for size in sorted(shares.elements(), reverse=True):
        fitting = [room for room in free if room >= size]
        if fitting:
            free.remove(room := min(fitting))
            free.append(room - size)
        else:
            free.append(1000 - size)
    return len(free)


@given(st.dictionaries(st.integers(min_value=1, max_value=999), st.integers(min_value=0, max_value=12), max_size=8))
def test_bins_are_those_of_the_plain_rule(shares: dict[int, int]) -> None:
    assert packing.bins(Counter(shares)) == first_fit_decreasing(Counter(shares))


@pytest.mark.parametrize(
    ("shares", "want"),
    [
        ({}, 0),
        ({500: 4}, 2),
        ({501: 4}, 4),
        ({810: 3, 190: 3}, 3),
        ({810: 3, 191: 3}, 4),
        ({300: 7}, 3),
        ({400: -1}, 0),
    ],
)
def test_bins_by_hand(shares: dict[int, int], want: int) -> None:
    assert packing.bins(Counter(shares)) == want


@pytest.mark.parametrize(
    ("text", "want"), [("42", [42]), ("42-44", [42, 43, 44]), ("42,44-46", [42, 44, 45, 46]), ("7-7", [7])]
)
def test_seeds(text: str, want: list[int]) -> None:
    assert packing.seeds_of(text) == want


def test_seeds_come_smaller_first() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="43-42"):
        packing.seeds_of("43-42")


def test_published_figures_are_one_a_list() -> None:
    found = packing.published()
    assert set(packing.LISTS) <= set(found)
    assert found["default"] == 95.39
    assert all(80 < figure < 100 for figure in found.values())


def test_the_data_of_every_list_is_there() -> None:
    for name in packing.LISTS:
        assert (packing.DATA / f"openb_pod_list_{name}.csv.gz").stat().st_size > 0


@pytest.mark.parametrize("policy", [packing.OURS, *packing.HAMI])
def test_a_figure_is_that_of_the_run_of_its_seed(tmp_path: Path, policy: str) -> None:
    random = Random(5)
    rows = (f"p{i},10,1,1,{random.choice((190, 330, 500, 810, 1000))},,,\n" for i in range(40))
    workload = table(tmp_path, "a,99999,99999,8,G2\nb,99999,99999,4,G2\n", "".join(rows))
    for seed in (1, 2):
        found = packing.allocation(workload, seed, policy)
        tasks = arrivals(workload, Order.SHUFFLE, seed=seed, load=packing.LOAD)
        assert found == Replay(workload, registry(), Policy.parse(policy)).run(tasks).allocated
        assert 80 < found <= 100


def test_repacking_takes_all_that_fits_together(tmp_path: Path) -> None:
    workload = table(tmp_path, "a,1,1,2,G2\n", "p,0,0,1,500,,,\n" * 4)
    assert packing.repacked(workload, 1) == 100
