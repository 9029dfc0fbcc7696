"""How long a decision takes for each family, beside NVIDIA's on a cluster of the same size.

A thousand nodes of eight devices, half of which are in use at random; every pod asks for a share of one device, or for
two whole ones. Figures are medians of one run, so that only their ratios mean something on a busy machine.

    python -m bench.families [--nodes 1000] [--rounds 60]
"""

import argparse
import random
import statistics
import time
from collections.abc import Iterator

from hami.alloc.ledger import Ledger
from hami.alloc.place import place
from hami.alloc.request import read_need
from hami.model.claim import ContainerNeed, PodRecord, PodRequest, Refused, Role, Share
from hami.model.container import Container
from hami.model.device import HAMI_CORE, Device, NodeInventory, NodeRecord
from hami.model.names import DeviceUuid, NodeName, PodKey, PodUid
from hami.model.vendor import Registry, Vendor
from hami.vendors import registry

DEVICES = 8
MODES = {"Enflame": "1g.16gb=0,2g.32gb=1,4g.64gb=2", "AWSNeuron": "2"}
"""What families read of a node's devices as their mode."""
MEMORY_MIB = {"XPU": 98304}
"""Where a family knows one size only."""


def facts(vendor: Vendor, i: int) -> tuple[tuple[str, str | int], ...]:
    """The groups that a family looks at."""
    if vendor.name == "Vastai":
        return ("AIC", i // 4), ("DeviceStrategy", "die")
    if vendor.name == "AWSNeuron":
        return (("AWSNodeType", "inf2.24xlarge"),)
    return (("NetworkID", i // 4),) if vendor.choose else ()


def device(vendor: Vendor, node: int, i: int) -> Device:
    """A device of a node."""
    return Device(
        uuid=DeviceUuid(f"{node}-{i}"),
        index=i,
        slots=10,
        memory_mib=MEMORY_MIB.get(vendor.name, 65536),
        cores=100,
        model=vendor.name,
        custom=facts(vendor, i),
        parts=(100, 100),
        mode=MODES.get(vendor.name, HAMI_CORE),
    )


def cluster(vendor: Vendor, families: Registry, nodes: int) -> Ledger:
    """Nodes of one family, each device idle, shared or full at random."""
    rng = random.Random(7)
    ledger = Ledger(families)
    for n in range(nodes):
        name = NodeName(f"node-{n}")
        devices = tuple(device(vendor, n, i) for i in range(DEVICES))
        ledger.put_node(NodeRecord(name=name, inventories=(NodeInventory(vendor=vendor.name, devices=devices),)))
        used = [one for one in devices if rng.random() < 0.5]
        shares = tuple(
            Share(uuid=one.uuid, kind=vendor.name, memory_mib=rng.choice([16384, 65536]), cores=0) for one in used
        )
        if shares:
            ledger.put_pod(
                PodRecord(
                    uid=PodUid(f"pod-{n}"),
                    key=PodKey("bench", f"pod-{n}"),
                    node=name,
                    roles=(Role.APP,),
                    segments={vendor.name: (shares,)},
                )
            )
    return ledger


def requests(vendor: Vendor, count: int) -> Iterator[PodRequest]:
    """Pods of one shape."""
    limits = {vendor.resources.count: str(count)}
    container = Container(path="", pointer="", role=Role.APP, name="c", document={"resources": {"limits": limits}})
    need = read_need(container, vendor, {})
    assert need is not None
    for i in range(1_000_000):
        yield PodRequest(
            uid=PodUid(f"new-{i}"),
            key=PodKey("bench", f"new-{i}"),
            containers=(ContainerNeed(name="c", role=Role.APP, needs=(need,)),),
        )


def median_us(vendor: Vendor, families: Registry, nodes: int, rounds: int, count: int) -> float:
    """Microseconds a decision."""
    ledger = cluster(vendor, families, nodes)
    names = list(ledger.nodes)
    taken = []
    for _, request in zip(range(rounds), requests(vendor, count), strict=False):
        start = time.perf_counter_ns()
        outcome = place(ledger, request, names, node_policy="binpack", card_policy="spread")
        if isinstance(outcome, Refused):  # a refusal is another decision, whose time says nothing here
            raise SystemExit(f"{vendor.name}: {count} fit nowhere")
        taken.append((time.perf_counter_ns() - start) / 1000)
    return statistics.median(taken[rounds // 4 :])


def main() -> None:
    """Print one line a family."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=60)
    given = parser.parse_args()
    families = registry(ascend=True, iluvatar=True)
    base: dict[int, float] = {}
    for vendor in families:
        line = f"{vendor.name:15}"
        for count in (1, 2):
            figure = median_us(vendor, families, given.nodes, given.rounds, count)
            base.setdefault(count, figure)
            line += f"  {count} device(s): {figure:8.0f} us, {figure / base[count]:4.2f} x NVIDIA"
        print(line)


if __name__ == "__main__":
    main()
