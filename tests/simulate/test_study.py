"""Runs side by side: means, spreads and curves of several seeds."""

import pytest

from hami.simulate.files import Source
from hami.simulate.replay import Outcome, Sample
from hami.simulate.study import Group, Run, Spread, Study, spans
from hami.simulate.workload import Order, Workload


def sample(offered: float, allocated: float, at: float | None = None) -> Sample:
    return Sample(at=at, offered=offered, allocated=allocated, fragments=0, unplaced=0)


def run(*curve: Sample, policy: str = "binpack", seed: int | None = 1) -> Run:
    outcome = Outcome(
        arrived=len(curve),
        placed=len(curve),
        refused=0,
        bound=0,
        allocated=curve[-1].allocated if curve else 0,
        fragments=0,
        peak=0,
        mean=None,
        curve=curve,
        models={},
        unplaced=(),
    )
    return Run(policy=policy, seed=seed, seconds=1, outcome=outcome)


def study(*runs: Run, order: Order = Order.SHUFFLE) -> Study:
    empty = Workload(nodes=(), sites=(), tasks=(), bound=(), refused=(), problems=(), devices=1)
    return Study(
        command="hami simulate",
        version="1",
        sources=(Source(path="n", sha256=""), Source(path="p", sha256="")),
        workload=empty,
        order=order,
        load=None,
        runs=runs,
    )


def test_a_spread_of_seeds() -> None:
    found = Spread.of([1.0, 2.0, 6.0])
    assert (found.mean, found.low, found.high) == (3.0, 1.0, 6.0)
    assert found.deviation == pytest.approx(2.6457513)
    assert Spread.of([4.0]) == Spread(mean=4.0, low=4.0, high=4.0, deviation=None)


def test_runs_are_grouped_by_policy_in_their_order() -> None:
    found = study(run(policy="b", seed=2), run(policy="a", seed=2), run(policy="b", seed=3))
    assert [(group.policy, [each.seed for each in group.runs]) for group in found.groups] == [("b", [2, 3]), ("a", [2])]
    assert found.seeds == (2, 3)


@pytest.mark.parametrize(("seeds", "want"), [([], ""), ([4], "4"), ([4, 5], "4-5"), ([1, 3, 4, 5, 9, 8], "1,3-5,9,8")])
def test_seeds_are_written_as_they_are_given(seeds: list[int], want: str) -> None:
    assert spans(seeds) == want


def test_one_seed_keeps_its_points() -> None:
    group = Group(policy="p", runs=(run(sample(0, 0), sample(10, 9)),))
    points = group.curve(lambda each: each.allocated, timed=False)
    assert [(p.x, p.mean, p.low, p.high) for p in points] == [(0, 0, 0, 0), (10, 9, 9, 9)]


def test_seeds_meet_where_all_of_them_went() -> None:
    group = Group(
        policy="p",
        runs=(run(sample(0, 0), sample(100, 80)), run(sample(2, 2), sample(52, 52), sample(104, 60))),
    )
    points = group.curve(lambda each: each.allocated, timed=False)
    assert (points[0].x, points[-1].x) == (2, 100)
    assert [points[0].mean, points[0].low, points[0].high] == pytest.approx([1.8, 1.6, 2.0])
    last = 52 + 8 * 48 / 52
    assert [points[-1].mean, points[-1].low, points[-1].high] == pytest.approx([(80 + last) / 2, last, 80])
    assert all(point.low <= point.mean <= point.high for point in points)


def test_values_at_a_load() -> None:
    group = Group(policy="p", runs=(run(sample(0, 0), sample(50, 50), sample(50, 50), sample(100, 70)),))
    assert [group.at_load(load) for load in (0, 25, 50, 75, 100)] == pytest.approx([0, 25, 50, 60, 70])
    assert group.at_load(100.1) is None


def test_loads_worth_comparing_are_those_all_runs_reached() -> None:
    assert study(run(sample(20, 0), sample(95, 0)), run(sample(0, 0), sample(140, 0))).loads == (25, 50, 70, 80, 90, 95)
    assert study(run(sample(0, 0, 0), sample(95, 0, 9)), order=Order.TIME).loads == ()
    assert study(run()).loads == ()


def test_curves_over_time() -> None:
    group = Group(policy="p", runs=(run(sample(7, 1, 0.0), sample(3, 2, 60.0)),))
    assert [(p.x, p.mean) for p in group.curve(lambda each: each.offered, timed=True)] == [(0, 7), (60, 3)]
