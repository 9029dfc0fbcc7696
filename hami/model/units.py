"""Amounts in a family's own units, for people: what its pods write, beside what it comes to.

Memory is asked in multiples of some MiB, compute in percent, in units of a card, or in percent of compute units.
"""

from hami.model.vendor import Rule, Vendor

GIB = 1024


def memory(vendor: Vendor, mib: int) -> str:
    """`2,048 MiB`; with another unit also how many fit in: `4,096 MiB (16 units of 256 MiB)`, `8,192 MiB (8 GiB)`."""
    factor = vendor.memory_factor
    if factor <= 1 or not vendor.resources.memory:
        return f"{mib:,} MiB"
    units = f"{mib // factor:,}"
    return f"{mib:,} MiB ({units} GiB)" if factor == GIB else f"{mib:,} MiB ({units} units of {factor} MiB)"


def core_unit(vendor: Vendor) -> str:
    """What the family's figures of compute count: `percent`, `units` of a card, or `compute units`."""
    if Rule.CORES_OF_DEVICE in vendor.rules:
        return "compute units"
    return "units" if Rule.CORES_IN_UNITS in vendor.rules else "percent"


def asked_cores(vendor: Vendor, cores: int) -> str:
    """Compute as a pod asks for it: `30 % cores`, `4 cores`."""
    return f"{cores} cores" if Rule.CORES_IN_UNITS in vendor.rules else f"{cores} % cores"
