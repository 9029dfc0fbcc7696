"""Amounts in a family's own units, for people: what its pods write, beside what it comes to.

Memory is asked in multiples of some MiB; compute in percent, in cores of a card, or in percent of compute units; some
families split a card by further budgets, which have names of their own (`Terms.parts`).
"""

from typing import Final

from hami.model.claim import Need, Percent
from hami.model.device import Device
from hami.model.names import INT32_MAX
from hami.model.vendor import Rule, Vendor

GIB: Final = 1024
MIB_BYTES: Final = 2**20


def memory(vendor: Vendor, mib: int) -> str:
    """`2,048 MiB`; with another unit also how many fit in: `4,096 MiB (16 units of 256 MiB)`, `8,192 MiB (8 GiB)`."""
    factor = vendor.memory_factor
    if factor <= 1 or not vendor.resources.memory:
        return f"{mib:,} MiB"
    count = mib // factor
    if factor == GIB:
        return f"{mib:,} MiB ({count:,} GiB)"
    return f"{mib:,} MiB ({count:,} unit{'' if count == 1 else 's'} of {factor} MiB)"


def core_unit(vendor: Vendor) -> str:
    """What the family's figures of compute count: `percent`, `cores` of a card, or `compute units`."""
    if Rule.CORES_OF_DEVICE in vendor.rules:
        return "compute units"
    return "cores" if Rule.CORES_IN_UNITS in vendor.rules else "percent"


def asked_cores(vendor: Vendor, cores: int) -> str:
    """Compute as a pod asks for it: `30 % cores`, `4 cores`, `25 % of the compute units`."""
    if Rule.CORES_OF_DEVICE in vendor.rules:
        return f"{cores} % of the compute units"
    return _counted(cores, "cores") if Rule.CORES_IN_UNITS in vendor.rules else f"{cores} % cores"


def left_cores(vendor: Vendor, cores: int) -> str:
    """Compute as a card has it: `30 %`, `4 cores`, `76 compute units`."""
    unit = core_unit(vendor)
    return f"{cores} %" if unit == "percent" else _counted(cores, unit)


def memory_bytes(vendor: Vendor, mib: int) -> int | None:
    """MiB as booked, in bytes; None where the family's figure is no amount of memory."""
    return mib * MIB_BYTES if vendor.terms.memory_known else None


def compute_ratio(device: Device, cores: int, parts: tuple[int, int]) -> float | None:
    """Which part of a device's compute so much of it is, 0 to 1, whatever unit its family counts in.

    Where compute is split by a further budget, too (AI cores, slices), the larger part of the two. None where a device
    is registered without compute.
    """
    found = [cores / device.cores] if device.cores else []
    if counted(device.parts[0]):
        found.append(parts[0] / device.parts[0])
    return max(found, default=None)


def counted(budget: int) -> bool:
    """Whether a device's further budget is one, and not left out by its family's configuration."""
    return 0 < budget < INT32_MAX


def parts(vendor: Vendor, amounts: tuple[int | None, int | None]) -> list[str]:
    """Further budgets by their names: `["5 AI cores", "1 AI CPU"]`; of what has no name or is None, nothing."""
    pairs = zip(vendor.terms.parts, amounts, strict=True)
    return [_counted(amount, name) for name, amount in pairs if name and amount is not None]


def asked(vendor: Vendor, need: Need) -> str:
    """What one container asks of a family: `2 devices, each 4,096 MiB (16 units of 256 MiB), 30 % cores`."""
    if vendor.terms.asked is not None:
        return vendor.terms.asked(need)
    told = amounts(vendor, need)
    each = f"{', each ' if need.count > 1 else ', '}{', '.join(told)}" if told else ""
    return f"{_counted(need.count, 'devices')}{each}"


def amounts(vendor: Vendor, need: Need) -> list[str]:
    """What is asked of each device; nothing of families that give out whole devices only."""
    told = []
    if vendor.resources.memory:
        share = need.memory.amount
        told.append(f"{share} % memory" if isinstance(need.memory, Percent) else memory(vendor, share))
    told += parts(vendor, (need.parts[0] or None, need.parts[1] or None))
    if vendor.resources.cores and need.cores:
        told.append(asked_cores(vendor, need.cores))
    return told


def _counted(amount: int, plural: str) -> str:
    """`1 core`, `2 cores`."""
    return f"{amount:,} {plural.removesuffix('s') if amount == 1 else plural}"
