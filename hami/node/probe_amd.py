"""AMD's GPUs through `amdsmi`, the vendor's library, where it is installed.

Written from the published binding (7.0): no AMD GPU has been at hand, so nothing here was seen on hardware. The binding
is Python over a shared library that comes with ROCm. It looks for that when it is imported, so it is imported late.

The library finds GPUs when it is initialized: one that comes or whose driver was loaded anew is seen after the next
`open`, one that goes refuses its figures from then on.
"""

import contextlib
import importlib
import io
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Self, TypeVar

from hami.model.device import Device, NodeInventory
from hami.model.names import DeviceUuid, WireError
from hami.node.probe import ProbeError
from hami.vendors.amd import AMD

log = logging.getLogger(__name__)

MIB: Final = 2**20
SLOTS: Final = 10
"""Containers that may share a GPU."""
WORD: Final = "AMD"
"""Must occur in the model: schedulers of HAMi find candidate GPUs by it."""
KFD: Final = "/dev/kfd"
"""The compute driver's node, one for all GPUs; which of them a program sees follows from its render nodes."""
DRI: Final = "/dev/dri"
PAIRED_FROM: Final = 10
"""Graphics version from which compute units work in pairs: RDNA, which the driver masks in pairs only."""


class NotInstalled(ProbeError):
    """There is no binding, or it cannot load its shared library: asking again is of no use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AmdGpu:
    """One GPU, with what a container needs to use it."""

    device: Device
    nodes: tuple[str, ...]
    """Its own device nodes on this machine."""
    paired: bool
    """Compute units are switched in pairs: 0 and 1, 2 and 3, ..."""


def amdsmi() -> ModuleType:
    """The vendor's binding. Raises NotInstalled where it, or the shared library behind it, is not installed."""
    said = io.StringIO()
    try:
        # Without its library it prints why, on standard output, and fails in one of several ways, by its release.
        with contextlib.redirect_stdout(said):
            return importlib.import_module("amdsmi")
    except ModuleNotFoundError as error:
        raise NotInstalled(f"amdsmi is not installed: {error}") from error
    except (ImportError, OSError, KeyError, AttributeError) as error:
        why = "; ".join(line.strip() for line in said.getvalue().splitlines() if line.strip())
        raise NotInstalled(f"amdsmi cannot load its library: {why or repr(error)}") from error


T = TypeVar("T")


class AmdProbe:
    """amdsmi, initialized for as long as the block lasts."""

    def __init__(
        self,
        library: ModuleType | None = None,
        *,
        slots: int = SLOTS,
        hidden: Collection[DeviceUuid] = (),
        sysfs: Path = Path("/sys"),
    ) -> None:
        """`library`: the binding, if not the installed one; `hidden` GPUs are as if they were not there.

        Raises NotInstalled where there is no binding.
        """
        self._smi: Any = library or amdsmi()
        self._slots = slots
        self._hidden = frozenset(hidden)
        self._sysfs = sysfs
        # Bindings of other releases read texts that they did not expect, or lack a function.
        self._refusals = (self._smi.AmdSmiException, ValueError, AttributeError)
        self.is_open = False
        self.left_out: Mapping[int, str] = {}
        """By index, GPUs that the last look left out, and which of their fields is why."""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def open(self) -> None:
        """Initialize, again if need be. Raises ProbeError: without a driver there is nothing to ask."""
        self.close()
        self._asked(lambda: self._smi.amdsmi_init())
        self.is_open = True

    def close(self) -> None:
        if self.is_open:
            self._optional(lambda: self._smi.amdsmi_shut_down(), None)
            self.is_open = False

    def gpus(self) -> tuple[AmdGpu, ...]:
        """Every GPU that can be handed out, by index; `left_out` says why others are not.

        Raises ProbeError when the library refuses altogether.
        """
        found: list[AmdGpu] = []
        left_out: dict[int, str] = {}
        for index, handle in enumerate(self._asked(lambda: self._smi.amdsmi_get_processor_handles())):
            try:
                found.append(self._gpu(index, handle))
            except WireError as error:
                left_out[index] = str(error)
        # Partitions of one GPU have its serial: the runtime could not tell them apart by it.
        seen = Counter(gpu.device.uuid for gpu in found)
        for gpu in found:
            if seen[gpu.device.uuid] > 1:
                again = WireError("asic_serial", "one of its own; partitions are not handed out", gpu.device.uuid)
                left_out[gpu.device.index] = str(again)
        for index, why in left_out.items():
            if self.left_out.get(index) != why:
                log.warning("AMD GPU %d is left out: %s", index, why)
        self.left_out = left_out
        usable = (gpu for gpu in found if seen[gpu.device.uuid] == 1)
        return tuple(gpu for gpu in usable if gpu.device.uuid not in self._hidden)

    def inventory(self) -> NodeInventory:
        """Every GPU that can be handed out. Raises ProbeError when the library refuses altogether."""
        return NodeInventory(vendor=AMD.name, devices=tuple(gpu.device for gpu in self.gpus()))

    def health(self) -> Mapping[DeviceUuid, str]:
        """GPUs with memory errors that could not be corrected."""
        return {d.uuid: "uncorrectable memory errors" for d in self.inventory().devices if not d.healthy}

    def wait(self, timeout_s: float) -> bool:
        """The library has no event that says that a GPU has failed: asking again does."""
        time.sleep(timeout_s)
        return False

    def _gpu(self, index: int, handle: Any) -> AmdGpu:
        """One GPU. Raises WireError for a figure without which it cannot be handed out, and names it."""
        asic: dict[str, Any] = self._needed("asic_info", lambda: self._smi.amdsmi_get_gpu_asic_info(handle))
        memory = self._needed("memory_total", lambda: self._memory(handle))
        if memory < MIB:
            raise WireError("memory_total", "bytes of memory", memory)
        units, name = asic.get("num_compute_units"), _name(asic.get("market_name"))
        if not isinstance(units, int) or units <= 0:
            raise WireError("num_compute_units", "a number above 0", units)
        numa = self._optional(lambda: int(self._smi.amdsmi_topo_get_numa_node_number(handle)), 0)
        errors: dict[str, Any] = self._optional(lambda: self._smi.amdsmi_get_gpu_total_ecc_count(handle), {})
        device = Device(
            uuid=_uuid(asic.get("asic_serial")),
            index=index,
            slots=self._slots,
            memory_mib=memory // MIB,
            cores=units,
            model=name if WORD in name else f"{WORD} {name}",
            # The library's word for no node is the largest number.
            numa=numa if 0 <= numa < 2**16 else 0,
            healthy=not errors.get("uncorrectable_count"),
        )
        return AmdGpu(device=device, nodes=self._nodes(handle), paired=_paired(asic.get("target_graphics_version")))

    def _memory(self, handle: Any) -> int:
        """Bytes."""
        return int(self._smi.amdsmi_get_gpu_memory_total(handle, self._smi.AmdSmiMemoryType.VRAM))

    def _nodes(self, handle: Any) -> tuple[str, ...]:
        """The GPU's own device nodes, by the library or, where it is older than 6.4, by the kernel's tree."""
        told: dict[str, Any] = self._optional(lambda: self._smi.amdsmi_get_gpu_enumeration_info(handle), {})
        card, render = told.get("drm_card"), told.get("drm_render")
        if isinstance(card, int) and isinstance(render, int):
            return f"{DRI}/card{card}", f"{DRI}/renderD{render}"
        address = self._needed("bdf", lambda: str(self._smi.amdsmi_get_gpu_device_bdf(handle)))
        names = sorted(path.name for path in (self._sysfs / "bus/pci/devices" / address / "drm").glob("*"))
        nodes = tuple(f"{DRI}/{name}" for name in names if re.fullmatch(r"(card|renderD)\d+", name))
        if not any("renderD" in node for node in nodes):
            raise WireError("drm_render", f"the number of the render node of {address}", render)
        return nodes

    def _needed(self, field: str, call: Callable[[], T]) -> T:
        """A figure that must be known. Raises WireError that names it."""
        try:
            return call()
        except self._refusals as error:
            raise WireError(field, "an answer", _plain(error)) from error

    def _asked(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except self._refusals as error:
            raise ProbeError(f"amdsmi: {_plain(error)}") from error

    def _optional(self, call: Callable[[], T], default: T) -> T:
        """What a GPU may refuse to tell."""
        try:
            return call()
        except self._refusals:
            return default


def unhealthy(gpu: AmdGpu) -> AmdGpu:
    """The same GPU, not to be used."""
    return replace(gpu, device=replace(gpu.device, healthy=False))


def _uuid(serial: object) -> DeviceUuid:
    """The form in which the runtime takes a GPU in ROCR_VISIBLE_DEVICES. Raises WireError for no serial."""
    if not isinstance(serial, str) or not re.fullmatch(r"0x[0-9a-fA-F]{1,16}", serial) or not int(serial, 16):
        raise WireError("asic_serial", "a hexadecimal number above 0", serial)
    return DeviceUuid(f"GPU-{int(serial, 16):016x}")


def _name(told: object) -> str:
    """A model without the separators of allocation texts."""
    name = re.sub(r"[,:;\s]+", " ", str(told or "")).strip()
    return name if name and name != "N/A" else "GPU"


def _paired(version: object) -> bool:
    """`gfx942` is version 9; of `gfx1100` the last two digits are the variant, too. Pairs never hurt: also of a GPU
    whose version is not told."""
    digits = re.fullmatch(r"gfx(\d+)[0-9a-f]{2}", str(version))
    return digits is None or int(digits[1]) >= PAIRED_FROM


def _plain(error: Exception) -> str:
    """The library's texts run over several lines."""
    return " ".join(str(error).split())
