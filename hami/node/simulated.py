"""The simulated driver's side on this machine: where its libraries lie, and the state file a description compiles to.

The layout of the state file is written once, in `state.def` beside the libraries. The C side compiles it; this module
makes `ctypes` structures from the same lines, which follow the same alignment rules, so no offset is known here.
"""

import ctypes
import os
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hami.model.machine import Fault, Machine, MachineDevice
from hami.model.mig import identify

STATE_VARIABLE = "HAMI_SIM_STATE"

_SCALARS: dict[str, type[Any]] = {
    "u64": ctypes.c_uint64, "i64": ctypes.c_int64, "u32": ctypes.c_uint32, "i32": ctypes.c_int32, "text": ctypes.c_char,
}  # fmt: skip
_ROW = re.compile(r"SIM_(CONST|RECORD|ONE|MANY|END)\((\w+)(?:, (\w+))?(?:, ([\w* ]+))?(?:, \".*\")?\)")


class NativeMissing(RuntimeError):
    """The native libraries were not built or not installed."""


def native_dir() -> Path:
    """The directory with `libvgpu.so` and `sim/`: `HAMI_NATIVE_DIR`, else the package's own, else the tree's build."""
    named = os.environ.get("HAMI_NATIVE_DIR")
    package = Path(__file__).resolve().parent.parent
    candidates = [Path(named)] if named else [package / "native", package.parent / "interpose" / "build"]
    for candidate in candidates:
        if (candidate / "libvgpu.so").is_file() or (candidate / "sim" / "libcuda.so.1").is_file():
            return candidate
    looked = " or ".join(str(candidate) for candidate in candidates)
    raise NativeMissing(f"no native libraries in {looked}: build them with `make setup`")


def compile_state(machine: Machine, path: Path) -> None:
    """Write the state file of `machine`, complete before it gets its name; who maps an older one keeps that."""
    layout = _layout(_definition())
    state = layout.records["sim_state"]()
    state.magic = layout.constants["SIM_MAGIC"]
    state.version = layout.constants["SIM_VERSION"]
    state.size = ctypes.sizeof(state)
    state.device_count = len(machine.devices)
    state.fault_count = len(machine.faults)
    state.cuda_version = machine.cuda_version
    state.driver_version = machine.driver_version.encode()
    state.machine = machine.name.encode()
    state.cgroups = machine.cgroups.encode()
    for index, device in enumerate(machine.devices):
        _fill_device(state.devices[index], device, index)
        if device.model.mig:
            most = layout.constants["SIM_PROFILES"]
            _fill_profiles(state.profiles[most * index : most * (index + 1)], device)
    for index, fault in enumerate(machine.faults):
        _fill_fault(state.faults[index], fault)
    # What the libraries own starts as zeros, so everything after the description can stay a hole in the file.
    described = layout.records["sim_state"].lock.offset
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            file.write(memoryview(state).cast("B")[:described])
            file.truncate(ctypes.sizeof(state))
        os.chmod(partial, 0o666)  # processes of every user share the devices
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def state_view(buffer: Any) -> Any:
    """The state in a writable buffer (a mapping of the file) as a structure with the fields of `state.def`."""
    return _layout(_definition()).records["sim_state"].from_buffer(buffer)


def load_nvml(state: Path) -> None:
    """Make this process's NVML the simulated one on `state`; `pynvml` and others who load it by name find it."""
    os.environ[STATE_VARIABLE] = str(state)
    ctypes.CDLL(str(native_dir() / "sim" / "libnvidia-ml.so.1"), mode=ctypes.RTLD_GLOBAL)


def environment(state: Path) -> dict[str, str]:
    """What a child process needs to use the simulated driver on `state` instead of any other."""
    paths = [str(native_dir() / "sim"), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {STATE_VARIABLE: str(state), "LD_LIBRARY_PATH": os.pathsep.join(paths)}


def _fill_device(row: Any, device: MachineDevice, index: int) -> None:
    row.memory_bytes = device.memory_mib << 20
    row.context_bytes = device.context_mib << 20
    row.time_slice_ns = device.time_slice_us * 1000
    row.side_by_side = device.side_by_side
    row.sm_count = device.sm_count
    row.capability_major, row.capability_minor = device.capability
    row.numa = device.numa
    row.mig_mode = device.mig
    row.mig_capable = device.model.mig
    row.pci_bus = 0x07 + 8 * index
    row.pci_device = device.model.pci_device << 16 | 0x10DE
    row.switch_links = device.switch_links
    row.bus_width = device.model.bus_width
    row.sm_clock_mhz = device.model.sm_clock_mhz
    row.memory_clock_mhz = device.model.memory_clock_mhz
    row.power_limit_mw = device.model.power_w * 1000
    for peer, links in enumerate(device.peer_links):
        row.peer_links[peer] = links
    row.uuid = device.uuid.encode()
    row.name = device.model.name.encode()
    row.serial = f"13219{int(device.uuid[4:12], 16) % 100_000_000:08d}".encode()


def _fill_profiles(rows: Sequence[Any], device: MachineDevice) -> None:
    """The MIG profiles of the device's model; memory other than the model's is cut in the same proportions."""
    model = identify(device.model.name, device.model.memory_mib)
    if model is None:
        return
    for row, profile in zip(rows, model.profiles, strict=False):
        row.memory_bytes = (profile.memory_mib * device.memory_mib // device.model.memory_mib) << 20
        row.id = profile.shape.profile_id
        row.number = profile.shape.nvml_index
        row.slices = profile.shape.slices
        row.size = profile.shape.size
        row.starts = sum(1 << start for start in profile.shape.starts)
        row.most = profile.shape.instances
        row.sm_count = min(profile.sm_count, device.sm_count)
        row.media = profile.name.media
        row.name = str(profile.name).encode()


def _fill_fault(row: Any, fault: Fault) -> None:
    row.call = fault.call.encode()
    row.nth = fault.nth
    row.delay_ns = fault.delay_ms * 1_000_000
    row.random_ns = fault.random_ms * 1_000_000
    row.after_ns = int(fault.after_s * 1_000_000_000)
    row.has_result = fault.result is not None
    row.result = fault.result or 0
    row.absent = fault.absent
    row.crash = fault.crash
    row.device = fault.device
    row.xid = fault.xid
    row.lost = fault.lost


class _Layout:
    """Constants and structures of one `state.def`."""

    def __init__(self, text: str) -> None:
        self.constants: dict[str, int] = {}
        self.records: dict[str, type[Any]] = {}
        fields: list[tuple[str, Any]] = []
        for line in text.splitlines():
            if not line.startswith("SIM_"):
                continue
            match = _ROW.fullmatch(line)
            if match is None:
                raise NativeMissing(f"state.def: cannot read {line!r}")
            kind, first, second, count = match.groups()
            if kind == "CONST":
                self.constants[first] = int(second, 0)
            elif kind == "RECORD":
                fields = []
            elif kind == "ONE":
                fields.append((second, self._type(first)))
            elif kind == "MANY":
                fields.append((second, self._type(first) * self._number(count)))
            else:
                self.records[first] = type(first, (ctypes.Structure,), {"_fields_": fields})

    def _type(self, name: str) -> Any:
        return _SCALARS.get(name) or self.records[name]

    def _number(self, text: str) -> int:
        product = 1
        for factor in text.split("*"):
            word = factor.strip()
            product *= self.constants[word] if word in self.constants else int(word)
        return product


def _definition() -> Path:
    path = native_dir() / "sim" / "state.def"
    if not path.is_file():
        raise NativeMissing(f"{path} is missing: the simulated driver was not built or not installed whole")
    return path


@cache
def _layout(path: Path) -> _Layout:
    if sys.byteorder != "little":
        raise NativeMissing("the simulated driver's state is defined for little-endian machines")
    return _Layout(path.read_text())
