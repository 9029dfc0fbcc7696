"""Shares under the whole of it: programs, the library, regions, the agent's monitor, the driver's figures.

Device time is the simulated machine's, on the real clock, and this machine may be busy: bounds are wide. What the
method reaches on a quiet machine is `bench/share`'s to say.
"""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench.share.controllers import CONTROLLERS, LOADS, simulate
from bench.share.loads import LONG_500MS, ROWS, SYNC_1MS, Expect, Kind, Row, Sharer
from bench.share.node import BIN_S, Outcome
from bench.share.plots import alone, together
from bench.share.verdict import judge, least_off, windows

ROOT = Path(__file__).resolve().parents[2]
Bins = tuple[float, ...]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Bins]]:
    """Device time of each container by row."""
    directory = tmp_path_factory.mktemp("share")
    command = [sys.executable, "-m", "tests.interpose.share_rows", str(directory)]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert out.returncode == 0, out.stderr
    return {row: [tuple(bins) for bins in containers] for row, containers in json.loads(out.stdout).items()}


def _share(bins: Bins, from_s: float, to_s: float) -> float:
    return windows(bins, from_s, to_s, to_s - from_s)[0]


def test_kernels_of_ten_turns_beside_a_greedy_neighbour(measured: dict[str, list[Bins]]) -> None:
    """Timed, each seems to take twice as long; without the node side this container would obtain half its share."""
    limited, greedy = measured["greedy"]
    assert _share(limited, 5, 9) == pytest.approx(30, abs=6)
    assert _share(greedy, 5, 9) > 55


def test_what_an_owner_leaves_is_lent_and_comes_back_at_once(measured: dict[str, list[Bins]]) -> None:
    owner, one, other = measured["owner comes and goes"]
    assert _share(one, 1.5, 3) == pytest.approx(64, abs=6), "96 points in proportion to 20 and 10"
    assert _share(other, 1.5, 3) == pytest.approx(32, abs=5)
    assert min(windows(owner, 3.3, 5.8)) > 44, "the owner has its 50 after 0.3 s"
    assert _share(one, 3.5, 6) == pytest.approx(24, abs=5), "16 points are left over all the same"
    assert _share(one, 7.5, 8.5) == pytest.approx(64, abs=6)


def test_a_share_that_nobody_uses_goes_to_who_is_there(measured: dict[str, list[Bins]]) -> None:
    stays, ends = measured["neighbour ends"]
    assert _share(stays, 1.5, 3) == pytest.approx(48, abs=6), "30 each, and 36 that are left over"
    assert _share(ends, 1.5, 3) == pytest.approx(48, abs=6)
    assert _share(stays, 6, 7) > 60, "limits rest two seconds after the neighbour's last launch"


def test_low_priority_stops_and_goes_on(measured: dict[str, list[Bins]]) -> None:
    low, high = measured["priority"]
    assert _share(low, 0.2, 1) > 60
    assert _share(low, 1.6, 5.5) < 10
    assert _share(high, 1.6, 5.5) > 50
    assert _share(low, 6.2, 7) > 60


def test_under_mps_thread_percentages_hold(measured: dict[str, list[Bins]]) -> None:
    shares = [_share(bins, 0.5, 2) for bins in measured["mps"]]
    assert shares == [pytest.approx(30, abs=4), pytest.approx(50, abs=6)]


# ---- what the bench makes of it


def _bins(*percents: float) -> Bins:
    """Ten bins for each percentage."""
    return tuple(percent / 100 * BIN_S * 1e9 for percent in percents for _ in range(10))


def _row(expect: Expect, *sharers: Sharer, seconds: float = 2.0) -> Row:
    return Row(name="row", sharers=sharers or (Sharer(load=SYNC_1MS),), expects=(expect,), seconds=seconds)


@pytest.mark.parametrize(
    ("expect", "percents", "off", "verdict"),
    [
        pytest.param(Expect(sharer=0, percent=30, from_s=0), [30] * 20, 0, "met", id="held"),
        pytest.param(Expect(sharer=0, percent=30, from_s=0), [20] * 10 + [40] * 10, 10, "failed", id="swings"),
        pytest.param(
            Expect(sharer=0, kind=Kind.MEAN, percent=30, from_s=0), [20] * 10 + [40] * 10, 0, "met", id="mean"
        ),
        pytest.param(Expect(sharer=0, kind=Kind.AT_LEAST, percent=90, from_s=0), [95] * 20, 0, "met", id="at least"),
        pytest.param(
            Expect(sharer=0, kind=Kind.AT_LEAST, percent=90, from_s=0),
            [87.7] * 20,
            2.3,
            "missed by less than 20 %",
            id="short of it",
        ),
        pytest.param(
            Expect(sharer=0, kind=Kind.NEVER_BELOW, percent=30, from_s=0),
            [40] * 5 + [29] * 10 + [40] * 5,
            1,
            "met",
            id="the poorest second, between two",
        ),
        pytest.param(Expect(sharer=0, kind=Kind.STEADY, from_s=0), [20] * 10 + [30] * 10, 5, "failed", id="not steady"),
        pytest.param(Expect(sharer=0, percent=30, from_s=1), [90] * 10 + [30] * 10, 0, "met", id="after settling"),
    ],
)
def test_how_far_off(expect: Expect, percents: list[float], off: float, verdict: str) -> None:
    (judged,) = judge(_row(expect), Outcome(bins=(_bins(*percents),)))
    assert judged.off == pytest.approx(off)
    assert judged.verdict == verdict


@pytest.mark.parametrize(
    ("percent", "kernel_ms", "points"),
    [
        pytest.param(12, 20, 0, id="six kernels"),
        pytest.param(15, 20, 1, id="seven or eight, half the time each"),
        pytest.param(14.5, 20, 0.75, id="one quarter of the time seven"),
        pytest.param(30, 500, 24, id="one now and then"),
        pytest.param(30, 1, 0, id="many"),
    ],
)
def test_what_whole_kernels_cost(percent: float, kernel_ms: int, points: float) -> None:
    assert least_off(percent, kernel_ms * 1_000_000) == pytest.approx(points)


def test_no_target_is_below_what_whole_kernels_cost() -> None:
    long = Sharer(load=LONG_500MS)
    (judged,) = judge(_row(Expect(sharer=0, percent=30, from_s=0), long), Outcome(bins=(_bins(*[30] * 20),)))
    assert judged.target == pytest.approx(24)
    assert judged.least == pytest.approx(24)


def test_when_one_stops_and_resumes() -> None:
    high = Sharer(load=SYNC_1MS, priority=0, from_s=0.5, to_s=1.5)
    low = _bins(*[100] * 5, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 100, 100, 100)  # a trace of 2 % is no work
    stops, resumes = (
        judge(_row(Expect(sharer=0, kind=kind, after=1, target=200), high, high), Outcome(bins=(low, low)))[0]
        for kind in (Kind.STOPS, Kind.RESUMES)
    )
    assert [stops.off, resumes.off] == [pytest.approx(100), pytest.approx(210)]
    assert [stops.verdict, resumes.verdict] == ["met", "missed by less than 20 %"]


@pytest.mark.parametrize("limit", [20, 50, 80])
@pytest.mark.parametrize("load", LOADS)
def test_the_bucket_holds_every_load_in_its_model(load: str, limit: float) -> None:
    bins = simulate(CONTROLLERS["bucket"](limit), LOADS[load], 20.0)
    assert sum(bins) / 20e7 == pytest.approx(limit, abs=2.5 if "500" in load else 0.5)


@pytest.mark.parametrize("name", ["delta", "aimd", "pid"])
def test_others_let_graphs_pass(name: str) -> None:
    bins = simulate(CONTROLLERS[name](20), LOADS["8 ms graph replays"], 5.0)
    assert sum(bins) / 5e7 > 95


def test_plots_are_svg_with_a_panel_a_row() -> None:
    outcomes = {row.name: Outcome(bins=tuple(_bins(*[50] * 200) for _ in row.sharers)) for row in ROWS}
    beside = [row for row in ROWS if row.plot]
    several = [row for row in ROWS if sum(sharer.processes for sharer in row.sharers) > 1]
    for figure, rows in ((alone, beside), (together, several)):
        root = ET.fromstring(figure(ROWS, outcomes, "simulated <device>"))
        texts = [text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text")]
        assert "simulated <device>" in texts[0]
        assert [row.name[:40] for row in rows if any(text.startswith(row.name[:40]) for text in texts)] == [
            row.name[:40] for row in rows
        ]
