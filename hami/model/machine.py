"""The description of a simulated machine: a document that people write (YAML or JSON, already parsed) to frozen values.

One description serves the simulated driver, `hami agent --simulate`, `hami run --simulate`, the demo and the tests.
Only this module knows how it is written; `hami.node.simulated` compiles the values into the simulated driver's state.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from hami.model.gpu_models import BY_NAME, GpuModel
from hami.model.machine_cards import MAX_CARDS, MachineCard, read_card
from hami.model.names import DeviceUuid, WireError

MAX_DEVICES: Final = 16
MAX_FAULTS: Final = 32

RESULTS: Final[Mapping[str, int]] = {
    "CUDA_SUCCESS": 0, "CUDA_ERROR_INVALID_VALUE": 1, "CUDA_ERROR_OUT_OF_MEMORY": 2, "CUDA_ERROR_NOT_INITIALIZED": 3,
    "CUDA_ERROR_DEINITIALIZED": 4, "CUDA_ERROR_DEVICE_UNAVAILABLE": 46, "CUDA_ERROR_NO_DEVICE": 100,
    "CUDA_ERROR_INVALID_DEVICE": 101, "CUDA_ERROR_INVALID_CONTEXT": 201, "CUDA_ERROR_ECC_UNCORRECTABLE": 214,
    "CUDA_ERROR_OPERATING_SYSTEM": 304, "CUDA_ERROR_INVALID_HANDLE": 400, "CUDA_ERROR_NOT_FOUND": 500,
    "CUDA_ERROR_NOT_READY": 600, "CUDA_ERROR_ILLEGAL_ADDRESS": 700, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES": 701,
    "CUDA_ERROR_LAUNCH_TIMEOUT": 702, "CUDA_ERROR_LAUNCH_FAILED": 719, "CUDA_ERROR_NOT_PERMITTED": 800,
    "CUDA_ERROR_NOT_SUPPORTED": 801, "CUDA_ERROR_SYSTEM_NOT_READY": 802, "CUDA_ERROR_UNKNOWN": 999,
    "NVML_SUCCESS": 0, "NVML_ERROR_UNINITIALIZED": 1, "NVML_ERROR_INVALID_ARGUMENT": 2, "NVML_ERROR_NOT_SUPPORTED": 3,
    "NVML_ERROR_NO_PERMISSION": 4, "NVML_ERROR_NOT_FOUND": 6, "NVML_ERROR_INSUFFICIENT_SIZE": 7,
    "NVML_ERROR_DRIVER_NOT_LOADED": 9, "NVML_ERROR_TIMEOUT": 10, "NVML_ERROR_GPU_IS_LOST": 15,
    "NVML_ERROR_RESET_REQUIRED": 16, "NVML_ERROR_MEMORY": 20, "NVML_ERROR_NO_DATA": 21, "NVML_ERROR_UNKNOWN": 999,
}  # fmt: skip
"""Results that a fault may name; any other is written as its number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineDevice:
    """One simulated device."""

    uuid: DeviceUuid
    model: GpuModel
    memory_mib: int
    sm_count: int
    capability: tuple[int, int]
    numa: int
    """-1 = none."""
    mig: bool
    """The MIG mode bit at start."""
    context_mib: int
    """What a context costs."""
    time_slice_us: int
    side_by_side: bool
    """MPS: work of several processes shares the device continuously instead of in turns."""
    switch_links: int
    """NVLinks to a switch."""
    peer_links: tuple[int, ...]
    """NVLinks directly to each device of the machine, by index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that goes wrong on purpose: in a call, or (with `xid` or `lost`) on a device."""

    call: str = ""
    nth: int = 0
    """The call it hits, counted over all processes; 0 = every one."""
    result: int | None = None
    delay_ms: int = 0
    random_ms: int = 0
    """Longer than `delay_ms` by chance, by at most this."""
    absent: bool = False
    crash: bool = False
    device: int = 0
    xid: int = 0
    lost: bool = False
    """The device falls off the bus: whatever needs it answers with an error."""
    after_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A whole machine."""

    name: str
    driver_version: str
    cuda_version: int
    """1000 * major + 10 * minor."""
    devices: tuple[MachineDevice, ...]
    cgroups: str = ""
    """Root of the cgroup tree whose groups' memory the driver can cap, from release 615 on; empty = it cannot. Either
    the kernel's (a mount of cgroup v2) or directories that play one, with the pids of a group in its `cgroup.procs`."""
    faults: tuple[Fault, ...] = ()
    cards: tuple[MachineCard, ...] = ()
    """Devices of other families: the simulated driver knows nothing of them."""


def read_machine(document: object, default_name: str) -> Machine:
    """The machine a description describes; `default_name` where it names none. WireError names the bad field."""
    root = _mapping(document, "machine")
    _known(root, "machine", ("name", "driver", "devices", "links", "cgroups", "faults"))
    name = _text(root, "name", "machine") or default_name
    if not name or len(name.encode()) >= 64:
        raise WireError("machine.name", "1 to 63 bytes", name)
    cgroups = _text(root, "cgroups", "machine") or ""
    if cgroups and (not cgroups.startswith("/") or cgroups.endswith("/") or len(cgroups.encode()) >= 256):
        raise WireError("machine.cgroups", "an absolute path of at most 255 bytes, without a slash at its end", cgroups)
    driver = _mapping(root.get("driver") or {}, "machine.driver")
    _known(driver, "machine.driver", ("version", "cuda"))
    version = _text(driver, "version", "machine.driver") or "550.90.07"
    if len(version.encode()) >= 32:
        raise WireError("machine.driver.version", "at most 31 bytes", version)
    devices, cards = _read_devices(root.get("devices"), name)
    return Machine(
        name=name,
        driver_version=version,
        cuda_version=_cuda(_text(driver, "cuda", "machine.driver") or "12.4"),
        devices=_linked(devices, root.get("links")),
        cgroups=cgroups,
        faults=_read_faults(root.get("faults"), len(devices)),
        cards=cards,
    )


def derived_uuid(machine: str, index: int) -> DeviceUuid:
    """The UUID of a device that is given none: the same for the same machine name and index, always."""
    digest = hashlib.sha256(f"{machine}/{index}".encode()).hexdigest()
    parts = (digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32])
    return DeviceUuid("GPU-" + "-".join(parts))


_DEVICE_KEYS = (
    "model", "count", "numa", "memory_mib", "sm_count", "compute_capability", "uuid", "mig", "context_mib",
    "time_slice_us", "sharing",
)  # fmt: skip
_UUID = re.compile(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _read_devices(value: object, machine: str) -> tuple[tuple[MachineDevice, ...], tuple[MachineCard, ...]]:
    """The GPUs, and the devices of other families."""
    devices: list[MachineDevice] = []
    cards: list[MachineCard] = []
    for position, entry in enumerate(_sequence(value, "machine.devices")):
        field = f"machine.devices[{position}]"
        group = _mapping(entry, field)
        if "family" in group:
            cards += _read_cards(group, field, machine, cards)
            continue
        _known(group, field, _DEVICE_KEYS)
        count = _integer(group.get("count", 1), f"{field}.count", 1, MAX_DEVICES)
        for number in range(count):
            if len(devices) == MAX_DEVICES:
                raise WireError("machine.devices", f"at most {MAX_DEVICES} devices")
            devices.append(_read_device(_one_of(group, number, count, field), field, machine, len(devices)))
    if not devices and not cards:
        raise WireError("machine.devices", "at least one device")
    uuids = [device.uuid for device in devices] + [card.uuid for card in cards]
    if len(set(uuids)) != len(uuids):
        raise WireError("machine.devices", "distinct UUIDs")
    return tuple(devices), tuple(cards)


def _read_cards(group: Mapping[str, Any], field: str, machine: str, before: Sequence[MachineCard]) -> list[MachineCard]:
    """The devices of one group, counted on after those of its family that came before."""
    count = _integer(group.get("count", 1), f"{field}.count", 1, MAX_CARDS)
    first = sum(card.family == group["family"] for card in before)
    if first + count > MAX_CARDS:
        raise WireError(f"{field}.count", f"at most {MAX_CARDS} devices of a family")
    return [read_card(_one_of(group, i, count, field), field, machine, first + i) for i in range(count)]


def _one_of(group: Mapping[str, Any], number: int, count: int, field: str) -> Mapping[str, Any]:
    """The values of device `number` of a group: a list gives each its own, anything else serves all."""
    values = {}
    for key, value in group.items():
        if isinstance(value, list):
            if len(value) != count:
                raise WireError(f"{field}.{key}", f"one value or a list of {count}", value)
            value = value[number]
        values[key] = value
    return values


def _read_device(values: Mapping[str, Any], field: str, machine: str, index: int) -> MachineDevice:
    name = _text(values, "model", field)
    model = BY_NAME.get(name or "")
    if model is None:
        # An unknown product must say what a known one fills in.
        model = _unknown_model(values, field, name)
    uuid = _text(values, "uuid", field) or derived_uuid(machine, index)
    if not _UUID.fullmatch(uuid):
        raise WireError(f"{field}.uuid", "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx in lower case", uuid)
    mig = _word(values.get("mig", "disabled"), f"{field}.mig", ("disabled", "enabled")) == "enabled"
    if mig and not model.mig:
        raise WireError(f"{field}.mig", f"disabled: {model.name} has no MIG mode")
    memory = _integer(_given(values, "memory_mib", model.memory_mib), f"{field}.memory_mib", 1, 1 << 24)
    capability = values.get("compute_capability")
    return MachineDevice(
        uuid=DeviceUuid(uuid),
        model=model,
        memory_mib=memory,
        sm_count=_integer(_given(values, "sm_count", model.sm_count), f"{field}.sm_count", 1, 4096),
        capability=model.capability if capability is None else _capability(capability, f"{field}.compute_capability"),
        numa=_integer(_given(values, "numa", 0), f"{field}.numa", -1, 1023),
        mig=mig,
        context_mib=_integer(_given(values, "context_mib", 300), f"{field}.context_mib", 0, memory),
        time_slice_us=_integer(_given(values, "time_slice_us", 2000), f"{field}.time_slice_us", 10, 10_000_000),
        side_by_side=_word(_given(values, "sharing", "time-slice"), f"{field}.sharing", ("time-slice", "mps")) == "mps",
        switch_links=0,
        peer_links=(),
    )


def _unknown_model(values: Mapping[str, Any], field: str, name: str | None) -> GpuModel:
    needed = ("memory_mib", "sm_count", "compute_capability")
    if not name or len(name.encode()) >= 96 or any(values.get(key) is None for key in needed):
        raise WireError(
            f"{field}.model", f"a known model ({', '.join(BY_NAME)}), or any other with {', '.join(needed)}", name
        )
    return GpuModel(
        name=name,
        memory_mib=_integer(values["memory_mib"], f"{field}.memory_mib", 1, 1 << 24),
        sm_count=_integer(values["sm_count"], f"{field}.sm_count", 1, 4096),
        capability=_capability(values["compute_capability"], f"{field}.compute_capability"),
        pci_device=0x20FF,
        bus_width=384,
        sm_clock_mhz=1500,
        memory_clock_mhz=5000,
        power_w=300,
    )


def _linked(devices: tuple[MachineDevice, ...], value: object) -> tuple[MachineDevice, ...]:
    """The devices with their NVLinks: all to a switch, some to each other, or none."""
    links = _mapping(value or {}, "machine.links")
    _known(links, "machine.links", ("nvlink", "pairs"))
    pairs = [[0] * len(devices) for _ in devices]
    nvlink = links.get("nvlink") or "none"
    if isinstance(nvlink, Mapping):
        _known(nvlink, "machine.links.nvlink", ("pairs",))
        listed = nvlink.get("pairs")
        nvlink = "none"
    else:
        nvlink = _word(nvlink, "machine.links.nvlink", ("switch", "none"))
        listed = links.get("pairs")
    for position, entry in enumerate(_sequence(listed, "machine.links.pairs") if listed is not None else ()):
        field = f"machine.links.pairs[{position}]"
        triple = _sequence(entry, field)
        if len(triple) != 3:
            raise WireError(field, "[device, device, links]", entry)
        a, b = (_integer(end, field, 0, len(devices) - 1) for end in triple[:2])
        if a == b:
            raise WireError(field, "two different devices", entry)
        pairs[a][b] = pairs[b][a] = _integer(triple[2], field, 1, 36)
    for index, row in enumerate(pairs):
        if sum(row) > 36:
            raise WireError("machine.links.pairs", f"at most 36 links on device {index}", sum(row))
    return tuple(
        replace(device, switch_links=(device.model.nvlinks or 12) if nvlink == "switch" else 0, peer_links=tuple(row))
        for device, row in zip(devices, pairs, strict=True)
    )


_CALL = re.compile(r"(cu|nvml)[A-Z]\w{1,60}")


def _read_faults(value: object, device_count: int) -> tuple[Fault, ...]:
    faults = []
    for position, entry in enumerate(_sequence(value, "machine.faults") if value is not None else ()):
        field = f"machine.faults[{position}]"
        row = _mapping(entry, field)
        if "call" in row:
            _known(row, field, ("call", "nth", "result", "delay_ms", "random_ms", "absent", "crash"))
            call = _text(row, "call", field) or ""
            if not _CALL.fullmatch(call):
                raise WireError(f"{field}.call", "the name of a function of the driver", call)
            faults.append(
                Fault(
                    call=call,
                    nth=_integer(row.get("nth", 0), f"{field}.nth", 0, 1 << 60),
                    result=None if row.get("result") is None else _result(row["result"], f"{field}.result"),
                    delay_ms=_integer(row.get("delay_ms", 0), f"{field}.delay_ms", 0, 86_400_000),
                    random_ms=_integer(row.get("random_ms", 0), f"{field}.random_ms", 0, 86_400_000),
                    absent=_truth(row.get("absent", False), f"{field}.absent"),
                    crash=_truth(row.get("crash", False), f"{field}.crash"),
                )
            )
        else:
            _known(row, field, ("device", "xid", "lost", "after_s"))
            lost = _truth(row.get("lost", False), f"{field}.lost")
            faults.append(
                Fault(
                    device=_integer(row.get("device"), f"{field}.device", 0, device_count - 1),
                    xid=0 if lost and "xid" not in row else _integer(row.get("xid"), f"{field}.xid", 1, 1023),
                    lost=lost,
                    after_s=_seconds(row.get("after_s", 0), f"{field}.after_s"),
                )
            )
    if len(faults) > MAX_FAULTS:
        raise WireError("machine.faults", f"at most {MAX_FAULTS} rows", len(faults))
    return tuple(faults)


# ---- reading single values


def _mapping(value: object, field: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise WireError(field, "a mapping", value)
    return value


def _sequence(value: object, field: str) -> Sequence[object]:
    if not isinstance(value, list):
        raise WireError(field, "a list", value)
    return value


def _known(mapping: Mapping[str, Any], field: str, keys: tuple[str, ...]) -> None:
    for key in mapping:
        if key not in keys:
            raise WireError(f"{field}.{key}", f"one of the keys {', '.join(keys)}")


def _given(mapping: Mapping[str, Any], key: str, default: object) -> object:
    """The value of `key`; null means the default too."""
    value = mapping.get(key)
    return default if value is None else value


def _text(mapping: Mapping[str, Any], key: str, field: str) -> str | None:
    value = mapping.get(key)
    if value is None or (isinstance(value, str) and "\0" not in value):
        return value
    raise WireError(f"{field}.{key}", "a text", value)


def _word(value: object, field: str, words: tuple[str, ...]) -> str:
    if isinstance(value, str) and value in words:
        return value
    raise WireError(field, " or ".join(words), value)


def _integer(value: object, field: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise WireError(field, f"an integer from {low} to {high}", value)
    return value


def _seconds(value: object, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:
        raise WireError(field, "seconds, not negative", value)
    return float(value)


def _truth(value: object, field: str) -> bool:
    if not isinstance(value, bool):
        raise WireError(field, "true or false", value)
    return value


def _capability(value: object, field: str) -> tuple[int, int]:
    """`"8.0"`; an unquoted 8.0 arrives as a number and says the same."""
    match = re.fullmatch(r"(\d{1,2})\.(\d)", str(value)) if isinstance(value, str | float) else None
    if match is None:
        raise WireError(field, 'a version such as "8.0"', value)
    return int(match[1]), int(match[2])


def _cuda(value: str) -> int:
    match = re.fullmatch(r"(\d{1,2})\.(\d{1,2})", value)
    if match is None:
        raise WireError("machine.driver.cuda", 'a version such as "12.4"', value)
    return int(match[1]) * 1000 + int(match[2]) * 10


def _result(value: object, field: str) -> int:
    if isinstance(value, str) and value in RESULTS:
        return RESULTS[value]
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 9999:
        return value
    raise WireError(field, "the name or number of a result", value)
