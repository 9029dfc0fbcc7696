"""AMD's GPUs through `amdsmi`, the vendor's library, where it is installed.

Written from the library's documentation: no AMD GPU has been at hand, so nothing here was seen on hardware. The library
comes with ROCm; importing it looks for the shared object, so it is imported when it is first needed.
"""

import importlib
import logging
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final, Self, TypeVar

from hami.model.device import Device, NodeInventory
from hami.model.names import DeviceUuid
from hami.node.probe import ProbeError
from hami.vendors.amd import AMD

log = logging.getLogger(__name__)

MIB: Final = 2**20
SLOTS: Final = 10
"""Containers that may share a GPU."""
WORD: Final = "AMD"
"""Must occur in the model: schedulers of HAMi find candidate GPUs by it."""


def amdsmi() -> ModuleType:
    """The vendor's binding. Raises ProbeError where it, or the shared library behind it, is not installed."""
    try:
        return importlib.import_module("amdsmi")
    except (ImportError, OSError, KeyError) as error:
        # Without ROCm the binding fails in one of several ways, by its release.
        raise ProbeError(f"amdsmi is not usable: {error!r}") from error


T = TypeVar("T")


class AmdProbe:
    """amdsmi, initialized for as long as the block lasts."""

    def __init__(self, library: ModuleType | None = None, *, slots: int = SLOTS) -> None:
        """`library`: the binding, if not the installed one. Raises ProbeError where there is none."""
        self._smi: Any = library or amdsmi()
        self._slots = slots

    def __enter__(self) -> Self:
        self._asked(self._smi.amdsmi_init)
        return self

    def __exit__(self, *exc: object) -> None:
        self._optional(self._smi.amdsmi_shut_down, None)

    def inventory(self) -> NodeInventory:
        """Every GPU whose memory and compute units are known. Raises ProbeError when the library refuses altogether."""
        found = (self._device(index, handle) for index, handle in enumerate(self._handles()))
        return NodeInventory(vendor=AMD.name, devices=tuple(device for device in found if device is not None))

    def health(self) -> Mapping[DeviceUuid, str]:
        """GPUs with memory errors that could not be corrected."""
        return {d.uuid: "uncorrectable memory errors" for d in self.inventory().devices if not d.healthy}

    def wait(self, timeout_s: float) -> bool:
        """The library has no event that says that a GPU has failed: asking again does."""
        time.sleep(timeout_s)
        return False

    def _handles(self) -> list[Any]:
        return list(self._asked(self._smi.amdsmi_get_processor_handles))

    def _device(self, index: int, handle: Any) -> Device | None:
        asic: dict[str, Any] = self._optional(lambda: self._smi.amdsmi_get_gpu_asic_info(handle), {})
        vram = self._smi.AmdSmiMemoryType.VRAM
        memory = self._optional(lambda: int(self._smi.amdsmi_get_gpu_memory_total(handle, vram)), 0)
        units, serial = asic.get("num_compute_units"), str(asic.get("asic_serial") or "")
        if not memory or not isinstance(units, int) or units <= 0 or not serial.startswith("0x"):
            log.warning("AMD GPU %d is left out: its serial, memory or compute units are not known", index)
            return None
        name = str(asic.get("market_name") or "GPU").replace(",", " ").replace(":", " ")
        numa = self._optional(lambda: int(self._smi.amdsmi_topo_get_numa_node_number(handle)), 0)
        errors: dict[str, Any] = self._optional(lambda: self._smi.amdsmi_get_gpu_total_ecc_count(handle), {})
        return Device(
            # The form in which the runtime takes a GPU in ROCR_VISIBLE_DEVICES.
            uuid=DeviceUuid(f"GPU-{int(serial, 16):016x}"),
            index=index,
            slots=self._slots,
            memory_mib=memory // MIB,
            cores=units,
            model=name if WORD in name else f"{WORD} {name}",
            numa=max(0, numa),
            healthy=not errors.get("uncorrectable_count"),
        )

    def _asked(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except self._smi.AmdSmiException as error:
            raise ProbeError(f"amdsmi: {error}") from error

    def _optional(self, call: Callable[[], T], default: T) -> T:
        """What a GPU may refuse to tell."""
        try:
            return call()
        except self._smi.AmdSmiException:
            return default
