"""What a family's device plug-in puts into a container, as far as that is public; for simulated devices.

Every container is told its devices in `HAMI_SIMULATED_DEVICES`, whatever the family. Where a vendor's plug-in is
public, or its runtime documents the variable, the container also gets what that plug-in sets. Device nodes and the
vendors' own libraries do not exist for a simulated device and are left out.
"""

from collections.abc import Callable, Mapping
from typing import Final

import orjson

from hami.agent.family_answer import Answer, Given, Units, amd_environment
from hami.alloc.grant import Mount
from hami.model.claim import Share
from hami.model.device import HAMI_CORE, Device
from hami.model.vendor import Vendor

TOLD: Final = "HAMI_SIMULATED_DEVICES"
"""`<uuid>,<memory MiB>,<cores>` a device, `;` between them, amounts as in the allocation annotation."""
VDEV: Final = "/etc/vdev/docker/"
SHARED_REGION: Final = "/hami-shared-region"
QUEUES: Final = 20
"""Queues of a Hygon card that virtual devices share out."""
HYGON_UNITS: Final = 120
"""Compute units of a simulated Hygon card: its registration counts percent."""


def answer(given: Given) -> Answer:
    """What the container of `given` gets."""
    told = ";".join(f"{share.uuid},{share.memory_mib},{share.units or share.cores}" for share in given.shares)
    vendors = _OF_SECTION.get(given.vendor.config_section)
    own = Answer() if vendors is None else vendors(given)
    return Answer(env={**own.env, TOLD: told}, mounts=own.mounts, files=own.files)


def units(vendor: Vendor, share: Share, device: Device) -> Units:
    """The compute units of a share, of families whose plug-ins name them."""
    match vendor.config_section:
        case "amd":
            return Units(want=share.cores, total=device.cores)
        case "hygon":
            return Units(want=HYGON_UNITS * share.cores // 100, total=HYGON_UNITS)
    return Units()


def _ascend(given: Given) -> Answer:
    env = {"ASCEND_VISIBLE_DEVICES": given.indices}
    if given.notes.get("huawei.com/vnpu-mode") == HAMI_CORE:
        first = given.shares[0]
        env |= {
            "NPU_MEM_QUOTA": str(first.memory_mib),
            "NPU_PRIORITY": str(first.cores),
            "NPU_GLOBAL_SHM_PATH": f"{SHARED_REGION}/{given.devices[first.uuid].index}_global_registry",
        }
        return Answer(env=env, mounts=(Mount(host=given.folder, container=SHARED_REGION, read_only=False),))
    listed = given.notes.get(f"huawei.com/{given.vendor.name}") or "[]"
    entries = {entry.get("UUID"): entry for entry in orjson.loads(listed)}
    template = entries.get(given.shares[0].uuid, {}).get("temp")
    return Answer(env={**env, "ASCEND_VNPU_SPECS": template} if template else env)


def _hygon(given: Given) -> Answer:
    """One share is a virtual device with masks of compute units; whole cards need no file."""
    share, device = given.shares[0], given.devices[given.shares[0].uuid]
    if len(given.shares) > 1 or (share.cores >= device.cores and share.memory_mib >= device.memory_mib):
        return Answer()
    units = given.units.get(share.uuid, ())
    masks = [sum(1 << (unit - low) for unit in units if low <= unit < low + 64) for low in (0, 64)]
    lines = (
        f"PciBusId: 0000:{device.index + 1:02x}:00.0",
        *(f"cu_mask: 0x{mask:016x}" for mask in masks),
        f"cu_count: {len(units)}",
        f"mem: {share.memory_mib} MiB",
        f"device_id: {device.index}",
        "vdev_id: 0",
        f"pipe_id: {(units[0] if units else 0) % QUEUES}",
        "enable: 1",
    )
    return Answer(
        mounts=(Mount(host=given.folder, container=VDEV, read_only=True),),
        files={f"{given.folder}/vdev0.conf": "\n".join(lines) + "\n"},
    )


def _amd(given: Given) -> Answer:
    return Answer(env=amd_environment(given))


def _neuron(given: Given) -> Answer:
    """Devices by index, or single cores, counted through all devices of the node."""
    if "NEURON_RESOURCE_TYPE" not in given.notes:
        return Answer(env={"AWS_NEURON_VISIBLE_DEVICES": given.indices})
    cores = []
    for share in given.shares:
        device = given.devices[share.uuid]
        cores += [device.slots * device.index + i for i in range(device.slots) if share.units >> i & 1]
    return Answer(env={"NEURON_RT_VISIBLE_CORES": ",".join(map(str, cores))})


def _by_index(variable: str) -> Callable[[Given], Answer]:
    return lambda given: Answer(env={variable: given.indices})


_OF_SECTION: Final[Mapping[str, Callable[[Given], Answer]]] = {
    "vnpus": _ascend,
    "hygon": _hygon,
    "amd": _amd,
    "awsneuron": _neuron,
    "mthreads": _by_index("MTHREADS_VISIBLE_DEVICES"),
    "enflame": _by_index("ENFLAME_VISIBLE_DEVICES"),
    "kunlun": _by_index("XPU_VISIBLE_DEVICES"),
}
"""By section of the device configuration; the others' plug-ins are not public."""
