"""Kills at random moments leave no lost memory and no stuck lock: a short run of the bench that does a thousand."""

from pathlib import Path

from bench.kills import run


def test_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    tally = run(75, seed=2, directory=tmp_path)
    assert (tally.kills, tally.checks) == (75, 3)
    assert (tally.above_limit, tally.lost) == ([], [])
    assert tally.longest_sweep_ms < 1000
