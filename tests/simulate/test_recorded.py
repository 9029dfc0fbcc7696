"""A recorded load of a large cluster, in the time that is promised for it."""

import time
from pathlib import Path

import pytest

from hami.simulate.files import load_workload
from hami.simulate.replay import Policy, Replay
from hami.simulate.workload import Order, arrivals
from hami.vendors import registry

DATA = Path(__file__).parents[2] / "bench" / "data" / "openb"
MOST_SECONDS = 20.0


@pytest.mark.parametrize("policy", ["binpack/spread", "fragmentation"])
def test_one_seed_of_openb_takes_less_than_twenty_seconds(policy: str) -> None:
    # Of this process: what else runs on the machine says nothing about the code.
    start = time.process_time()
    workload = load_workload(
        DATA / "openb_node_list_gpu_node.csv.gz", DATA / "openb_pod_list_default.csv.gz", registry()
    )
    tasks = arrivals(workload, Order.SHUFFLE, seed=42, load=1.3)
    outcome = Replay(workload, registry(), Policy.parse(policy)).run(tasks)
    assert time.process_time() - start < MOST_SECONDS
    assert (workload.devices, outcome.arrived) == (6212, 10772)
    assert outcome.curve[-1].offered == pytest.approx(130, abs=0.2)
    assert 90 < outcome.allocated < 100
