"""Charges put right: from the driver's figures to what a container obtains; a model of the loop by seconds."""

from collections.abc import Callable

import pytest

from hami.alloc.correction import FULL, LEAST, MOST, MOST_CHARGED_NS, Correction

S = 1_000_000_000
MS = 1_000_000


def settle(measured_by_true: Callable[[int], float], *, limit: float = 0.3, seconds: int = 30) -> list[float]:
    """What a container obtains of the device's time each second, where kernels are measured so much too long or short.

    The library charges what it measured times the factor, and lets launches go while less is owed than was earned; the
    driver tells whole percents.
    """
    correction, owed, shares = Correction(), 0.0, []
    for second in range(seconds):
        wrong = measured_by_true(second) * correction.permille / FULL
        obtained = min(1.0, max(0.0, (limit - owed) / wrong))
        owed = owed + obtained * wrong - limit
        shares.append(obtained)
        correction = correction.learn(round(obtained * 100) * 10 * MS, round(obtained * wrong * S))
        owed = max(min(owed, -limit), owed + correction.amend_ns / S)
    return shares


@pytest.mark.parametrize("wrong", [0.5, 0.8, 1.0, 1.5, 2.0, 4.0, 8.0])
@pytest.mark.parametrize("limit", [0.05, 0.3, 0.6])
def test_the_mean_comes_to_the_limit(wrong: float, limit: float) -> None:
    shares = settle(lambda _: wrong, limit=limit)
    assert sum(shares[10:]) / 20 == pytest.approx(limit, abs=0.02)


@pytest.mark.parametrize("wrong", [1.0, 1.5, 2.0])
def test_seconds_do_not_differ_once_it_has_settled(wrong: float) -> None:
    shares = settle(lambda _: wrong)
    assert max(shares[15:]) - min(shares[15:]) < 0.04


def test_better_measurements_do_not_let_it_run_away() -> None:
    """From eight times too long to exact at once, as when neighbours leave: the factor is then wrong for a while."""
    shares = settle(lambda second: 8.0 if second < 10 else 1.0)
    assert sum(share > 0.6 for share in shares[10:]) <= 2
    assert sum(shares[10:]) / 20 == pytest.approx(0.3, abs=0.05), "with what it had missed before"


def test_the_first_second_takes_back_only() -> None:
    first = Correction().learn(100 * MS, 300 * MS)
    assert (first.permille, first.amend_ns) == (FULL, 0)
    second = first.learn(150 * MS, 300 * MS)
    assert second.amend_ns == -350 * MS
    assert Correction().learn(900 * MS, 100 * MS).learn(0, 0).amend_ns == 0


@pytest.mark.parametrize("obtained_ns", [(80 * MS, 0), (0, 80 * MS)])
def test_what_comes_early_or_late_comes_out_even(obtained_ns: tuple[int, int]) -> None:
    """The driver's figure of a burst may come a second before or after its charge."""
    first = Correction(begun=True).learn(obtained_ns[0], 40 * MS)
    second = first.learn(obtained_ns[1], 40 * MS)
    assert first.amend_ns != 0
    assert first.amend_ns + second.amend_ns + second.missing_ns == 0
    assert abs(second.missing_ns) <= 20 * MS


def test_a_great_debt_is_charged_bit_by_bit_and_not_for_ever() -> None:
    correction, amended = Correction(begun=True), []
    for obtained_ns in (3 * S, 0, 0, 0, 0, 0):
        correction = correction.learn(obtained_ns, 0)
        amended.append(correction.amend_ns)
    assert amended == [MOST_CHARGED_NS] * 3 + [MOST_CHARGED_NS // 2, MOST_CHARGED_NS // 4, MOST_CHARGED_NS // 8]


@pytest.mark.parametrize(
    ("obtained_ns", "charged_ns", "permille"),
    [
        pytest.param(10 * MS, 15 * MS, FULL, id="too little to tell"),
        pytest.param(290 * MS, 300 * MS, FULL, id="rounding"),
        pytest.param(150 * MS, 300 * MS, 875, id="a quarter of the way down"),
        pytest.param(600 * MS, 300 * MS, 1250, id="a quarter of the way up"),
        pytest.param(0, 300 * MS, FULL, id="nothing obtained says nothing"),
    ],
)
def test_the_factor_follows_slowly(obtained_ns: int, charged_ns: int, permille: int) -> None:
    assert Correction(begun=True).learn(obtained_ns, charged_ns).permille == permille


def test_a_factor_that_is_not_needed_goes_within_the_drivers_doubt() -> None:
    """Eight processes, each of whose percents is rounded: charges at a factor that is wrong look right, too."""
    correction = Correction(permille=700, begun=True)
    for _ in range(5):
        correction = correction.learn(300 * MS, 300 * MS * correction.permille // FULL, doubt_ns=40 * MS)
    assert correction.permille > 980


def test_a_factor_that_is_needed_stays_at_any_doubt() -> None:
    correction = Correction(permille=500, begun=True)
    for _ in range(5):
        correction = correction.learn(300 * MS, 600 * MS * correction.permille // FULL, doubt_ns=40 * MS)
    assert 480 < correction.permille < 600


@pytest.mark.parametrize(("obtained_ns", "end"), [(30 * MS, LEAST), (900 * MS, MOST)])
def test_the_factor_has_bounds(obtained_ns: int, end: int) -> None:
    correction = Correction(begun=True)
    for _ in range(40):
        correction = correction.learn(obtained_ns, 100 * MS)
    assert correction.permille == end or correction.permille == pytest.approx(end, abs=2)


def test_other_neighbours_are_learned_anew_from_the_factor_that_was() -> None:
    settled = Correction(begun=True).learn(150 * MS, 300 * MS)
    assert settled.anew() == Correction(permille=875)
