"""`hami run` killed at each of its steps: nothing stays held, nothing is left, and the next program gets everything."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interpose.simulation import Simulation

SCRIPT = Path(__file__).with_name("killed_at_every_step.py")


@pytest.mark.parametrize("mode", ["run", "wait"])
def test_a_death_at_any_step_leaves_nothing(tmp_path: Path, mode: str) -> None:
    machine = Simulation(tmp_path)
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(ledger), str(machine.state), mode],
        cwd=SCRIPT.parents[2],
        env={"PYTHONPATH": str(SCRIPT.parents[2]), **machine.environment()},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["left"] == {}
    # The last one lived: every step before it was tried. Fewer would mean that the steps are not seen.
    assert 10 < said["steps"] < 400
