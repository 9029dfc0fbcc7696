"""AMD's probe over stand-ins: one for the vendor's binding, and its real binding over one for its shared library.

No AMD GPU was at hand: what the real library answers on hardware is not tested.
"""

import sys
from pathlib import Path
from typing import Any

import pytest

from hami.alloc.record import read_node
from hami.model.names import DeviceUuid
from hami.model.vendor import Registry
from hami.model.wire.node import read_inventory, write_inventory
from hami.node.probe import Probe, ProbeError
from hami.node.probe_amd import AmdProbe, NotInstalled, amdsmi
from hami.vendors.amd import AMD
from tests.node import amd_stand_in
from tests.node.amd_stand_in import MI300X, StandIn, gpu


def test_a_gpu_is_registered_as_schedulers_read_it() -> None:
    library = StandIn(gpu(8))
    with AmdProbe(library) as opened:
        probe: Probe = opened
        (device,) = probe.inventory().devices
        assert probe.health() == {}
        assert not probe.wait(0.001)
    assert library.calls == ["amdsmi_init", "amdsmi_shut_down"]
    assert (device.uuid, device.memory_mib, device.cores, device.numa) == ("GPU-1f2e3d4c5b6a7988", 196608, 304, 8)
    node = {
        "metadata": {"name": "n", "annotations": {AMD.node_key: write_inventory([device], "json")}},
        "status": {"allocatable": {"amd.com/gpu": "10"}},
    }
    record, problems = read_node(node, Registry((AMD,)))
    assert not problems
    assert record.inventories[0].devices == (device,)


def test_what_a_container_needs_of_a_gpu() -> None:
    """Its nodes by the library, or by the kernel's tree where the library does not know them."""
    with AmdProbe(StandIn(gpu(0))) as probe:
        (found,) = probe.gpus()
    assert found.nodes == ("/dev/dri/card1", "/dev/dri/renderD128")


def test_nodes_by_the_kernels_tree(tmp_path: Path) -> None:
    tree = tmp_path / "bus/pci/devices/0000:c1:00.0/drm"
    for name in ("card7", "renderD135", "controlD71"):
        (tree / name).mkdir(parents=True)
    told = gpu(0, bdf="0000:c1:00.0")
    del told["drm"]
    with AmdProbe(StandIn(told, gpu(1, drm={}, bdf="0000:c2:00.0")), sysfs=tmp_path) as probe:
        (found,) = probe.gpus()
        assert found.nodes == ("/dev/dri/card7", "/dev/dri/renderD135")
        assert probe.left_out == {
            1: "drm_render: expected the number of the render node of 0000:c2:00.0",
        }


@pytest.mark.parametrize(
    ("version", "paired"),
    [("gfx942", False), ("gfx90a", False), ("gfx1030", True), ("gfx1100", True), ("gfx0", True), (None, True)],
)
def test_compute_units_in_pairs(version: str | None, paired: bool) -> None:
    with AmdProbe(StandIn(gpu(0, asic={**MI300X, "target_graphics_version": version}))) as probe:
        assert [found.paired for found in probe.gpus()] == [paired]


def test_what_may_be_refused_is_taken_for_usual() -> None:
    plain = gpu(0, asic={**MI300X, "market_name": "N/A", "asic_serial": "0x1"})
    del plain["numa"]
    unknown = gpu(1, asic={**MI300X, "market_name": "Radeon, new: 1;2"}, numa=2**32 - 1)
    with AmdProbe(StandIn(plain, unknown)) as probe:
        first, second = probe.inventory().devices
    assert (first.uuid, first.model, first.numa, first.healthy) == ("GPU-0000000000000001", "AMD GPU", 0, True)
    assert (second.model, second.numa) == ("AMD Radeon new 1 2", 0)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"asic": {**MI300X, "num_compute_units": "N/A"}}, "num_compute_units: expected a number above 0, got 'N/A'"),
        ({"asic": {**MI300X, "asic_serial": "N/A"}}, "asic_serial: expected a hexadecimal number above 0, got 'N/A'"),
        ({"memory": 0}, "memory_total: expected bytes of memory, got 0"),
        (
            {"memory": "much"},
            "memory_total: expected an answer, got \"invalid literal for int() with base 10: 'much'\"",
        ),
        ({"drop": "memory"}, "memory_total: expected an answer, got 'memory'"),
        ({"drop": "asic"}, "asic_info: expected an answer, got 'asic'"),
        ({"drop": "drm"}, "bdf: expected an answer, got 'bdf'"),
    ],
    ids=lambda value: str(value).partition(":")[0],
)
def test_a_figure_that_must_be_known_is_named(other: dict[str, Any], why: str) -> None:
    """The other GPU is handed out all the same."""
    drop, told = other.pop("drop", None), gpu(1, **other)
    told = {key: value for key, value in told.items() if key != drop}
    with AmdProbe(StandIn(gpu(0), told)) as probe:
        assert [device.index for device in probe.inventory().devices] == [0]
        assert probe.left_out == {1: why}


def test_a_binding_of_another_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it lacks is missing as what a GPU refuses is; without a list of GPUs there is nothing to go on with."""
    for name in ("amdsmi_topo_get_numa_node_number", "amdsmi_get_gpu_total_ecc_count"):
        monkeypatch.delattr(StandIn, name)
    with AmdProbe(StandIn(gpu(1))) as probe:
        (device,) = probe.inventory().devices
        assert (device.numa, device.healthy) == (0, True)
        monkeypatch.delattr(StandIn, "AmdSmiMemoryType")
        assert probe.gpus() == ()
        assert probe.left_out[0].startswith("memory_total: expected an answer, got ")
        monkeypatch.delattr(StandIn, "amdsmi_get_processor_handles")
        with pytest.raises(ProbeError, match="amdsmi_get_processor_handles"):
            probe.gpus()


def test_the_same_trouble_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with AmdProbe(StandIn(gpu(0, memory=0))) as probe:
        for _ in range(3):
            probe.inventory()
    assert [record.message for record in caplog.records] == [
        "AMD GPU 0 is left out: memory_total: expected bytes of memory, got 0"
    ]


def test_partitions_with_one_serial_are_not_handed_out() -> None:
    with AmdProbe(StandIn(gpu(0), gpu(1), gpu(1, drm={"drm_card": 9, "drm_render": 140}))) as probe:
        assert [device.index for device in probe.inventory().devices] == [0]
        assert probe.left_out.keys() == {1, 2}
        assert "asic_serial" in probe.left_out[1]


def test_what_a_node_hides_and_how_many_share_a_gpu() -> None:
    hidden = {DeviceUuid("GPU-1f2e3d4c5b6a7980")}
    with AmdProbe(StandIn(gpu(0), gpu(1)), slots=4, hidden=hidden) as probe:
        assert [(device.index, device.slots) for device in probe.inventory().devices] == [(1, 4)]
        assert not probe.left_out


def test_errors_that_cannot_be_corrected_are_unhealthy() -> None:
    library = StandIn(gpu(8, ecc={"uncorrectable_count": 2, "correctable_count": 9}))
    with AmdProbe(library) as probe:
        assert probe.health() == {"GPU-1f2e3d4c5b6a7988": "uncorrectable memory errors"}


def test_a_driver_that_goes_and_comes() -> None:
    library = StandIn(gpu(0))
    with AmdProbe(library) as probe:
        library.loaded = False
        with pytest.raises(ProbeError, match="driver unloaded"):
            probe.inventory()
        with pytest.raises(ProbeError, match="driver not loaded"):
            probe.open()
        library.loaded, library.gpus = True, (gpu(0), gpu(1))
        probe.open()
        assert len(probe.inventory().devices) == 2


def test_without_driver_or_library_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProbeError, match="driver not loaded"), AmdProbe(StandIn(loaded=False)):
        pass
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    with pytest.raises(NotInstalled, match="amdsmi is not installed"):
        amdsmi()


PRINTED = "from hami.node.probe_amd import AmdProbe, amdsmi, NotInstalled\n"
LISTED = f"""{PRINTED}
from hami.model.wire.node import write_inventory
with AmdProbe() as probe:
    print(write_inventory(probe.inventory().devices, "json"))
    print(*(node for gpu in probe.gpus() for node in gpu.nodes))
    print([gpu.paired for gpu in probe.gpus()], dict(probe.left_out))
"""


@pytest.fixture(scope="module")
def rocm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ROCm tree with the stand-in library."""
    if why := amd_stand_in.without_library():
        pytest.skip(why)
    return amd_stand_in.build(tmp_path_factory.mktemp("rocm"))


def test_the_stand_in_has_the_layouts_of_the_real_binding(rocm: Path, tmp_path: Path) -> None:
    code = """import ctypes, amdsmi.amdsmi_wrapper as w
sizes = (ctypes.c_uint * 3).in_dll(w._libraries["libamd_smi.so"], "stand_in_sizes")
own = w.amdsmi_asic_info_t, w.amdsmi_enumeration_info_t, w.amdsmi_error_count_t
assert list(sizes) == [ctypes.sizeof(each) for each in own], list(sizes)"""
    done = amd_stand_in.run(code, amd_stand_in.environment(rocm, tmp_path / "none"))
    assert done.returncode == 0, done.stderr


def test_the_real_binding_over_the_stand_in_library(rocm: Path, tmp_path: Path) -> None:
    described = tmp_path / "gpus"
    lines = [amd_stand_in.line(0), amd_stand_in.line(1, ue=3, gfx="1100", units=96), amd_stand_in.line(2, card=None)]
    amd_stand_in.describe(described, *lines, amd_stand_in.line(3, units=None))
    done = amd_stand_in.run(LISTED, amd_stand_in.environment(rocm, described))
    assert done.returncode == 0, done.stderr
    inventory, nodes, rest = done.stdout.splitlines()
    first, second = read_inventory(inventory, "inventory")
    assert (first.uuid, first.memory_mib, first.cores, first.numa) == ("GPU-1f2e3d4c5b6a7980", 196608, 304, 0)
    assert (first.model, first.healthy) == ("AMD Instinct MI300X", True)
    assert (second.uuid, second.cores, second.numa, second.healthy) == ("GPU-1f2e3d4c5b6a7981", 96, 1, False)
    assert nodes == "/dev/dri/card1 /dev/dri/renderD128 /dev/dri/card2 /dev/dri/renderD129"
    assert rest == str([False, True]) + " " + str(
        {
            2: "drm_render: expected the number of the render node of 0000:03:00.0",
            3: "num_compute_units: expected a number above 0, got 'N/A'",
        }
    )


def test_the_real_binding_without_driver_or_library(rocm: Path, tmp_path: Path) -> None:
    done = amd_stand_in.run(LISTED, amd_stand_in.environment(rocm, tmp_path / "none"))
    assert "ProbeError: amdsmi: Error code: 34 | AMDSMI_STATUS_DRIVER_NOT_LOADED" in done.stderr
    done = amd_stand_in.run(f"{PRINTED}amdsmi()", amd_stand_in.environment(tmp_path / "nowhere", tmp_path / "none"))
    assert done.stdout == ""
    assert "NotInstalled: amdsmi cannot load its library: " in done.stderr
    assert "libamd_smi.so: cannot open shared object file" in done.stderr


def test_a_library_that_is_older_than_its_binding(rocm: Path, tmp_path: Path) -> None:
    """It lacks functions, which the binding misses when it is imported."""
    older = amd_stand_in.build(tmp_path, older=True)
    done = amd_stand_in.run(f"{PRINTED}amdsmi()", amd_stand_in.environment(older, tmp_path / "none"))
    assert "NotInstalled: amdsmi cannot load its library: AttributeError(" in done.stderr
    assert "undefined symbol: amdsmi_" in done.stderr
