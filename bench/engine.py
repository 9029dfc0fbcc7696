"""Time of one decision in the engine, without HTTP or JSON, against nodes and shapes of request; and of one pod event.

    python -m bench.engine                   every size; writes bench/results/engine-<date>.json and prints a table
    python -m bench.engine --nodes 1000      one size
    python -m bench.engine --json            one JSON object on the last line

Nodes have eight cards and ten pods each, on random cards. Candidates are given by name, as a filter has them.
"""

import argparse
import datetime
import gc
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.filter import machine, percentile
from hami.alloc.ledger import Ledger
from hami.alloc.place import place
from hami.model.claim import ContainerNeed, Memory, Mib, Need, Percent, PodRecord, PodRequest, Role, Selection, Share
from hami.model.device import Device, Links, NodeInventory, NodeRecord
from hami.model.names import DeviceUuid, NodeName, PodKey, PodUid
from hami.vendors import registry
from hami.vendors.nvidia import NVIDIA

RESULTS = Path(__file__).parent / "results"
SIZES = (10, 100, 1_000, 5_000)
CARDS = 8
PODS_A_NODE = 10
ROUNDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One shape at one size; times in microseconds."""

    case: str
    nodes: int
    pods: int
    fitting: int
    p50_us: float
    p99_us: float
    ns_a_node: float
    """Of the median, divided by the nodes."""


def cluster(nodes: int) -> Ledger:
    """The same cluster for every run of a size."""
    pick = random.Random(nodes)
    ledger = Ledger(registry())
    for n in range(nodes):
        uuids = [DeviceUuid(f"GPU-{n:05d}-{i}") for i in range(CARDS)]
        devices = tuple(
            Device(uuid=u, index=i, slots=10, memory_mib=81920, cores=100, model="NVIDIA A100-SXM4-80GB", numa=i // 4)
            for i, u in enumerate(uuids)
        )
        rows = (
            (a, tuple((b, 400 if i // 4 == j // 4 else 20) for j, b in enumerate(uuids) if i != j))
            for i, a in enumerate(uuids)
        )
        inventory = NodeInventory(vendor=NVIDIA.name, devices=devices, links=Links(scores=tuple(rows)))
        ledger.put_node(NodeRecord(name=NodeName(f"node-{n:05d}"), inventories=(inventory,)))
        for p in range(PODS_A_NODE):
            ledger.put_pod(
                running(f"{n}-{p}", n, pick.randrange(CARDS), pick.choice((1000, 4000, 16000)), pick.choice((0, 10)))
            )
    return ledger


def running(uid: str, node: int, card: int, memory_mib: int, cores: int) -> PodRecord:
    share = Share(uuid=DeviceUuid(f"GPU-{node:05d}-{card}"), kind=NVIDIA.name, memory_mib=memory_mib, cores=cores)
    return PodRecord(
        uid=PodUid(uid),
        key=PodKey("bench", uid),
        node=NodeName(f"node-{node:05d}"),
        roles=(Role.APP,),
        segments={NVIDIA.name: ((share,),)},
    )


def ask(memory: Memory, cores: int = 0, count: int = 1, containers: int = 1, numa_bind: bool = False) -> PodRequest:
    need = Need(vendor=NVIDIA.name, count=count, memory=memory, cores=cores)
    return PodRequest(
        uid=PodUid("new"),
        key=PodKey("bench", "new"),
        containers=tuple(ContainerNeed(name=f"c{i}", role=Role.APP, needs=(need,)) for i in range(containers)),
        selections={NVIDIA.name: Selection(numa_bind=numa_bind)},
    )


SHAPES: Mapping[str, tuple[PodRequest, str]] = {
    "one share": (ask(Mib(3000), 30), "spread"),
    "eight shares": (ask(Mib(3000), 10, 8), "spread"),
    "a whole card": (ask(Percent(100), 100), "binpack"),
    "fits nowhere": (ask(Mib(90000)), "spread"),
    "two containers": (ask(Mib(3000), 10, containers=2), "binpack"),
    "four on a NUMA node": (ask(Mib(3000), 10, 4, numa_bind=True), "spread"),
    "four best connected": (ask(Mib(3000), 10, 4), "topology-aware"),
}


def timed(call: Callable[[], object]) -> list[float]:
    """Microseconds of each of `ROUNDS` calls, after a few that warm up."""
    times = []
    for _ in range(5):
        call()
    gc.disable()
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - start) / 1000)
    gc.enable()
    return times


def result(case: str, nodes: int, fitting: int, times: list[float]) -> Result:
    middle = percentile(times, 50)
    return Result(
        case=case,
        nodes=nodes,
        pods=nodes * PODS_A_NODE,
        fitting=fitting,
        p50_us=round(middle, 1),
        p99_us=round(percentile(times, 99), 1),
        ns_a_node=round(middle * 1000 / nodes, 1),
    )


def run(nodes: int) -> list[Result]:
    ledger = cluster(nodes)
    names = [f"node-{n:05d}" for n in range(nodes)]
    results = []
    for case, (request, policy) in SHAPES.items():

        def decide(request: PodRequest = request, policy: str = policy) -> int:
            verdict = place(ledger, request, names, node_policy="binpack", card_policy=policy)
            return nodes - len(verdict.refusals)

        results.append(result(case, nodes, decide(), timed(decide)))
    event = running("event", nodes - 1, 0, 1000, 0)

    def come_and_go() -> None:
        ledger.put_pod(event)
        ledger.drop_pod(event.uid)

    results.append(result("a pod comes and goes", nodes, 0, timed(come_and_go)))
    ledger.check()
    return results


def show(results: list[Result]) -> None:
    table = Table(title="one decision of the engine", title_justify="left")
    for column in ("case", "nodes", "pods", "fitting", "p50 µs", "p99 µs", "ns a node"):
        table.add_column(column, justify="left" if column == "case" else "right", no_wrap=True)
    for row in results:
        table.add_row(
            row.case,
            f"{row.nodes:,}",
            f"{row.pods:,}",
            f"{row.fitting:,}",
            f"{row.p50_us:,.1f}",
            f"{row.p99_us:,.1f}",
            f"{row.ns_a_node:,.1f}",
        )
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, action="append", help="sizes instead of the usual ones")
    parser.add_argument("--json", action="store_true", help="print one JSON object last, and write no file")
    options = parser.parse_args()
    about = machine()
    results = [row for nodes in options.nodes or SIZES for row in run(nodes)]
    show(results)
    document = json.dumps({"machine": about, "results": [asdict(row) for row in results]})
    if options.json:
        print(document)
        return
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"engine-{datetime.date.today().isoformat()}.json"
    path.write_text(document + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
