"""The factor on charges: from the driver's figures to what a container obtains; a model of the loop by seconds."""

import pytest

from hami.alloc.correction import FULL, LEAST, MOST, Correction


def settle(measured_by_true: float, *, limit: float = 0.3, seconds: int = 12) -> list[float]:
    """What a container obtains of the device's time each second, where kernels are measured so much too long or short.

    The library charges what it measured times the factor, and holds charges to the limit; the driver tells whole
    percents.
    """
    correction, shares = Correction(), []
    for _ in range(seconds):
        obtained = min(1.0, limit / (measured_by_true * correction.permille / FULL))
        shares.append(obtained)
        correction = correction.learn(round(obtained * 100) * 10_000_000, round(limit * 1e9))
    return shares


@pytest.mark.parametrize("wrong", [0.5, 0.8, 1.0, 1.5, 2.0, 4.0, 8.0, 15.0])
@pytest.mark.parametrize("limit", [0.05, 0.3, 0.6])
def test_it_settles_at_the_limit_and_stays(wrong: float, limit: float) -> None:
    shares = settle(wrong, limit=limit)
    half_a_percent_of = max(0.03, 0.005 / (limit / wrong)) + 0.02
    assert all(abs(share - limit) <= half_a_percent_of * limit + 0.005 for share in shares[6:])


def test_it_never_swings_past_the_limit_once_settled() -> None:
    shares = settle(2.0, seconds=60)
    assert max(shares[6:]) - min(shares[6:]) < 0.01


def test_the_first_second_is_let_pass_and_made_good_later() -> None:
    first = Correction().learn(100_000_000, 300_000_000)
    assert (first.permille, first.amend_ns) == (FULL, 0)
    second = first.learn(150_000_000, 300_000_000)
    assert (second.permille, second.amend_ns) == (500, -350_000_000)
    third = second.learn(150_000_000, 150_000_000)
    assert (third.permille, third.amend_ns) == (500, 0)


def test_small_differences_are_made_good_when_they_have_summed_up() -> None:
    correction, amended = Correction(begun=True), []
    for _ in range(6):
        correction = correction.learn(294_000_000, 300_000_000)
        amended.append(correction.amend_ns)
    assert amended == [0, 0, 0, -24_000_000, 0, 0]


@pytest.mark.parametrize("obtained_ns", [(80_000_000, 0), (0, 80_000_000)])
def test_what_comes_early_or_late_comes_out_even(obtained_ns: tuple[int, int]) -> None:
    """The driver's figure of a burst may come a second before or after its charge."""
    first = Correction(begun=True).learn(obtained_ns[0], 40_000_000)
    second = first.learn(obtained_ns[1], 40_000_000)
    assert first.amend_ns == -second.amend_ns != 0
    assert second.missing_ns == 0


def test_a_great_debt_is_charged_bit_by_bit() -> None:
    correction, amended = Correction(begun=True), []
    for obtained_ns in (250_000_000, 0, 0, 0):
        correction = correction.learn(obtained_ns, 0)
        amended.append(correction.amend_ns)
    assert amended == [100_000_000, 100_000_000, 50_000_000, 0]


def test_other_neighbours_are_learned_anew_from_the_factor_that_was() -> None:
    settled = Correction(begun=True).learn(150_000_000, 300_000_000)
    assert settled.anew() == Correction(permille=500)
    assert settled.anew().learn(0, 1).permille == 500


@pytest.mark.parametrize(
    ("obtained_ns", "charged_ns", "permille"),
    [
        pytest.param(0, 500_000_000, FULL, id="the driver does not know these processes"),
        pytest.param(500_000_000, 0, FULL, id="no limit holds, so nothing is charged"),
        pytest.param(10_000_000, 15_000_000, FULL, id="too little to tell"),
        pytest.param(295_000_000, 300_000_000, FULL, id="rounding"),
        pytest.param(30_000_000, 900_000_000, LEAST, id="not below the least"),
        pytest.param(900_000_000, 100_000_000, MOST, id="not above the most"),
        pytest.param(-5, -5, FULL, id="counters that went back"),
    ],
)
def test_one_second(obtained_ns: int, charged_ns: int, permille: int) -> None:
    assert Correction(begun=True).learn(obtained_ns, charged_ns).permille == permille
