"""What `bench/hooks` promises beside figures: no overshoot, no memory lost with the dead, no noise; its verdicts."""

from pathlib import Path

import pytest

from bench.hooks import promises, starts
from bench.hooks.programs import Programs, Row, compare, count
from tests.interpose.container import LIBRARY


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return Programs(Path(tmp_path_factory.mktemp("hooks")), LIBRARY)


def test_promises_are_kept(programs: Programs) -> None:
    rows = list(promises.rows(programs))
    assert [row.item for row in rows if row.verdict != "met"] == []
    assert len(rows) == 5


def test_starts_are_measured_with_and_without(programs: Programs) -> None:
    rows = list(starts.rows(programs, suites=1))
    assert [row.unit for row in rows] == ["us", "us", "ms"]
    for row in rows:
        assert row.native is not None
        assert 0 < row.least <= row.hooked <= row.most


@pytest.mark.parametrize(
    ("hooked", "verdict"), [(150.0, "met"), (159.0, "missed by less than 20 %"), (161.0, "failed")]
)
def test_verdicts(hooked: float, verdict: str) -> None:
    row = compare("call", [99.0, 100.0, 150.0], [hooked, hooked - 1, hooked + 80], 50.0, "ns")
    assert (row.added, row.verdict) == (hooked - 100, verdict)


def test_one_bad_count_is_enough() -> None:
    row: Row = count("over the limit", [0.0, 0.0, 16.0], 0.0, "MiB")
    assert (row.hooked, row.added, row.verdict) == (0.0, 16.0, "failed")
