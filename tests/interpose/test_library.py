"""The library on disk, and in processes of all kinds: what it shows, needs, limits, and leaves alone."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hami.model.wire.grant import GrantDevice, GrantFile, write_grant
from hami.node._region import Region
from tests.interpose.container import LIBRARY, PROBE, Container
from tests.interpose.cuda_client import MIB, OUT_OF_MEMORY, Client
from tests.interpose.simulation import Simulation

LIMIT_MIB = 300
CONTEXT_MIB = 100  # of the machines of these tests


@pytest.fixture
def machine(tmp_path: Path) -> Simulation:
    return Simulation(tmp_path)


@pytest.fixture
def container(tmp_path: Path, machine: Simulation) -> Container:
    return Container(tmp_path / "one", machine, memory_mib=LIMIT_MIB)


def _tool(*command: str) -> str:
    assert shutil.which(command[0]), f"{command[0]} is part of binutils"
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _alone(machine: Simulation, **more: str) -> dict[str, str]:
    """The environment of a program that has only the library of all a container is given."""
    return {"PATH": os.environ["PATH"], **machine.environment(), "LD_PRELOAD": str(LIBRARY), **more}


def test_own_lookups_are_never_called_from_inside() -> None:
    undefined = {line.split()[-1].partition("@")[0] for line in _tool("nm", "-D", "-u", str(LIBRARY)).splitlines()}
    assert not undefined & {"dlsym", "dlvsym", "dlopen"}
    assert not {name for name in undefined if name.startswith(("cu", "nvml"))}


def test_other_programs_are_left_alone(machine: Simulation, tmp_path: Path) -> None:
    region = tmp_path / "never.cache"
    environment = _alone(machine, CUDA_DEVICE_MEMORY_LIMIT="1g", CUDA_DEVICE_MEMORY_SHARED_CACHE=str(region))
    run = subprocess.run(["/bin/echo", "hello"], env=environment, capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("hello\n", "")
    assert not region.exists()


def test_without_limits_nothing_changes(machine: Simulation, tmp_path: Path) -> None:
    def info(environment: dict[str, str]) -> str:
        run = subprocess.run([PROBE, "info"], env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert run.stderr == ""
        return re.sub(r'"pid": \d+', "", run.stdout)

    before = set(tmp_path.iterdir())
    assert info(_alone(machine)) == info(machine.environment())
    assert set(tmp_path.iterdir()) == before


def test_a_container_sees_its_limit_and_ends_there(container: Container) -> None:
    info, alloc = container.run("info", "alloc", LIMIT_MIB + 1)
    (device,) = info["devices"]
    assert device["total_mib"] == device["device_total_mib"] == device["nvml_total_mib"] == LIMIT_MIB
    # The program's own context is shown as used, and is in no allocation's way.
    assert device["free_mib"] == device["nvml_free_mib"] == LIMIT_MIB - CONTEXT_MIB
    assert device["nvml_used_mib"] == CONTEXT_MIB
    assert (alloc["got_mib"], alloc["result"]) == (LIMIT_MIB, "CUDA_ERROR_OUT_OF_MEMORY")


def test_a_limit_counts_for_all_processes_of_a_container(container: Container) -> None:
    held = container.start("hold", 200, 30)
    while container.region.snapshot().devices[0].used_bytes < 200 << 20:
        assert held.process.poll() is None
    (alloc,) = container.run("alloc", LIMIT_MIB)
    assert alloc["got_mib"] == 100
    held.kill()
    (alloc,) = container.run("alloc", LIMIT_MIB)
    assert alloc["got_mib"] == LIMIT_MIB


def test_the_dead_hold_nothing_in_what_is_shown(container: Container) -> None:
    held = container.start("hold", 200, 30)
    while container.region.snapshot().devices[0].used_bytes < 200 << 20:
        assert held.process.poll() is None
    assert container.run("info")[0]["devices"][0]["free_mib"] == 0
    held.kill()
    assert container.run("info")[0]["devices"][0]["free_mib"] == LIMIT_MIB - CONTEXT_MIB


def test_a_changed_limit_counts_at_once(container: Container) -> None:
    container.region.set_limit(0, 50 << 20, 0)
    (alloc,) = container.run("alloc", 100)
    assert alloc["got_mib"] == 50


def test_two_containers_have_their_own_limits(tmp_path: Path, machine: Simulation) -> None:
    small, large = (
        Container(tmp_path / "small", machine, memory_mib=100),
        Container(tmp_path / "large", machine, memory_mib=700, devices=(1, 0)),
    )
    assert small.run("alloc", 1000)[0]["got_mib"] == 100
    (info,) = large.run("info")
    assert [device["total_mib"] for device in info["devices"]] == [700, 700]


def test_the_first_process_makes_the_region(machine: Simulation, tmp_path: Path) -> None:
    region = tmp_path / "new.cache"
    environment = _alone(
        machine,
        CUDA_DEVICE_MEMORY_LIMIT_0="100m",
        CUDA_DEVICE_MEMORY_LIMIT_1="200m",
        CUDA_DEVICE_SM_LIMIT="40",
        CUDA_DEVICE_MEMORY_SHARED_CACHE=str(region),
    )
    subprocess.run([PROBE, "info"], env=environment, capture_output=True, check=True)
    devices = Region.open(region).snapshot().devices
    assert [(device.uuid, device.limit_bytes >> 20, device.cores) for device in devices] == [
        (machine.uuids[0], 100, 40),
        (machine.uuids[1], 200, 40),
    ]


def test_a_child_without_environment_finds_the_region_beside_the_library(machine: Simulation, tmp_path: Path) -> None:
    mounted = tmp_path / "vgpu"
    container = Container(mounted, machine, memory_mib=100)
    copy = shutil.copy(LIBRARY, mounted / "libvgpu.so")
    run = subprocess.run(
        [PROBE, "alloc", "200"],
        env={**machine.environment(), "LD_PRELOAD": str(copy)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"got_mib": 100' in run.stdout
    assert container.region.snapshot().devices[0].refused == 1


class TestGrant:
    """The grant file that `hami run` names; the one in /etc/hami is read by the same code (c/config_environment.c)."""

    def run(self, machine: Simulation, grant: Path, *, sees: int = 0) -> subprocess.CompletedProcess[str]:
        # The environment would allow a gigabyte: it does not count beside a grant.
        environment = _alone(
            machine, HAMI_GRANT=str(grant), CUDA_DEVICE_MEMORY_LIMIT="1g", CUDA_VISIBLE_DEVICES=machine.uuids[sees]
        )
        words = ["info"] if sees == 0 else []
        return subprocess.run(
            [PROBE, *words, "alloc", "2000"], env=environment, capture_output=True, text=True, check=True
        )

    def test_limits(self, machine: Simulation, tmp_path: Path) -> None:
        grant = tmp_path / "grant"
        region = tmp_path / "region.cache"
        device = GrantDevice(uuid=machine.machine.devices[0].uuid, memory_mib=123, cores=30, enforced_by="library")
        grant.write_text(
            write_grant(
                GrantFile(devices=(device,), policy="default", priority=0, oversubscribe=False, region=str(region))
            )
        )
        run = self.run(machine, grant)
        assert '"got_mib": 123, "result": "CUDA_ERROR_OUT_OF_MEMORY"' in run.stdout
        assert run.stderr == ""
        # Words in the region that say otherwise are put right by the next process.
        with Region.open(region) as shared:
            shared.set_limit(0, 0, 0)
            assert '"got_mib": 123' in self.run(machine, grant).stdout
            assert shared.snapshot().devices[0].cores == 30
            assert shared.snapshot().priority == 0

    def test_a_device_that_it_does_not_name_is_closed(self, machine: Simulation, tmp_path: Path) -> None:
        grant = tmp_path / "grant"
        device = GrantDevice(uuid=machine.machine.devices[0].uuid, memory_mib=123, cores=0, enforced_by="library")
        grant.write_text(write_grant(GrantFile(devices=(device,), region=str(tmp_path / "region.cache"))))
        # The program uses the other one.
        assert '"got_mib": 0, "result": "CUDA_ERROR_OUT_OF_MEMORY"' in self.run(machine, grant, sees=1).stdout

    def test_cap_held_by_the_driver_is_only_shown(self, machine: Simulation, tmp_path: Path) -> None:
        grant = tmp_path / "grant"
        device = GrantDevice(uuid=machine.machine.devices[0].uuid, memory_mib=123, cores=0, enforced_by="driver")
        grant.write_text(write_grant(GrantFile(devices=(device,), region=str(tmp_path / "region.cache"))))
        run = self.run(machine, grant)
        assert '"total_mib": 123.000' in run.stdout
        assert '"got_mib": 2000, "result": "CUDA_SUCCESS"' in run.stdout

    def test_what_the_drivers_cap_does_not_count_is_ours_to_refuse(self, machine: Simulation, tmp_path: Path) -> None:
        grant = tmp_path / "grant"
        device = GrantDevice(uuid=machine.machine.devices[0].uuid, memory_mib=123, cores=0, enforced_by="driver")
        grant.write_text(write_grant(GrantFile(devices=(device,), region=str(tmp_path / "region.cache"))))
        environment = _alone(machine, HAMI_GRANT=str(grant), CUDA_VISIBLE_DEVICES=machine.uuids[0])
        with Client(environment) as program:
            assert program.use() == 0
            assert program.alloc(124 * MIB, "cuMemAllocManaged", 1)[0] == OUT_OF_MEMORY
            assert program.alloc(120 * MIB, "cuMemAllocManaged", 1)[0] == 0
            assert program.alloc(120 * MIB)[0] == 0, "the driver's to refuse"

    def test_mps_holds_single_processes_so_the_containers_limit_stays_ours(
        self, machine: Simulation, tmp_path: Path
    ) -> None:
        grant = tmp_path / "grant"
        device = GrantDevice(uuid=machine.machine.devices[0].uuid, memory_mib=123, cores=0, enforced_by="mps")
        grant.write_text(write_grant(GrantFile(devices=(device,), region=str(tmp_path / "region.cache"))))
        assert '"got_mib": 123, "result": "CUDA_ERROR_OUT_OF_MEMORY"' in self.run(machine, grant).stdout

    @pytest.mark.parametrize("text", [None, "", "hami-grant=1\nnonsense\n"], ids=["missing", "empty", "broken"])
    def test_unusable_means_nothing(self, machine: Simulation, tmp_path: Path, text: str | None) -> None:
        grant = tmp_path / "grant"
        if text is not None:
            grant.write_text(text)
        run = self.run(machine, grant)
        assert '"got_mib": 0, "result": "CUDA_ERROR_OUT_OF_MEMORY"' in run.stdout
        assert '"free_mib": 0.000' in run.stdout
        (line,) = run.stderr.splitlines()
        assert "grant not usable, device memory is refused: " in line
