"""Single compute units of a device: first come, first served, to nobody twice, also over restarts."""

import random
from pathlib import Path

import pytest

from hami.agent.compute_units import FILE, ComputeUnits
from hami.model.names import DeviceUuid, PodUid

GPU = DeviceUuid("GPU-1")
A, B, C = ((PodUid(name), 0) for name in "abc")


def test_the_first_units_that_nobody_has(tmp_path: Path) -> None:
    units = ComputeUnits(tmp_path)
    assert units.choose(GPU, 2, 8, A) == (0, 1)
    assert units.choose(GPU, 3, 8, B) == (2, 3, 4)
    assert units.choose(DeviceUuid("GPU-2"), 3, 8, B) == (0, 1, 2)
    units.keep({PodUid("b")})
    assert units.choose(GPU, 4, 8, C) == (0, 1, 5, 6)


def test_who_asks_again_gives_up_what_it_had(tmp_path: Path) -> None:
    units = ComputeUnits(tmp_path)
    units.choose(GPU, 8, 8, A)
    assert units.choose(GPU, 2, 8, A) == (0, 1)
    assert units.choose(GPU, 2, 8, B) == (2, 3)


def test_what_has_ended_does_not_count(tmp_path: Path) -> None:
    units = ComputeUnits(tmp_path)
    units.choose(GPU, 8, 8, A)
    assert units.choose(GPU, 2, 8, (A[0], 1), ended=[A]) == (0, 1)
    assert units.choose(GPU, 2, 8, (A[0], 2), ended=[A]) == (2, 3)


@pytest.mark.parametrize(
    ("want", "total", "chosen"),
    [
        (1, 8, (0, 1)),
        (2, 8, (0, 1)),
        (5, 8, (0, 1, 2, 3)),
        (8, 8, tuple(range(8))),
        (7, 7, tuple(range(7))),
        (6, 7, tuple(range(6))),
        (9, 8, tuple(range(8))),
    ],
)
def test_pairs(tmp_path: Path, want: int, total: int, chosen: tuple[int, ...]) -> None:
    assert ComputeUnits(tmp_path).choose(GPU, want, total, A, pairs=True) == chosen


def test_where_nothing_is_free_somebody_shares_the_least_used(tmp_path: Path) -> None:
    """A container without units could not run at all."""
    units = ComputeUnits(tmp_path)
    units.choose(GPU, 2, 2, A)
    assert units.choose(GPU, 2, 2, B) == (0,)
    assert units.choose(GPU, 2, 2, C) == (1,)


def test_they_outlive_the_agent(tmp_path: Path) -> None:
    first = ComputeUnits(tmp_path / "later")
    first.choose(GPU, 2, 8, A)
    first.choose(GPU, 2, 8, C)
    first.save()
    second = ComputeUnits(tmp_path / "later")
    assert second.held() == first.held() == {GPU: {A: (0, 1), C: (2, 3)}}
    assert second.choose(GPU, 1, 8, B) == (4,)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"GPU-1": []}', '{"GPU-1": {"a/x": [0]}}', '{"GPU-1": {"a/0": 1}}', "\xff"]
)
def test_another_file_is_told_and_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    (tmp_path / FILE).write_text(text, encoding="latin-1")
    units = ComputeUnits(tmp_path)
    assert units.held() == {}
    assert "may be given units of older ones" in caplog.text
    units.choose(GPU, 1, 8, A)
    units.save()
    assert ComputeUnits(tmp_path).held() == {GPU: {A: (0,)}}


@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
@pytest.mark.parametrize("seed", range(20))
def test_shares_that_fit_never_overlap(tmp_path: Path, seed: int, pairs: bool) -> None:
    """Pods come and go at random; what was booked never exceeds the device, as the scheduler sees to it."""
    rng = random.Random(seed)
    units, total = ComputeUnits(tmp_path), rng.choice((32, 60, 96, 304))
    booked: dict[str, int] = {}
    for i in range(60):
        if booked and rng.random() < 0.4:
            del booked[rng.choice(list(booked))]
            units.keep({PodUid(name) for name in booked})
        free = total - sum(booked.values())
        # A single unit is booked as one and takes two, so the smallest share here is a pair.
        want = rng.randint(2 if pairs else 1, max(2, free))
        if want > free:
            continue
        booked[str(i)] = want
        chosen = units.choose(GPU, want, total, (PodUid(str(i)), 0), pairs=pairs)
        assert len(chosen) == (want - want % 2 if pairs else want)
        taken = [unit for mine in units.held()[GPU].values() for unit in mine]
        assert len(taken) == len(set(taken))
