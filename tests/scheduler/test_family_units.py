"""Every family by its own units: what its refused pods read, and what its metrics say in bytes and parts of one.

Nodes are those of the cases by hand (`tests/golden/cases`); amounts are worked out from the families' units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import anyio.lowlevel
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hami.alloc.explain import asks
from hami.alloc.place import place
from hami.alloc.request import read_request
from hami.cluster.picture import Picture
from hami.kube.watch import Added
from hami.model import units
from hami.model.claim import NodeRefusal, Refused, Why
from hami.model.names import NodeName
from hami.model.vendor import Registry, Vendor
from hami.scheduler import verdicts
from hami.scheduler.family_metrics import FamilyMetrics
from hami.vendors import ALL
from tests.golden.test_cases import FAMILIES, FILES, described, holder, pod, vendor_of
from tests.golden.test_filter import World

pytestmark = pytest.mark.anyio
Json = dict[str, Any]
MIB: Final = 2**20
UNLIMITED: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A pod that finds no room, and what its event says of it."""

    asks: Json
    says: Sequence[str]
    held: Sequence[str] = ()
    """Pods that are there already, as in the cases by hand."""
    notes: Mapping[str, str] = field(default_factory=dict)
    node: str = ""
    """Empty: the file's first one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One family."""

    file: str
    asks: Json
    mib: int | None
    """Memory that the pod holds; None = the family tells no amount."""
    compute: float
    """Part of a device's compute that it holds."""
    refusals: Sequence[Refusal]
    budgets: Mapping[str, int] = field(default_factory=dict)
    unit_mib: int = 1
    core_unit: str = "percent"


ROWS: Final[Mapping[str, Row]] = {
    "NVIDIA": Row(
        file="nvidia",
        asks={"gpu": 1, "gpumem": 3000, "gpucores": 30},
        mib=3000,
        compute=0.3,
        refusals=(
            Refusal(
                asks={"gpu": 2, "gpumem": 20000, "gpucores": 5},
                says=("4 devices short of memory (largest free 16,384 MiB)", "2 devices, each 20,000 MiB, 5 % cores"),
            ),
            Refusal(
                held=["0 9 80", "1 9 80", "2 9 80", "3 9 75"],
                asks={"gpu": 1, "gpumem-percentage": 25, "gpucores": 30},
                says=("4 devices short of compute (largest free 25 %)", "asked: 1 device, 25 % memory, 30 % cores"),
            ),
        ),
    ),
    "MLU": Row(
        file="cambricon",
        asks={"vmlu": 1, "mlu.smlu.vmemory": 4, "mlu.smlu.vcore": 30},
        mib=1024,
        compute=0.3,
        unit_mib=256,
        refusals=(
            Refusal(
                asks={"vmlu": 1, "mlu.smlu.vmemory": 97, "mlu.smlu.vcore": 5},
                says=("largest free 24,576 MiB (96 units of 256 MiB)", "24,832 MiB (97 units of 256 MiB), 5 % cores"),
            ),
        ),
    ),
    "DCU": Row(
        file="hygon",
        asks={"dcunum": 1, "dcumem": 1000, "dcucores": 30},
        mib=1000,
        compute=0.3,
        refusals=(
            Refusal(
                asks={"dcunum": 1, "dcumem": 32753, "dcucores": 1},
                says=("(largest free 32,752 MiB)", "asked: 1 device, 32,753 MiB, 1 % cores"),
            ),
        ),
    ),
    "Iluvatar": Row(
        file="iluvatar",
        asks={"-vgpu": 1, ".vMem": 4, ".vCore": 30},
        mib=1024,
        compute=0.3,
        unit_mib=256,
        refusals=(
            Refusal(
                asks={"-vgpu": 1, ".vMem": 129},
                says=("(largest free 32,768 MiB (128 units of 256 MiB))", "33,024 MiB (129 units of 256 MiB)"),
            ),
        ),
    ),
    "Mthreads": Row(
        file="mthreads",
        asks={"vgpu": 1, "sgpu-memory": 8, "sgpu-core": 4},
        mib=4096,
        compute=0.25,
        unit_mib=512,
        core_unit="cores",
        refusals=(
            Refusal(
                held=["0 512 12", "1 512 12", "2 512 13", "3 512 15"],
                asks={"vgpu": 1, "sgpu-memory": 2, "sgpu-core": 5},
                says=("(largest free 4 cores)", "asked: 1 device, 1,024 MiB (2 units of 512 MiB), 5 cores"),
            ),
            Refusal(
                held=["0 48640 0", "1 48640 0", "2 48640 0", "3 48640 0"],
                asks={"vgpu": 1, "sgpu-memory": 2},
                says=("(largest free 512 MiB (1 unit of 512 MiB))",),
            ),
        ),
    ),
    "Ascend": Row(
        file="ascend910b2",
        asks={"Ascend910B2": 1, "Ascend910B2-memory": 32000},
        mib=32768,
        compute=0.5,
        budgets={"AI cores": 12, "AI CPUs": 3},
        refusals=(
            Refusal(
                held=["0 8192 0"] * 6,
                asks={"Ascend910B2": 1, "Ascend910B2-memory": 8192},
                says=("1 device short of compute (largest free 0 AI CPUs)", "8,192 MiB, 3 AI cores, 1 AI CPU"),
            ),
            Refusal(
                asks={"Ascend910B2": 1, "Ascend910B2-memory": 4000, "Ascend910B2-core": 40},
                held=["0 4000 70"],
                notes={"huawei.com/vnpu-mode": "hami-core"},
                says=("1 device of a node that does not split them as asked", "asked: 1 device, 4,000 MiB, 40 % cores"),
            ),
        ),
    ),
    "Metax-GPU": Row(
        file="metax-gpu",
        asks={"gpu": 1},
        mib=65536,
        compute=1,
        refusals=(Refusal(asks={"gpu": 5}, says=("1 node with fewer devices than asked", "asked: 5 devices")),),
    ),
    "Metax-SGPU": Row(
        file="metax-sgpu",
        asks={"sgpu": 1, "vmemory": 8, "vcore": 30},
        mib=8192,
        compute=0.3,
        unit_mib=1024,
        refusals=(
            Refusal(
                asks={"sgpu": 1, "vmemory": 65, "vcore": 10},
                says=("(largest free 65,536 MiB (64 GiB))", "asked: 1 device, 66,560 MiB (65 GiB), 10 % cores"),
            ),
            Refusal(
                asks={"sgpu": 1, "vmemory": 1, "vcore": 101},
                says=("3 devices short of compute (largest free 100 %)", "1,024 MiB (1 GiB), 101 % cores"),
            ),
        ),
    ),
    "kunlun": Row(
        file="kunlun",
        asks={"xpu": 1},
        mib=98304,
        compute=1,
        refusals=(
            Refusal(
                held=["0 98304 100", "1 98304 100", "2 98304 100", "5 98304 100"],
                asks={"xpu": 4},
                says=("1 node with fewer free linked devices than asked", "asked: 4 devices"),
            ),
        ),
    ),
    "XPU": Row(
        file="kunlun-vxpu",
        asks={"vxpu": 1, "vxpu-memory": 24576},
        mib=24576,
        compute=0.25,
        refusals=(
            Refusal(
                held=[f"{i} 49152 50" for i in range(8)],
                asks={"vxpu": 1, "vxpu-memory": 20000},
                says=("1 node with fewer free linked devices than asked", "asked: 1 device, 24,576 MiB"),
            ),
        ),
    ),
    "GCU": Row(
        file="enflame-gcu",
        asks={"gcu": 1},
        mib=None,
        compute=1,
        refusals=(Refusal(asks={"gcu": 5}, says=("1 node with fewer devices than asked", "asked: 5 devices")),),
    ),
    "Enflame": Row(
        file="enflame-drs",
        asks={"gcu-memory": 7, "gcu-core": 20},
        mib=20480,
        compute=0.5,
        unit_mib=1024,
        budgets={"slices": 3},
        refusals=(
            Refusal(
                held=["0 20480 50", "1 6144 17", "1 20480 50"],
                asks={"drs-gcu": 6},
                says=("short of memory (largest free 20,480 MiB (20 GiB))", "asked: 6 slices"),
            ),
            Refusal(
                node="small",
                asks={"gcu-core": 100},
                says=("1 device short of compute (largest free 3 slices)", "asked: 100 % cores"),
            ),
            Refusal(
                asks={"gcu-memory": 50},
                says=("asked: 50 GiB (MiB where that is above twice a card's)",),
            ),
        ),
    ),
    "Biren": Row(
        file="biren",
        asks={"gpu": 1},
        mib=0,
        compute=0,
        refusals=(Refusal(asks={"gpu": 5}, says=("1 node with fewer devices than asked", "asked: 5 devices")),),
    ),
    "Vastai": Row(
        file="vastai",
        asks={"va": 1},
        mib=0,
        compute=0,
        refusals=(Refusal(asks={"va": 9}, says=("1 node with fewer devices than asked", "asked: 9 devices")),),
    ),
    "AWSNeuron": Row(
        file="awsneuron",
        asks={"neuroncore": 1},
        mib=None,
        compute=0.5,
        core_unit="cores",
        refusals=(
            Refusal(
                held=[f"{i} 0 1" for i in range(6)],
                asks={"neuroncore": 2},
                says=("6 devices short of compute (largest free 1 core)", "asked: 2 cores"),
            ),
            Refusal(
                held=["1 0 3", "3 0 3", "5 0 3"],
                asks={"neuron": 2},
                says=("1 node with fewer free neighbouring devices than asked", "asked: 2 devices"),
            ),
        ),
    ),
    "AMD": Row(
        file="amd",
        asks={"gpu": 1, "gpumem": 1000, "gpucores": 25},
        mib=1000,
        compute=0.25,
        core_unit="compute units",
        refusals=(
            Refusal(
                held=["0 1000 300", "1 1000 228", "2 1000 304", "3 1000 304"],
                asks={"gpu": 1, "gpumem": 1000, "gpucores": 26},
                says=("(largest free 76 compute units)", "asked: 1 device, 1,000 MiB, 26 % of the compute units"),
            ),
        ),
    ),
}
"""By the declaration's word; of families with several chips, one of them."""


def world(row: Row, held: Sequence[str] = (), node: str = "") -> World:
    file = FILES[row.file]
    name = node or next(iter(file["nodes"]))
    record = {
        "config": {"devices": {}, "flags": {}},
        "nodes": [described(name, file["nodes"][name], vendor_of(file))],
        "existing": [holder(file, name, i, told) for i, told in enumerate(held)],
        "pod": pod("asking", [], {}),
    }
    made = World(record, FAMILIES)
    assert not made.problems
    return made


def asking(row: Row, asked: Json, notes: Mapping[str, str] = UNLIMITED) -> Json:
    limits = {FILES[row.file]["prefix"] + key: str(value) for key, value in asked.items()}
    return pod("asking", [{"name": "c", "resources": {"limits": limits}}], dict(notes))


REFUSALS = [
    pytest.param(row, refusal, id=f"{name}: {' '.join(f'{key}={value}' for key, value in refusal.asks.items())}")
    for name, row in ROWS.items()
    for refusal in row.refusals
]


def test_every_row_is_a_declarations() -> None:
    assert [vendor.name for vendor in ALL if vendor.name in ROWS] == list(ROWS)


@pytest.mark.parametrize("vendor", ALL, ids=lambda vendor: vendor.name)
def test_what_is_left_is_told_in_the_units_of_any_declaration(vendor: Vendor) -> None:
    short = {Why.NO_MEMORY: 1, Why.NO_CORES: 1}
    amounts = NodeRefusal(counts=short, largest_free_mib=3 * vendor.memory_factor, largest_free_cores=2)
    text = verdicts.refused({NodeName("n"): replace(amounts, vendor=vendor.name)}, "", Registry(ALL))
    factor = vendor.memory_factor
    unit = {1: "", units.GIB: " (3 GiB)"}.get(factor, f" (3 units of {factor} MiB)")
    assert f"short of memory (largest free {3 * factor:,} MiB{unit})" in text
    cores = {"percent": "2 %"}.get(units.core_unit(vendor), f"2 {units.core_unit(vendor)}")
    assert f"short of compute (largest free {cores})" in text


@pytest.mark.parametrize(("row", "refusal"), REFUSALS)
def test_a_refused_pod_reads_its_amounts_in_the_units_of_its_family(row: Row, refusal: Refusal) -> None:
    there = world(row, refusal.held, refusal.node)
    request = read_request(asking(row, refusal.asks, refusal.notes), FAMILIES)
    verdict = place(there.ledger, request, None, node_policy="binpack", card_policy="spread")
    assert isinstance(verdict, Refused)
    text = verdicts.refused(dict(verdict.refusals), "", FAMILIES, asks(request, FAMILIES))
    for part in refusal.says:
        assert part in text


@pytest.mark.parametrize("name", ROWS)
async def test_metrics_are_bytes_and_parts_of_one(name: str) -> None:
    row = ROWS[name]
    there = world(row)
    answer = there.filter(asking(row, row.asks), ["n", *FILES[row.file]["nodes"]])
    assert answer.nodes, answer.failed
    picture = Picture(FAMILIES)
    node, described_as = next(iter(FILES[row.file]["nodes"].items()))
    document = described(node, described_as, vendor_of(FILES[row.file]))
    picture.fold_node(Added({"metadata": document, "status": {"allocatable": document["capacity"]} | document}))
    picture.fold_pod(Added(there.pods["asking"]))
    text = "".join(await FamilyMetrics(picture).text(anyio.lowlevel.checkpoint))
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    word = vendor_of(FILES[row.file]).name
    assert all(labels["family"] == word for labels, _ in found["hami_device_compute_allocated_ratio"])
    allocated = [value for _, value in found.get("hami_device_memory_allocated_bytes", [])]
    assert (sum(allocated) if allocated else None) == (None if row.mib is None else row.mib * MIB)
    declared = [usage.device.memory_mib * MIB for usage in picture.ledger.usage(next(iter(picture.ledger.nodes)))]
    told = [value for _, value in found.get("hami_device_memory_bytes", [])]
    assert told == ([] if row.mib is None else declared)
    for series in ("hami_device_compute_allocated_ratio", "hami_pod_compute_allocated_ratio"):
        assert sum(value for _, value in found[series]) == pytest.approx(row.compute)
    budgets = {labels["unit"]: value for labels, value in found.get("hami_device_budget_allocated", []) if value}
    assert budgets == row.budgets
    told_units = {"memory_unit_mib": str(row.unit_mib), "core_unit": row.core_unit}
    assert any(
        labels.items() >= {"family": word, **told_units}.items() for labels, _ in found["hami_device_units_info"]
    )
