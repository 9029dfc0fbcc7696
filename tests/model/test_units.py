"""Amounts in each family's own units."""

import pytest

from hami.model import units
from hami.vendors import registry

FAMILIES = registry(ascend=True, iluvatar=True)


@pytest.mark.parametrize(
    ("family", "mib", "text"),
    [
        ("NVIDIA", 3000, "3,000 MiB"),
        ("DCU", 4096, "4,096 MiB"),
        ("MLU", 4096, "4,096 MiB (16 units of 256 MiB)"),
        ("MR-V100", 4224, "4,224 MiB (16 units of 256 MiB)"),
        ("Mthreads", 49152, "49,152 MiB (96 units of 512 MiB)"),
        ("Metax-SGPU", 8192, "8,192 MiB (8 GiB)"),
        ("Biren", 65536, "65,536 MiB"),
    ],
)
def test_memory(family: str, mib: int, text: str) -> None:
    vendor = FAMILIES.get(family)
    assert vendor is not None
    assert units.memory(vendor, mib) == text


def test_compute_counts_percent_but_for_three_families() -> None:
    others = {vendor.name: units.core_unit(vendor) for vendor in FAMILIES if units.core_unit(vendor) != "percent"}
    assert others == {"AMD": "compute units", "Mthreads": "cores", "AWSNeuron": "cores"}


def test_compute_as_it_is_asked_for() -> None:
    texts = {
        name: units.asked_cores(vendor, 4) for name in ("AMD", "Mthreads", "DCU") if (vendor := FAMILIES.get(name))
    }
    assert texts == {"AMD": "4 % of the compute units", "Mthreads": "4 cores", "DCU": "4 % cores"}
