"""Short loads on a simulated device under the agent's monitor; prints each row's device time as one JSON object.

A program of its own, because it makes the simulated NVML its process's NVML. Run: `python -m tests.interpose.share_rows
DIRECTORY`.
"""

import json
import sys
from pathlib import Path

from bench.share.loads import ASYNC_1MS, GREEDY, SYNC_1MS, SYNC_20MS, Row, Sharer
from bench.share.node import Node, simulated_device

ROWS = (
    Row(
        name="greedy",
        sharers=(Sharer(load=SYNC_20MS, cores=30), Sharer(load=GREEDY)),
        expects=(),
        seconds=9.0,
    ),
    Row(
        name="owner comes and goes",
        sharers=(
            Sharer(load=SYNC_1MS, cores=50, from_s=3.0, to_s=6.0),
            Sharer(load=ASYNC_1MS, cores=20),
            Sharer(load=ASYNC_1MS, cores=10),
        ),
        expects=(),
        seconds=8.5,
    ),
    Row(
        name="neighbour ends",
        sharers=(Sharer(load=ASYNC_1MS, cores=30), Sharer(load=ASYNC_1MS, cores=30, to_s=3.0)),
        expects=(),
        seconds=7.0,
    ),
    Row(
        name="priority",
        sharers=(Sharer(load=ASYNC_1MS), Sharer(load=SYNC_1MS, priority=0, from_s=1.0, to_s=5.5)),
        expects=(),
        seconds=7.0,
    ),
    Row(
        name="mps",
        sharers=(Sharer(load=ASYNC_1MS, mps_percent=30), Sharer(load=ASYNC_1MS, mps_percent=50)),
        expects=(),
        seconds=2.0,
        device=1,
    ),
)


def main() -> None:
    directory = Path(sys.argv[1])
    with simulated_device(directory) as device:
        node = Node(device, directory)
        with node.watching():
            print(json.dumps({row.name: node.run(row).bins for row in ROWS}))


if __name__ == "__main__":
    main()
