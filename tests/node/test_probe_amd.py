"""AMD's probe over a stand-in for the vendor's binding, with the calls and fields that its documentation names.

No AMD GPU was at hand: what the real library answers on hardware is not tested.
"""

import sys
from types import ModuleType
from typing import Any

import pytest

from hami.alloc.record import read_node
from hami.model.vendor import Registry
from hami.model.wire.node import write_inventory
from hami.node.probe import ProbeError
from hami.node.probe_amd import AmdProbe, amdsmi
from hami.vendors.amd import AMD

MI300X = {"market_name": "AMD Instinct MI300X", "asic_serial": "0x1f2e3d4c5b6a7988", "num_compute_units": 304}


class Refuses(Exception):
    """The library's own."""


class StandIn(ModuleType):
    """GPUs by the answers they give; a missing answer is refused."""

    AmdSmiException = Refuses

    class AmdSmiMemoryType:
        VRAM = 0

    def __init__(self, *gpus: dict[str, Any], loaded: bool = True) -> None:
        super().__init__("amdsmi")
        self.gpus, self.loaded = gpus, loaded
        self.calls: list[str] = []

    def amdsmi_init(self) -> None:
        if not self.loaded:
            raise Refuses("driver not loaded")
        self.calls.append("amdsmi_init")

    def amdsmi_shut_down(self) -> None:
        self.calls.append("amdsmi_shut_down")

    def amdsmi_get_processor_handles(self) -> list[dict[str, Any]]:
        return list(self.gpus)

    def amdsmi_get_gpu_asic_info(self, gpu: dict[str, Any]) -> Any:
        return self._told(gpu, "asic")

    def amdsmi_get_gpu_memory_total(self, gpu: dict[str, Any], kind: int) -> Any:
        return self._told(gpu, "memory")

    def amdsmi_topo_get_numa_node_number(self, gpu: dict[str, Any]) -> Any:
        return self._told(gpu, "numa")

    def amdsmi_get_gpu_total_ecc_count(self, gpu: dict[str, Any]) -> Any:
        return self._told(gpu, "ecc")

    def _told(self, gpu: dict[str, Any], what: str) -> Any:
        if what not in gpu:
            raise Refuses(what)
        return gpu[what]


def test_a_gpu_is_registered_as_schedulers_read_it() -> None:
    library = StandIn({"asic": MI300X, "memory": 196608 << 20, "numa": 1})
    with AmdProbe(library) as probe:
        (device,) = probe.inventory().devices
        assert probe.health() == {}
    assert library.calls == ["amdsmi_init", "amdsmi_shut_down"]
    assert (device.uuid, device.memory_mib, device.cores, device.numa) == ("GPU-1f2e3d4c5b6a7988", 196608, 304, 1)
    node = {
        "metadata": {"name": "n", "annotations": {AMD.node_key: write_inventory([device], "json")}},
        "status": {"allocatable": {"amd.com/gpu": "10"}},
    }
    record, problems = read_node(node, Registry((AMD,)))
    assert not problems
    assert record.inventories[0].devices == (device,)


def test_what_is_refused_is_left_out_or_taken_for_usual() -> None:
    nameless = {**MI300X, "market_name": None, "asic_serial": "0x1"}
    library = StandIn(
        {"asic": nameless, "memory": 1 << 30},
        {"asic": MI300X},
        {"memory": 1 << 30},
        {"asic": {**MI300X, "num_compute_units": "N/A"}, "memory": 1 << 30},
    )
    with AmdProbe(library) as probe:
        (device,) = probe.inventory().devices
    assert (device.uuid, device.model, device.numa, device.healthy) == ("GPU-0000000000000001", "AMD GPU", 0, True)


def test_errors_that_cannot_be_corrected_are_unhealthy() -> None:
    library = StandIn({"asic": MI300X, "memory": 1 << 30, "ecc": {"uncorrectable_count": 2, "correctable_count": 9}})
    with AmdProbe(library) as probe:
        assert probe.health() == {"GPU-1f2e3d4c5b6a7988": "uncorrectable memory errors"}


def test_without_driver_or_library_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProbeError, match="driver not loaded"), AmdProbe(StandIn(loaded=False)):
        pass
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    with pytest.raises(ProbeError, match="amdsmi is not usable"):
        amdsmi()
