"""What a family's device plug-in answers the kubelet for one container, in one shape for every family."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from hami.alloc.grant import Mount
from hami.model.claim import Share
from hami.model.device import Device
from hami.model.names import DeviceUuid
from hami.model.vendor import Vendor

CONTAINERS: Final = "assigned-containers"
"""Slices of Enflame cards by container, each with whether it has been handed out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One container's part of a family's devices."""

    vendor: Vendor
    shares: tuple[Share, ...]
    devices: Mapping[DeviceUuid, Device]
    notes: Mapping[str, str]
    """The pod's annotations."""
    folder: str
    """The container's own directory on this node, for files that it is to see."""
    units: Mapping[DeviceUuid, Sequence[int]] = field(default_factory=dict)
    """Which compute units of each device it takes, where its plug-in gives out single ones."""

    @property
    def indices(self) -> str:
        return ",".join(str(self.devices[share.uuid].index) for share in self.shares)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Environment, mounts, the files behind them by path on the node, and device nodes, which are the same inside."""

    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """How many single compute units of a device a share takes, and of how many; zeros where nobody names them."""

    want: int = 0
    total: int = 0
    pairs: bool = False
    """Only in pairs of neighbours."""


def consumed(vendor: Vendor, notes: Mapping[str, str], container: str, *, last: bool) -> dict[str, str]:
    """The marks on a pod by which its family's plug-in says that it has taken what stands there for a container; with
    the `last` of its containers, for the pod."""
    marks = {key: "true" for key in vendor.dress_keys if last and notes.get(key) == "false"}
    listed = notes.get(CONTAINERS) if CONTAINERS in vendor.dress_keys else None
    if listed:
        entries = orjson.loads(listed)
        if container in entries:
            entries[container]["allocated"] = True
            marks[CONTAINERS] = orjson.dumps(entries).decode()
    return marks


def amd_environment(given: Given) -> dict[str, str]:
    """What AMD's runtime reads. A device that is not in the mask has all its units, as one without other users has.

    The memory limit is for a library that acts on it; there is one for all devices, so it is the smallest. An amount of
    0, which no scheduler of ours writes, is no limit.
    """
    env = {"ROCR_VISIBLE_DEVICES": ",".join(share.uuid for share in given.shares)}
    named = [given.units.get(share.uuid, ()) for share in given.shares]
    totals = [given.devices[share.uuid].cores for share in given.shares]
    masks = [f"{i}:{_ranges(units)}" for i, units in enumerate(named) if 0 < len(units) < totals[i]]
    if masks:
        env["HSA_CU_MASK"] = ";".join(masks)
    limits = [share.memory_mib for share in given.shares if share.memory_mib]
    if limits:
        env["HIP_DEVICE_MEMORY_LIMIT"] = f"{min(limits)}m"
    return env


def _ranges(units: Sequence[int]) -> str:
    """`0-3,8-11`"""
    runs: list[list[int]] = []
    for unit in units:
        if runs and runs[-1][1] == unit - 1:
            runs[-1][1] = unit
        else:
            runs.append([unit, unit])
    return ",".join(f"{low}-{high}" for low, high in runs)
