"""Who is lent what: single looks by hand, and whole stories on a device that is played in small steps."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import pytest

from hami.alloc.lending import HEADROOM, Demand, lend

LOOK_S: Final = 0.05
LENDABLE: Final = 100 - HEADROOM


def _demand(limit: int, **more: float | bool | None) -> Demand:
    """A container that has been there for a while."""
    return replace(Demand(limit=limit, since_s=-10.0, risen_s=-10.0), **more)  # type: ignore[arg-type]


def _busy(limit: int, loan: float = 90.0) -> Demand:
    """One that its limit holds back now, and that had a loan as large as any."""
    return _demand(limit, use=limit, most=limit, held_s=0.0, loan=loan)


def _light(limit: int, use: float) -> Demand:
    return _demand(limit, use=use, most=use)


@pytest.mark.parametrize(
    ("demands", "loans"),
    [
        pytest.param([_busy(30), _busy(30), _busy(20)], [6, 6, 4], id="what all leave, by their limits"),
        pytest.param([_busy(30), _busy(70)], [0, 0], id="nothing left"),
        pytest.param([_busy(60), _busy(60)], [0, 0], id="more promised than there is"),
        pytest.param([_light(60, 20), _busy(20)], [0, 49], id="an owner keeps 1.15 of what it uses, and 4"),
        pytest.param([_light(60, 50), _busy(20)], [0, 16], id="or all of it"),
        pytest.param([_light(60, 0), _busy(30), _busy(10)], [0, 42, 14], id="one that does nothing keeps nothing"),
        pytest.param([_busy(20), _demand(40, use=40, most=40, borrows=False)], [36, 0], id="force borrows nothing"),
        pytest.param(
            [_demand(20, use=30, most=30, loan=50), _busy(20)], [18.5, 37.5], id="one takes what it can use only"
        ),
        pytest.param([_busy(20, loan=1), _light(60, 6)], [3.5, 0], id="loans grow slowly"),
        pytest.param([_demand(60, risen_s=-0.4), _busy(20)], [0, 16], id="one that has just risen keeps all"),
        pytest.param([], [], id="nobody"),
    ],
)
def test_loans(demands: list[Demand], loans: list[float]) -> None:
    assert [demand.loan for demand in lend(demands, 0.0, LOOK_S)] == pytest.approx(loans)


def test_one_kernel_now_and_then_is_no_rise() -> None:
    demand = _light(50, 0)
    for look in range(100):
        used_ns = 20_000_000 if look % 30 == 0 else 0
        demand = demand.seen(look * LOOK_S, LOOK_S, used_ns=used_ns, waited_ns=0, waiting=False)
        assert demand.kept(look * LOOK_S) < 20


def test_work_in_two_looks_is_one() -> None:
    demand = _light(50, 0)
    for look in (1, 2):
        demand = demand.seen(look * LOOK_S, LOOK_S, used_ns=10_000_000, waited_ns=0, waiting=False)
    assert demand.kept(0.1) == 50


def test_charges_that_are_taken_back() -> None:
    demand = _light(50, 3).seen(0.0, LOOK_S, used_ns=-40_000_000, waited_ns=0, waiting=False)
    assert demand.use == 0


# ---- a device, and what its containers ask of it


@dataclass
class Played:
    """One container. `asks(t)`: percent of the device that it would use if nothing held it back."""

    limit: int
    asks: Callable[[float], float]
    borrows: bool = True
    had: list[float] = field(default_factory=list)
    """Percent that it obtained, step by step."""
    loans: list[float] = field(default_factory=list)


def _turns(asked: Sequence[float]) -> list[float]:
    """What a device gives in turns: to each what it asks; where that is too much, equal parts to the greedy ones."""
    given = [0.0] * len(asked)
    left, hungry = 100.0, [i for i, ask in enumerate(asked) if ask > 0]
    while hungry:
        part = left / len(hungry)
        small = [i for i in hungry if asked[i] <= part]
        for i in small or hungry:
            given[i] = min(asked[i], part)
            left -= given[i]
        hungry = [i for i in hungry if small and i not in small]
    return given


def _play(containers: Sequence[Played], seconds: float) -> None:
    demands = [Demand(limit=each.limit, borrows=each.borrows, since_s=0.0, risen_s=0.0) for each in containers]
    for step in range(round(seconds / LOOK_S)):
        now_s = step * LOOK_S
        asks = [each.asks(now_s) for each in containers]
        most = [demand.limit + int(demand.loan) for demand in demands]
        given = _turns([min(ask, bound) for ask, bound in zip(asks, most, strict=True)])
        for each, percent, demand in zip(containers, given, demands, strict=True):
            each.had.append(percent)
            each.loans.append(demand.loan)
        seen = [
            demand.seen(
                now_s + LOOK_S,
                LOOK_S,
                used_ns=round(percent * LOOK_S * 1e7),
                waited_ns=round(LOOK_S * 1e9 / 2) if ask > bound and percent > bound - 0.1 else 0,
                waiting=False,
            )
            for demand, ask, bound, percent in zip(demands, asks, most, given, strict=True)
        ]
        demands = list(lend(seen, now_s + LOOK_S, LOOK_S))


def _mean(values: Sequence[float], from_s: float, to_s: float) -> float:
    part = values[round(from_s / LOOK_S) : round(to_s / LOOK_S)]
    return sum(part) / len(part)


def test_all_at_work_share_what_is_left() -> None:
    containers = [Played(limit, lambda _: 100) for limit in (30, 30, 20)]
    _play(containers, 5)
    assert [_mean(each.had, 3, 5) for each in containers] == pytest.approx([36, 36, 24])


def test_an_owner_comes_back() -> None:
    owner = Played(60, lambda t: 100 if t >= 3 else 5)
    borrower = Played(20, lambda _: 100)
    _play([owner, borrower], 6)
    assert _mean(borrower.had, 2, 3) > 80
    assert min(owner.had[round(3.2 / LOOK_S) :]) >= 60
    assert _mean(borrower.had, 4, 6) >= 20


def test_an_owner_whose_wish_grows_is_not_kept_small() -> None:
    """It asks a little more at a time, beside one that takes all it can get."""
    owner = Played(60, lambda t: min(60.0, 5 + 4 * t))
    _play([owner, Played(30, lambda _: 100)], 20)
    for second in range(20):
        assert _mean(owner.had, second, second + 1) > owner.asks(second) - 2


@pytest.mark.parametrize("seed", range(20))
def test_whatever_containers_ask(seed: int) -> None:
    """Who asks for its limit has it 0.3 s later, what is lent settles, and little is left unused."""
    rng = random.Random(seed)
    count = rng.randint(2, 8)
    limits = [rng.randint(2, 100 // count) for _ in range(count)]
    phases = [[rng.choice((0.0, rng.uniform(0, limit), 100.0)) for _ in range(4)] for limit in limits]
    containers = [
        Played(limit, lambda t, asks=asks: asks[int(t / 4)], borrows=rng.random() > 0.2)  # type: ignore[misc]
        for limit, asks in zip(limits, phases, strict=True)
    ]
    _play(containers, 16)
    for phase in range(4):
        begun, ends = 4.0 * phase, 4.0 * phase + 4
        borrowers_ask = 0.0
        for each, asks in zip(containers, phases, strict=True):
            wish = min(asks[phase], each.limit)
            assert min(each.had[round((begun + 0.3) / LOOK_S) : round(ends / LOOK_S)]) >= wish - 0.1, (seed, phase)
            late = each.loans[round((begun + 3) / LOOK_S) : round(ends / LOOK_S)]
            assert max(late) - min(late) < 1.5, (seed, phase, each.limit)
            borrowers_ask += asks[phase] if each.borrows else wish
        kept = sum(min(each.limit, asks[phase] * 0.15 + 4) for each, asks in zip(containers, phases, strict=True))
        used = sum(_mean(each.had, begun + 3, ends) for each in containers)
        assert used >= min(borrowers_ask, LENDABLE) - kept - count, (seed, phase)
