"""How much of a recorded cluster different policies hand out: the openb trace through the production engine.

    python bench/packing.py                       every list of bench/data/openb, ours and HAMi's rules
    python bench/packing.py --nodes CSV --pods CSV --seeds 42-51 [--policy P] [--json]

What is done, so that figures compare with those published for Fragmentation Gradient Descent: the pods are shuffled by
the seed; random ones are dropped, or copies of random ones appended, until they ask for 1.3 times the cluster's GPUs;
they arrive one by one, none leaves, and one that fits nowhere is skipped. The figure is the share of all milli-GPUs
handed out in the end. `fragmentation` learns from the pods that have arrived, and from nothing else.

"repacked" stands beside the policies as a measure of what is left to gain: pods in the same order, each taken if it
fits together with all taken before, which may be moved at will, on GPUs that are never short of CPU. It packs by first
fit decreasing, so a perfect packer could do a little better still.
"""

import argparse
import csv
import json
import time
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.table import Table

from hami.simulate.files import load_workload
from hami.simulate.replay import Policy, Replay
from hami.simulate.workload import Order, Workload, arrivals
from hami.vendors import registry

DATA = Path(__file__).parent / "data" / "openb"
LISTS = ("default", "cpu100", "gpushare40", "multigpu20", "gpuspec33")
LOAD = 1.3
OURS = "fragmentation"
HAMI = ("binpack", "spread")
"""HAMi's node scores, with cards chosen alike. Its default is `binpack/spread`."""


def allocation(workload: Workload, seed: int, policy: str) -> float:
    """Percent of the cluster's milli-GPUs that a policy has handed out when everything has arrived."""
    known = registry()
    tasks = arrivals(workload, Order.SHUFFLE, seed=seed, load=LOAD)
    return Replay(workload, known, Policy.parse(policy)).run(tasks).allocated


def repacked(workload: Workload, seed: int) -> float:
    """The same for an allocator that may move everything at any time; CPU, memory, models and nodes do not bind it."""
    shares: Counter[int] = Counter()
    whole = taken = 0
    for task in arrivals(workload, Order.SHUFFLE, seed=seed, load=LOAD):
        milli = task.milli
        if not milli:
            continue
        if milli % 1000 == 0:
            whole += milli // 1000
        else:
            shares[milli] += 1
        if taken + milli > 0.9 * workload.milli and whole + bins(shares) > workload.devices:
            if milli % 1000 == 0:
                whole -= milli // 1000
            else:
                shares[milli] -= 1
            continue
        taken += milli
    return 100 * taken / workload.milli


def bins(shares: Counter[int]) -> int:
    """GPUs that first fit decreasing needs for these shares."""
    rooms: list[int] = []
    counts: Counter[int] = Counter()
    used = 0
    for size in sorted((size for size, count in shares.items() if count > 0), reverse=True):
        left = shares[size]
        # The tightest room that still fits comes first, and then what is left of that room, until it is too small.
        while left:
            at = bisect_left(rooms, size)
            if at == len(rooms):
                fit = 1000 // size
                full, rest = divmod(left, fit)
                used += full + (rest > 0)
                add(rooms, counts, 1000 - fit * size, full)
                add(rooms, counts, 1000 - rest * size, 1 if rest else 0)
                break
            room = rooms[at]
            fit = min(room // size, left)
            filled = min(counts[room], left // fit)
            left -= filled * fit
            counts[room] -= filled
            if not counts[room]:
                rooms.pop(at)
            add(rooms, counts, room - fit * size, filled)
    return used


def add(rooms: list[int], counts: Counter[int], room: int, count: int) -> None:
    """Note `count` more rooms of one size; `rooms` stays sorted, each size once."""
    if not count or not room:
        return
    if not counts[room]:
        insort(rooms, room)
    counts[room] += count


def seeds_of(text: str) -> list[int]:
    """Seeds of `42`, `42-51` or `42,44-46`."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        seeds = range(int(first), int(last or first) + 1)
        if not seeds:
            raise argparse.ArgumentTypeError(f"expected the smaller seed first, got {part!r}")
        found.extend(seeds)
    return found


def published() -> dict[str, float]:
    """FGD's published means by list."""
    with (DATA / "published.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["policy"] == "FGD"]
    return {row["workload"].removeprefix("openb_pod_list_"): float(row["gpu_allocation_percent_mean"]) for row in rows}


def compare(lists: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[str, dict[str, float]]]:
    """Every list under ours, HAMi's rules and repacking: means by name."""
    for name in lists:
        nodes, pods = DATA / "openb_node_list_gpu_node.csv.gz", DATA / f"openb_pod_list_{name}.csv.gz"
        workload = load_workload(nodes, pods, registry())
        means = {policy: mean(allocation(workload, seed, policy) for seed in seeds) for policy in (OURS, *HAMI)}
        yield name, {**means, "repacked": mean(repacked(workload, seed) for seed in seeds)}


def show(seeds: Sequence[int], as_json: bool) -> None:
    start = time.perf_counter()
    fgd = published()
    columns = (OURS, "gain over FGD", "FGD published", *HAMI, "repacked")
    table = Table("list", *columns, title=f"GPU allocation, %, mean of {len(seeds)} seeds", title_justify="left")
    found = dict(compare(LISTS, seeds))
    for name, means in found.items():
        figures = {**means, "FGD published": fgd[name]}
        cells = [
            f"{means[OURS] - fgd[name]:+.2f}" if column == "gain over FGD" else f"{figures[column]:.2f}"
            for column in columns
        ]
        table.add_row(name, *cells)
    gains = [means[OURS] - fgd[name] for name, means in found.items()]
    Console(width=120).print(table, f"gain: mean {mean(gains):+.2f}, lowest {min(gains):+.2f}", sep="\n")
    if as_json:
        document = {
            "lists": found,
            "gain_mean": mean(gains),
            "gain_min": min(gains),
            "seconds": round(time.perf_counter() - start, 1),
        }
        print(json.dumps(document))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=Path, help="node table or manifests")
    parser.add_argument(
        "--pods", type=Path, help="pod table or manifests; without both files, every list in bench/data"
    )
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("42-51"), help="as 42-51")
    parser.add_argument("--policy", default=OURS, help="fragmentation, binpack, spread, or NODES/CARDS")
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    options = parser.parse_args()
    if options.nodes is None or options.pods is None:
        show(options.seeds, options.json)
        return
    start = time.perf_counter()
    workload = load_workload(options.nodes, options.pods, registry())
    figures = []
    for seed in options.seeds:
        figures.append(allocation(workload, seed, options.policy))
        print(f"{options.policy} seed {seed}: {figures[-1]:.3f} %", flush=True)
    reference = mean(repacked(workload, seed) for seed in options.seeds)
    seconds = time.perf_counter() - start
    print(f"mean {mean(figures):.3f} %, repacked {reference:.3f} %, {seconds:.1f} s")
    if options.json:
        document = {
            "policy": options.policy,
            "seeds": options.seeds,
            "gpu_allocation_percent_mean": mean(figures),
            "min": min(figures),
            "max": max(figures),
            "repacked_percent_mean": reference,
            "seconds": round(seconds, 2),
        }
        print(json.dumps(document))


if __name__ == "__main__":
    main()
