"""Time of one decision in the engine, without HTTP or JSON, against nodes and shapes of request; and of one pod event.

    python -m bench.engine               every size; prints a table, writes bench/results/engine-<date>.json and .svg
    python -m bench.engine --nodes 1000  one size
    python -m bench.engine --json        one JSON object on the last line

Three kinds of nodes, each filled to about 70 %: eight cards in two NVLink quads, shared by software limits; sixteen
such cards in four; eight cards in MIG mode. Every node is a candidate. A decision is the whole call: the request packed
for the engine, every node looked at and ranked, the winner's cards chosen and made into an assignment.

Beside it stands a plain C loop, compiled with the engine's own flags and called from Python in the same run: it goes
over the same columns of every card of every node, compares free memory with what is asked, and counts the nodes with
enough such cards. It looks at nothing else (health, sharers, cores, models, links, slices), ranks nothing and chooses
nothing. Both are called again and again over the same columns, so caches are warm for both. Of a decision the next one
uses the packed request, as the pods of one workload do (`asked for the first time` is without that), and the order in
which nodes were named; what nodes answered is worked out anew each time. The least of three medians counts, because
other programs of the machine only ever add.
"""

import argparse
import ctypes
import datetime
import gc
import json
import math
import random
import shutil
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.filter import machine, percentile
from hami.alloc.ledger import Ledger
from hami.alloc.place import place, place_on
from hami.model.claim import (
    Assignment,
    ContainerNeed,
    Memory,
    Mib,
    Need,
    Percent,
    Placed,
    PodRecord,
    PodRequest,
    Refused,
    Role,
    Selection,
    Share,
)
from hami.model.device import HAMI_CORE, MIG, Device, Links, MigProfile, NodeInventory, NodeRecord
from hami.model.mig import identify
from hami.model.names import DeviceUuid, NodeName, PodKey, PodUid
from hami.vendors import registry
from hami.vendors.nvidia import NVIDIA

RESULTS = Path(__file__).parent / "results"
SIZES = (10, 100, 1_000, 5_000)
ROUNDS = 300
RUNS = 3
LOAD = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One kind of request on one kind of node."""

    name: str
    nodes: str
    """`shared`, `sixteen` or `mig`."""
    request: PodRequest
    policy: str = "spread"
    named: bool = False
    """Candidates are given by name, as a filter has them."""
    first: bool = False
    """No pod has asked for just this before."""
    limit_us: Mapping[int, float]
    """The most that the median may take, by number of nodes: what this project set itself for one core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One shape at one size; times in microseconds."""

    case: str
    nodes: int
    devices: int
    fitting: int
    p50_us: float
    p99_us: float
    ns_a_node: float
    """Of the median, divided by the nodes."""
    loop_us: float
    """Median of the plain loop over the same cards."""
    limit_us: float | None


def ask(memory: Memory, cores: int = 0, count: int = 1, containers: int = 1, numa_bind: bool = False) -> PodRequest:
    need = Need(vendor=NVIDIA.name, count=count, memory=memory, cores=cores)
    return PodRequest(
        uid=PodUid("new"),
        key=PodKey("bench", "new"),
        containers=tuple(ContainerNeed(name=f"c{i}", role=Role.APP, needs=(need,)) for i in range(containers)),
        selections={NVIDIA.name: Selection(numa_bind=numa_bind)},
    )


SHAPES: Sequence[Shape] = (
    Shape(name="one share", nodes="shared", request=ask(Mib(3000), 10), limit_us={5_000: 150}),
    Shape(name="one share, nodes by name", nodes="shared", request=ask(Mib(3000), 10), named=True, limit_us={}),
    Shape(
        name="one share, asked for the first time", nodes="shared", request=ask(Mib(3000), 10), first=True, limit_us={}
    ),
    Shape(name="four shares", nodes="shared", request=ask(Mib(3000), 10, 4), limit_us={}),
    Shape(
        name="four best linked",
        nodes="shared",
        request=ask(Mib(3000), 10, 4),
        policy="topology-aware",
        limit_us={5_000: 400},
    ),
    Shape(name="a whole card", nodes="shared", request=ask(Percent(100), 100), policy="binpack", limit_us={}),
    Shape(name="fits nowhere", nodes="shared", request=ask(Mib(90000)), limit_us={}),
    Shape(name="two containers", nodes="shared", request=ask(Mib(3000), 10, containers=2), limit_us={}),
    Shape(name="four on a NUMA node", nodes="shared", request=ask(Mib(3000), 10, 4, numa_bind=True), limit_us={}),
    Shape(
        name="eight best linked of sixteen",
        nodes="sixteen",
        request=ask(Mib(3000), 10, 8),
        policy="topology-aware",
        limit_us={1_000: 1000},
    ),
    Shape(name="a MIG instance", nodes="mig", request=ask(Mib(9000)), limit_us={1_000: 500}),
    Shape(name="four MIG instances", nodes="mig", request=ask(Mib(9000), count=4), limit_us={}),
    Shape(name="three MIG containers", nodes="mig", request=ask(Mib(4000), containers=3), limit_us={}),
)


def inventory(name: str, cards: int, profiles: tuple[MigProfile, ...] = ()) -> NodeRecord:
    uuids = [DeviceUuid(f"GPU-{name}-{i}") for i in range(cards)]
    devices = tuple(
        Device(
            uuid=uuid,
            index=i,
            slots=7 if profiles else 20,
            memory_mib=40960 if profiles else 81920,
            cores=100,
            model="NVIDIA A100-SXM4-40GB" if profiles else "NVIDIA A100-SXM4-80GB",
            numa=i * 2 // cards,
            mode=MIG if profiles else HAMI_CORE,
            mig_profiles=profiles,
        )
        for i, uuid in enumerate(uuids)
    )
    rows = (
        (a, tuple((b, 400 if i // 4 == j // 4 else 20 + 10 * (i % 4 == j % 4)) for j, b in enumerate(uuids) if i != j))
        for i, a in enumerate(uuids)
    )
    links = None if profiles else Links(scores=tuple(rows))
    return NodeRecord(
        name=NodeName(name), inventories=(NodeInventory(vendor=NVIDIA.name, devices=devices, links=links),)
    )


def cluster(kind: str, nodes: int) -> Ledger:
    """The same cluster for every run of a size."""
    pick = random.Random(nodes)
    ledger = Ledger(registry())
    model = identify("NVIDIA A100-SXM4-40GB", 40960)
    assert model is not None
    profiles = tuple(p for p in model.offered() if p.name in ("1g.5gb", "2g.10gb", "3g.20gb", "7g.40gb"))
    for n in range(nodes):
        record = inventory(f"{n:05d}", 16 if kind == "sixteen" else 8, profiles if kind == "mig" else ())
        ledger.put_node(record)
        if kind == "mig":
            fill_with_instances(ledger, record, pick)
        else:
            fill_with_shares(ledger, record, pick)
    return ledger


def fill_with_shares(ledger: Ledger, node: NodeRecord, pick: random.Random) -> None:
    """Each card to somewhere between 40 and 100 % of its memory."""
    for device in node.inventories[0].devices:
        left = int(device.memory_mib * pick.uniform(2 * LOAD - 1, 1))
        cores = 0
        while left > 2000:
            memory_mib = min(left, pick.choice((4000, 8000, 16000, 24000)))
            share = Share(uuid=device.uuid, kind=NVIDIA.name, memory_mib=memory_mib, cores=min(10, 90 - cores))
            cores += share.cores
            left -= memory_mib
            ledger.put_pod(running(f"{device.uuid}-{left}", node.name, share))


def fill_with_instances(ledger: Ledger, node: NodeRecord, pick: random.Random) -> None:
    """Instances as the engine itself places them, then some of them leave again."""
    held = []
    for number in range(40):
        request = ask(Mib(pick.choice((4000, 4000, 9000, 15000))))
        found = place_on(ledger, request, node.name, card_policy="binpack")
        if isinstance(found, Assignment):
            held.append(
                PodRecord(
                    uid=PodUid(f"{node.name}-{number}"),
                    key=PodKey("bench", "p"),
                    node=node.name,
                    roles=(Role.APP,),
                    segments=found.segments,
                    reservations=found.reservations,
                )
            )
            ledger.put_pod(held[-1])
    for pod in held:
        if pick.random() > LOAD:
            ledger.drop_pod(pod.uid)


def running(uid: str, node: NodeName, share: Share) -> PodRecord:
    return PodRecord(
        uid=PodUid(uid),
        key=PodKey("bench", uid),
        node=node,
        roles=(Role.APP,),
        segments={NVIDIA.name: ((share,),)},
    )


PLAIN_LOOP = """
#include <stdint.h>
/* The nodes that have `count` cards with `need` MiB free; nothing else is looked at. */
int64_t plain(const int32_t *first, const int32_t *length, int32_t nodes, const int64_t *memory, const int64_t *used,
              int64_t need, int32_t count)
{
    int64_t fitting = 0;
    for (int32_t n = 0; n < nodes; n++) {
        int32_t found = 0;
        for (int32_t r = first[n]; r < first[n] + length[n]; r++)
            found += memory[r] - used[r] >= need;
        fitting += found >= count;
    }
    return fitting;
}
"""


def plain_loop(folder: Path) -> Callable[[Ledger, PodRequest], int]:
    """The C loop over a ledger's own columns."""
    compiler = shutil.which("cc") or "gcc"
    (folder / "plain.c").write_text(PLAIN_LOOP)
    flags = ("-O3", "-ffp-contract=off", "-shared", "-fPIC")
    subprocess.run([compiler, *flags, "-o", folder / "plain.so", folder / "plain.c"], check=True)
    function = ctypes.CDLL(str(folder / "plain.so")).plain
    function.restype = ctypes.c_int64

    def run(ledger: Ledger, request: PodRequest) -> int:
        table = ledger.table
        columns = (table.node_columns["first"], table.node_columns["length"])
        amounts = (table.columns["memory"], table.columns["memory_used"])
        need = request.containers[0].needs[0]
        return int(
            function(
                *(ctypes.c_void_p(column.buffer_info()[0]) for column in columns),
                ctypes.c_int32(len(table.names)),
                *(ctypes.c_void_p(column.buffer_info()[0]) for column in amounts),
                ctypes.c_int64(need.memory.of(81920)),
                ctypes.c_int32(need.count),
            )
        )

    return run


def bytes_a_device() -> float:
    """Memory that the ledger adds for one idle device, its records (which the caller has anyway) apart."""
    records = [inventory(f"{n:05d}", 8) for n in range(2_000)]
    ledger = Ledger(registry())
    tracemalloc.start()
    for record in records:
        ledger.put_node(record)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return used / (8 * len(records))


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


def run(nodes: int, loop: Callable[[Ledger, PodRequest], int]) -> Iterator[Result]:
    for kind in dict.fromkeys(shape.nodes for shape in SHAPES):
        ledger = cluster(kind, nodes)
        names = list(ledger.nodes)
        devices = len(names) * (16 if kind == "sixteen" else 8)
        for shape in SHAPES:
            if shape.nodes != kind:
                continue
            candidates = names if shape.named else None
            decide = decision(ledger, shape, candidates)
            fitting = nodes - len(decide().refusals)
            times = min((timed(decide) for _ in range(RUNS)), key=lambda run: percentile(run, 50))
            least = min(percentile(timed(partial(loop, ledger, shape.request)), 50) for _ in range(RUNS))
            yield result(shape.name, nodes, devices, fitting, times, least, shape.limit_us.get(nodes))
        if kind == "shared":
            share = Share(uuid=DeviceUuid(f"GPU-{names[-1]}-0"), kind=NVIDIA.name, memory_mib=1000, cores=0)
            event = running("event", names[-1], share)

            yield result("a pod comes and goes", nodes, devices, 0, timed(partial(come_and_go, ledger, event)), 0, None)
        ledger.check()


def decision(ledger: Ledger, shape: Shape, candidates: list[NodeName] | None) -> Callable[[], Placed | Refused]:
    """One call of what is measured."""
    decide = partial(place, ledger, node_policy="binpack", card_policy=shape.policy)
    if not shape.first:
        return partial(decide, shape.request, candidates)
    # Amounts that differ by one MiB are requests that differ, and as easy to serve.
    requests = iter([ask(Mib(3000 - i % 1500), i % 10 + 1) for i in range(RUNS * (ROUNDS + 10))])
    return lambda: decide(next(requests), candidates)


def come_and_go(ledger: Ledger, pod: PodRecord) -> None:
    ledger.put_pod(pod)
    ledger.drop_pod(pod.uid)


def result(
    case: str, nodes: int, devices: int, fitting: int, times: list[float], loop_us: float, limit_us: float | None
) -> Result:
    middle = percentile(times, 50)
    return Result(
        case=case,
        nodes=nodes,
        devices=devices,
        fitting=fitting,
        p50_us=round(middle, 1),
        p99_us=round(percentile(times, 99), 1),
        ns_a_node=round(middle * 1000 / nodes, 1),
        loop_us=round(loop_us, 1),
        limit_us=limit_us,
    )


def show(results: list[Result]) -> None:
    table = Table(title="one decision of the engine", title_justify="left")
    for column in ("case", "nodes", "fitting", "p50 µs", "p99 µs", "ns a node", "plain loop µs", "ratio", "limit µs"):
        table.add_column(column, justify="left" if column == "case" else "right", no_wrap=True)
    for row in results:
        table.add_row(
            row.case,
            f"{row.nodes:,}",
            f"{row.fitting:,}",
            f"{row.p50_us:,.1f}",
            f"{row.p99_us:,.1f}",
            f"{row.ns_a_node:,.1f}",
            f"{row.loop_us:,.1f}" if row.loop_us else "",
            f"{row.p50_us / row.loop_us:.1f}" if row.loop_us else "",
            f"{row.limit_us:,.0f}" if row.limit_us else "",
        )
    Console(width=130).print(table)


def plot(results: list[Result]) -> str:
    """Median time against nodes, both logarithmic, as one SVG; a line of slope one is linear growth."""
    width, height, left, bottom = 720, 480, 60, 40
    cases = [case for case in dict.fromkeys(row.case for row in results) if case != "a pod comes and goes"]

    def x(nodes: float) -> float:
        return left + (math.log10(nodes) - 1) / 3 * (width - left - 230)

    def y(micros: float) -> float:
        return height - bottom - math.log10(max(micros, 1)) / 4 * (height - bottom - 20)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        ' font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="14" font-size="13">One decision: microseconds (median) against nodes</text>',
    ]
    for power in range(5):
        parts.append(f'<text x="4" y="{y(10**power) + 4:.0f}">{10**power:,} µs</text>')
        parts.append(f'<path d="M{left} {y(10**power):.1f}H{width - 230}" stroke="#ddd"/>')
    parts += [f'<text x="{x(nodes) - 12:.0f}" y="{height - 20}">{nodes:,}</text>' for nodes in SIZES]
    ends = sorted(cases, key=lambda case: max((r.nodes, r.p50_us) for r in results if r.case == case)[1])
    for place_of, case in enumerate(ends):
        color = f"hsl({place_of * 360 // len(ends)} 70% 40%)"
        points = " ".join(f"{x(r.nodes):.1f},{y(r.p50_us):.1f}" for r in results if r.case == case)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        parts.append(f'<text x="{width - 220}" y="{height - bottom - 18 * place_of}" fill="{color}">{case}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, action="append", help="sizes instead of the usual ones")
    parser.add_argument("--json", action="store_true", help="print one JSON object last, and write no file")
    options = parser.parse_args()
    about = machine()
    with tempfile.TemporaryDirectory() as folder:
        loop = plain_loop(Path(folder))
        results = [row for nodes in options.nodes or SIZES for row in run(nodes, loop)]
    show(results)
    a_device = round(bytes_a_device(), 1)
    print(f"memory of one device in the ledger: {a_device} bytes")
    document = json.dumps({"machine": about, "bytes_a_device": a_device, "results": [asdict(row) for row in results]})
    if options.json:
        print(document)
        return
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"engine-{datetime.date.today().isoformat()}.json"
    path.write_text(document + "\n")
    path.with_suffix(".svg").write_text(plot(results))
    print(f"written: {path} and {path.with_suffix('.svg').name}")


if __name__ == "__main__":
    main()
