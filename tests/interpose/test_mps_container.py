"""A container of a node whose sharers run side by side, granted as the agent grants it, over the simulated driver.

With our library the container's limits hold, whatever MPS does; without it MPS holds each of its programs. The second
half is about programs that MPS does not hold, though their container was sent to it.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hami.alloc.grant import MPS_BESIDE_MIB, mps_ceiling, mps_env, mps_most, mps_own_limits
from hami.model.claim import Share
from hami.model.names import DeviceUuid
from hami.model.wire.grant import GrantDevice, GrantFile, write_grant
from hami.node._region import Region
from hami.node.installed import hook_tree
from hami.node.mps import SimulatedMps, mps_paths
from tests.interpose.container import LIBRARY
from tests.interpose.cuda_client import MIB, OUT_OF_MEMORY, Client
from tests.interpose.simulation import A100, Simulation

CONTEXT_MIB = 300
TOTAL_MIB = 8192
MS = 1_000_000
PLACE = "0123456789abcdef" * 2


@pytest.fixture
def machine(tmp_path: Path) -> Simulation:
    device = {"model": A100, "count": 2, "memory_mib": TOTAL_MIB, "context_mib": CONTEXT_MIB, "sharing": "mps"}
    return Simulation(tmp_path, devices=[device])


@dataclass
class Granted:
    """A container: its programs' environment with our library, and without."""

    machine: Simulation
    directory: Path
    terms: Mapping[str, str]
    region: Region
    uuids: Sequence[str]

    @property
    def bare(self) -> dict[str, str]:
        return self.machine.environment(NVIDIA_VISIBLE_DEVICES=",".join(self.uuids), **self.terms)

    @property
    def hooked(self) -> dict[str, str]:
        return {**self.bare, "LD_PRELOAD": str(LIBRARY), "HAMI_GRANT": str(self.directory / "grant")}

    @property
    def waited(self) -> bool:
        """Whether the library has held launches back."""
        return any(device.waited_ns for device in self.region.snapshot().devices)


def grant(
    machine: Simulation,
    directory: Path,
    *amounts: tuple[int, int],
    devices: Sequence[int] = (0,),
    accounting: str = "",
    policy: str = "default",
    named: bool = False,
) -> Granted:
    """A container with a share of each of these devices, (MiB, percent), and the node's daemon. `named`: the daemon has
    a place for each container."""
    daemon = SimulatedMps(mps_paths(hook_tree(str(directory)), None), named=named)
    daemon.start()
    uuids = [DeviceUuid(machine.uuids[i]) for i in devices]
    shares = [
        Share(uuid=uuid, kind="NVIDIA", memory_mib=memory_mib, cores=cores)
        for uuid, (memory_mib, cores) in zip(uuids, amounts, strict=True)
    ]
    region = directory / "region.cache"
    cards = tuple(
        GrantDevice(uuid=share.uuid, memory_mib=share.memory_mib, cores=share.cores, enforced_by="mps")
        for share in shares
    )
    file = GrantFile(devices=cards, region=str(region), accounting=accounting, policy=policy)
    (directory / "grant").write_text(write_grant(file))
    beside_mib = 0 if accounting == "strict" else MPS_BESIDE_MIB
    daemon.admit(PLACE, mps_ceiling(shares), mps_most(shares, beside_mib))
    told = mps_own_limits(shares, named=named)
    terms = mps_env(shares, cores=True, memory=told, beside_mib=beside_mib)
    # What is mounted where a container looks for it.
    terms["CUDA_MPS_PIPE_DIRECTORY"] = str(daemon.paths.pipe_of(PLACE))
    limits = [share.memory_mib * MIB for share in shares], [share.cores for share in shares]
    return Granted(machine, directory, terms, Region.create(region, uuids, *limits, priority=1), uuids)


@contextmanager
def programs(*environments: Mapping[str, str]) -> Iterator[list[Client]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Client(dict(environment))) for environment in environments]


class TestMemory:
    def test_a_program_gets_all_that_its_container_was_granted(self, machine: Simulation, tmp_path: Path) -> None:
        """Its context counts for MPS, not for the container: MPS must not end it before its limit does."""
        container = grant(machine, tmp_path, (1000, 30))
        with programs(container.hooked) as [program]:
            assert program.use() == 0
            assert program.info()[2] == 1000 * MIB
            assert program.alloc(1000 * MIB)[0] == 0
            assert program.info()[1:] == [0, 1000 * MIB]
            assert program.alloc(MIB)[0] == OUT_OF_MEMORY

    def test_where_contexts_are_part_of_the_limit_both_count_them(self, machine: Simulation, tmp_path: Path) -> None:
        container = grant(machine, tmp_path, (1000, 30), accounting="strict")
        container.region.expect_context(0, CONTEXT_MIB * MIB)
        with programs(container.hooked) as [program]:
            assert program.use() == 0
            assert program.info() == [0, 700 * MIB, 1000 * MIB]
            assert program.alloc(701 * MIB)[0] == OUT_OF_MEMORY
            assert program.alloc(700 * MIB)[0] == 0
        with programs(container.bare) as [program]:
            assert program.use() == 0
            assert program.info() == [0, 700 * MIB, TOTAL_MIB * MIB]

    def test_all_programs_together_have_the_containers_limit(self, machine: Simulation, tmp_path: Path) -> None:
        container = grant(machine, tmp_path, (1000, 30))
        with programs(container.hooked, container.hooked, container.hooked) as (one, two, three):
            assert [program.use() for program in (one, two, three)] == [0, 0, 0]
            assert one.alloc(600 * MIB)[0] == 0
            assert two.alloc(401 * MIB)[0] == OUT_OF_MEMORY
            assert two.alloc(400 * MIB)[0] == 0
            assert three.alloc(MIB)[0] == OUT_OF_MEMORY
            one.kill()
            assert three.alloc(600 * MIB)[0] == 0

    def test_without_the_library_each_program_is_held_alone(self, machine: Simulation, tmp_path: Path) -> None:
        container = grant(machine, tmp_path, (1000, 30))
        allowed = 1000 + MPS_BESIDE_MIB - CONTEXT_MIB
        with programs(container.bare, container.bare) as found:
            for program in found:
                assert program.use() == 0
                assert program.info() == [0, allowed * MIB, TOTAL_MIB * MIB]
                assert program.alloc((allowed + 1) * MIB)[0] == OUT_OF_MEMORY
                assert program.alloc(allowed * MIB)[0] == 0

    def test_each_device_has_its_own_limit_in_whatever_order_the_driver_has_them(
        self, machine: Simulation, tmp_path: Path
    ) -> None:
        """A container's devices come to it in the order of the machine, its shares in the order of their choice."""
        container = grant(machine, tmp_path, (3000, 30), (1000, 30), devices=(1, 0))
        for ordinal, granted in ((0, 1000), (1, 3000)):
            allowed = granted + MPS_BESIDE_MIB - CONTEXT_MIB
            with programs(container.hooked, container.bare) as (hooked, bare):
                assert (hooked.use(ordinal), bare.use(ordinal)) == (0, 0)
                assert hooked.info()[2] == granted * MIB
                assert hooked.alloc((granted + 1) * MIB)[0] == OUT_OF_MEMORY
                assert hooked.alloc(granted * MIB)[0] == 0
                assert bare.alloc((allowed + 1) * MIB)[0] == OUT_OF_MEMORY
                assert bare.alloc(allowed * MIB)[0] == 0

    def test_a_program_that_narrows_its_devices_loses_mps_limits_and_keeps_ours(
        self, machine: Simulation, tmp_path: Path
    ) -> None:
        container = grant(machine, tmp_path, (1000, 30), (1000, 30), devices=(0, 1))
        narrowed = {"CUDA_VISIBLE_DEVICES": "1"}
        with programs({**container.hooked, **narrowed}, {**container.bare, **narrowed}) as (hooked, bare):
            assert (hooked.use(), bare.use()) == (0, 0)
            assert hooked.alloc(1001 * MIB)[0] == OUT_OF_MEMORY
            assert bare.alloc(5000 * MIB)[0] == 0


def speed(program: Client, seconds: float = 2.0) -> float:
    """Percent of the device's time that its kernels take, one after the other."""
    assert program.use() == 0
    return float(program.burn(MS, seconds)) * MS / seconds / 1e9 * 100


class TestCompute:
    """A fifth of a device: kernels of 1 ms take 5 ms. Upper bounds are what a busy machine cannot exceed."""

    def test_mps_holds_a_client_and_the_library_keeps_out_of_it(self, machine: Simulation, tmp_path: Path) -> None:
        container = grant(machine, tmp_path, (1000, 20), policy="force")
        with programs(container.hooked) as [program]:
            assert 1 < speed(program) < 25
        assert not container.waited

    @pytest.mark.parametrize(
        "change",
        [
            {"CUDA_MPS_PIPE_DIRECTORY": "/nowhere"},
            {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "100"},
            {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "21"},
            {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "all of it"},
            {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": ""},
        ],
        ids=["no daemon where it looks", "has raised its share", "by a little", "nonsense", "none"],
    )
    def test_the_library_holds_whom_mps_does_not(
        self, machine: Simulation, tmp_path: Path, change: dict[str, str]
    ) -> None:
        """A program that has raised its share has that of the time at the share it named, so it loses by it."""
        container = grant(machine, tmp_path, (1000, 20), policy="force")
        with programs({**container.hooked, **change}) as [program]:
            assert 1 < speed(program) < 30
        assert container.waited

    def test_a_program_that_lost_its_environment(self, machine: Simulation, tmp_path: Path) -> None:
        """As under sshd: the library's place and the grant are files in a container, MPS's words are not."""
        container = grant(machine, tmp_path, (1000, 20), policy="force")
        kept = {name: text for name, text in container.hooked.items() if not name.startswith("CUDA_MPS")}
        with programs(kept) as [program]:
            assert 1 < speed(program) < 30
        assert container.waited

    def test_one_that_lowers_its_share_is_left_to_mps(self, machine: Simulation, tmp_path: Path) -> None:
        container = grant(machine, tmp_path, (1000, 20), policy="force")
        with programs({**container.hooked, "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "10"}) as [program]:
            assert 1 < speed(program) < 13
        assert not container.waited

    @pytest.mark.parametrize(("sent", "held"), [(True, False), (False, True)])
    def test_a_driver_that_does_not_know_the_question(self, tmp_path: Path, sent: bool, held: bool) -> None:
        """Older ones: where a program looks for the daemon is all there is to go by."""
        device = {"model": A100, "count": 2, "memory_mib": TOTAL_MIB, "context_mib": CONTEXT_MIB, "sharing": "mps"}
        refusal = {"call": "cuDeviceGetAttribute", "nth": 0, "result": "CUDA_ERROR_INVALID_VALUE"}
        machine = Simulation(tmp_path, devices=[device], faults=[refusal])
        container = grant(machine, tmp_path, (1000, 20), policy="force")
        environment = dict(container.hooked)
        if not sent:
            del environment["CUDA_MPS_PIPE_DIRECTORY"]
        with programs(environment) as [program]:
            assert speed(program) < 30
        assert container.waited == held

    def test_forked_children_are_looked_at_anew(self, machine: Simulation, tmp_path: Path) -> None:
        container = grant(machine, tmp_path, (1000, 20), policy="force")
        with programs({**container.hooked, "CUDA_MPS_PIPE_DIRECTORY": "/nowhere"}) as [program]:
            assert program.use() == 0
            assert program.forked("use") == 0
            assert 1 < speed(program) < 30

    def test_it_says_so_to_who_asks(self, machine: Simulation, tmp_path: Path) -> None:
        container = grant(machine, tmp_path, (1000, 20))
        for level, told in (("2", 1), ("1", 0)):
            log = tmp_path / f"log{level}"
            environment = {**container.hooked, "CUDA_MPS_PIPE_DIRECTORY": "/nowhere", "LIBCUDA_LOG_LEVEL": level}
            with log.open("w") as file, redirected(file.fileno()), programs(environment) as [program]:
                assert program.use() == 0
            assert log.read_text().count("MPS does not hold this program to its share; the library does") == told


class TestPlaces:
    """A daemon with names: the container's limits are its place's, out of its programs' reach."""

    def test_limits_hold_without_the_library_whatever_a_program_asks_for(
        self, machine: Simulation, tmp_path: Path
    ) -> None:
        container = grant(machine, tmp_path, (1000, 20), named=True)
        allowed = 1000 + MPS_BESIDE_MIB - CONTEXT_MIB
        raised = {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "100", "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=8G"}
        with programs(container.bare, {**container.bare, **raised}) as found:
            for program in found:
                assert program.use() == 0
                assert program.info() == [0, allowed * MIB, TOTAL_MIB * MIB]
                assert program.alloc((allowed + 1) * MIB)[0] == OUT_OF_MEMORY
                assert 1 < speed(program) < 25

    def test_a_program_that_narrows_its_devices_keeps_the_places_limit(
        self, machine: Simulation, tmp_path: Path
    ) -> None:
        container = grant(machine, tmp_path, (1000, 20), (1000, 20), devices=(0, 1), named=True)
        with programs({**container.bare, "CUDA_VISIBLE_DEVICES": "1"}) as [program]:
            assert program.use() == 0
            assert program.alloc((1001 + MPS_BESIDE_MIB - CONTEXT_MIB) * MIB)[0] == OUT_OF_MEMORY

    def test_cards_with_different_amounts(self, machine: Simulation, tmp_path: Path) -> None:
        container = grant(machine, tmp_path, (3000, 20), (1000, 20), devices=(1, 0), named=True)
        for ordinal, granted in ((0, 1000), (1, 3000)):
            with programs(container.bare) as [program]:
                assert program.use(ordinal) == 0
                assert program.info()[1] == (granted + MPS_BESIDE_MIB - CONTEXT_MIB) * MIB

    def test_with_the_library_the_container_sees_its_limit(self, machine: Simulation, tmp_path: Path) -> None:
        container = grant(machine, tmp_path, (1000, 20), named=True, policy="force")
        with programs(container.hooked, container.hooked) as (one, two):
            assert (one.use(), two.use()) == (0, 0)
            assert one.info()[2] == 1000 * MIB
            assert one.alloc(1000 * MIB)[0] == 0
            assert two.alloc(MIB)[0] == OUT_OF_MEMORY
            assert 1 < speed(one) < 25
        assert not container.waited


@contextmanager
def redirected(to: int) -> Iterator[None]:
    """Standard error of programs started meanwhile."""
    saved = os.dup(2)
    os.dup2(to, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
