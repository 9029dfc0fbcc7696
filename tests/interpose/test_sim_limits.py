"""Memory limits of cgroups in the simulated driver, as drivers from release 615 hold them: through NVML and CUDA."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interpose.cuda_client import MIB, OUT_OF_MEMORY, Client
from tests.interpose.simulation import Simulation

CONTEXT = 100 * MIB
TOTAL = 4096 * MIB
NEW = {"version": "615.71", "cuda": "13.4"}


def group(root: Path, name: str, *pids: int) -> Path:
    """A group of the played tree with these processes."""
    directory = root / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    return directory


class Machine(Simulation):
    """Two devices of a driver that can cap, over a played tree."""

    def __init__(self, directory: Path, **description: object) -> None:
        self.root = directory / "cgroup"
        self.root.mkdir()
        super().__init__(directory, **{"driver": NEW, "cgroups": str(self.root), **description})

    def nvml(self, code: str) -> str:
        """What a Python program prints that has device 0's handle as `d`."""
        program = (
            "import pynvml as n\nn.nvmlInit()\nd = n.nvmlDeviceGetHandleByIndex(0)\n"
            "def put(path, soft, hard):\n"
            "    n.nvmlDeviceSetMemoryLimits_v1(d, n.c_nvmlSetMemoryLimits_v1_t(path.encode(), soft, hard))\n"
            "def get(path):\n"
            "    a = n.c_nvmlGetMemoryLimits_v1_t(path.encode())\n"
            "    n.nvmlDeviceGetMemoryLimits_v1(d, a)\n"
            "    return a.softLimit, a.hardLimit, a.currentUsed\n"
            "try:\n" + "".join(f"    {line}\n" for line in code.splitlines()) + "except n.NVMLError as e: print(e)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, **self.environment()}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def limit(self, path: Path, hard: int, soft: int = 0) -> str:
        return self.nvml(f"put({str(path)!r}, {soft}, {hard})")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def client(machine: Machine) -> Iterator[Client]:
    """A program in the group `pod/main`."""
    with machine.client() as program:
        group(machine.root, "pod/main", program.process.pid)
        yield program


class TestCap:
    def test_an_unhooked_program_is_stopped_at_its_groups_limit(self, machine: Machine, client: Client) -> None:
        assert machine.limit(machine.root / "pod/main", 1000 * MIB) == ""
        assert client.use() == 0
        assert client.alloc(900 * MIB + 1)[0] == OUT_OF_MEMORY
        assert client.alloc(900 * MIB)[0] == 0, "contexts count"
        assert client.alloc(1)[0] == OUT_OF_MEMORY
        assert machine.nvml(f"print(get({str(machine.root / 'pod/main')!r}))") == str((0, 1000 * MIB, 1000 * MIB))

    def test_the_leaf_is_shown_its_limit_and_a_parents_is_held_unseen(self, machine: Machine, client: Client) -> None:
        assert machine.limit(machine.root / "pod", 1000 * MIB) == ""
        assert client.use() == 0
        assert client.info() == [0, TOTAL - CONTEXT, TOTAL]
        assert client.alloc(901 * MIB)[0] == OUT_OF_MEMORY
        assert machine.limit(machine.root / "pod/main", 500 * MIB) == ""
        assert client.info() == [0, 400 * MIB, 500 * MIB]
        assert client.alloc(401 * MIB)[0] == OUT_OF_MEMORY

    def test_children_are_in_their_parents_group_and_share_its_limit(self, machine: Machine) -> None:
        group(machine.root, "pod/main", os.getpid())
        assert machine.limit(machine.root / "pod/main", 1000 * MIB) == ""
        with machine.client() as one, machine.client() as two:
            assert (one.use(), two.use()) == (0, 0)
            assert one.alloc(500 * MIB)[0] == 0
            assert two.alloc(301 * MIB)[0] == OUT_OF_MEMORY
            assert two.alloc(300 * MIB)[0] == 0

    def test_what_a_killed_program_held_is_free_again(self, machine: Machine) -> None:
        group(machine.root, "pod/main", os.getpid())
        assert machine.limit(machine.root / "pod/main", 1000 * MIB) == ""
        with machine.client() as one, machine.client() as two:
            assert (one.use(), two.use()) == (0, 0)
            assert one.alloc(800 * MIB)[0] == 0
            one.kill()
            assert two.alloc(900 * MIB)[0] == 0

    def test_managed_memory_escapes_and_others_are_not_capped(self, machine: Machine, client: Client) -> None:
        assert machine.limit(machine.root / "pod/main", 1000 * MIB) == ""
        assert client.use() == 0
        assert client.alloc(2000 * MIB, "cuMemAllocManaged", 1)[0] == 0
        with machine.client() as stranger:
            assert stranger.use() == 0
            assert stranger.alloc(1500 * MIB)[0] == 0

    def test_a_limit_below_the_present_use_only_stops_growth(self, machine: Machine, client: Client) -> None:
        assert client.use() == 0
        rc, address, *_ = client.alloc(800 * MIB)
        assert rc == 0
        assert machine.limit(machine.root / "pod/main", 500 * MIB) == ""
        assert client.alloc(1)[0] == OUT_OF_MEMORY
        assert client.free(address) == 0
        assert client.alloc(400 * MIB)[0] == 0

    def test_taking_the_limits_away(self, machine: Machine, client: Client) -> None:
        path = machine.root / "pod/main"
        assert machine.limit(path, 500 * MIB) == ""
        assert machine.limit(path, 2**64 - 1) == ""
        assert client.use() == 0
        assert client.alloc(1000 * MIB)[0] == 0
        assert machine.nvml(f"print(get({str(path)!r}))") == "Not Found"

    def test_a_new_group_on_an_old_path_has_no_limit(self, machine: Machine) -> None:
        path = group(machine.root, "pod/main")
        assert machine.limit(path, 500 * MIB) == ""
        (path / "cgroup.procs").unlink()
        path.rmdir()
        group(machine.root, "other", os.getpid())
        assert machine.limit(group(machine.root, "third"), 700 * MIB) == ""
        with machine.client() as program:
            assert program.use() == 0
            assert program.alloc(1000 * MIB)[0] == 0


class TestRefusals:
    @pytest.mark.parametrize(
        ("soft", "hard", "answer"),
        [
            (2, 1, "Invalid Argument"),
            (0, TOTAL + 1, "Invalid Argument"),
            (TOTAL + 1, 2**64 - 1, "Invalid Argument"),
            (0, TOTAL, ""),
            (TOTAL, TOTAL, ""),
        ],
    )
    def test_what_cannot_be(self, machine: Machine, soft: int, hard: int, answer: str) -> None:
        assert machine.limit(group(machine.root, "pod"), hard, soft) == answer

    def test_a_path_that_is_no_group(self, machine: Machine) -> None:
        assert machine.limit(machine.root / "nowhere", 1 * MIB).startswith("The operating system")

    @pytest.mark.parametrize(
        "description",
        [
            pytest.param({"driver": {"version": "610.43", "cuda": "13.3"}}, id="older driver"),
            pytest.param({"cgroups": None}, id="no cgroup v2"),
            pytest.param(
                {"devices": [{"model": "NVIDIA A100-SXM4-80GB", "mig": "enabled", "count": 2}]}, id="MIG mode"
            ),
        ],
    )
    def test_where_it_is_not_offered(self, tmp_path: Path, description: dict[str, object]) -> None:
        machine = Machine(tmp_path, **description)
        path = group(machine.root, "pod", os.getpid())
        assert machine.limit(path, 100 * MIB) == "Not Supported"
        assert machine.nvml(f"print(get({str(path)!r}))") == "Not Supported"

    @pytest.mark.skipif(os.geteuid() != 0, reason="not root: there is no other user to become")
    def test_only_root_sets_and_everybody_reads(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            Path(directory).chmod(0o755)  # the other user must get there, too
            machine = Machine(Path(directory))
            path = group(machine.root, "pod")
            assert machine.limit(path, 100 * MIB) == ""
            code = f"import os; os.setuid(65534)\nprint(get({str(path)!r})[1])\nput({str(path)!r}, 0, 1)"
            assert machine.nvml(code) == f"{100 * MIB}\nInsufficient Permissions"


KERNEL_TREES = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")]


def test_the_kernels_own_tree(tmp_path: Path) -> None:
    """A program in a real cgroup is found by what the kernel says, whatever its ancestors are."""
    tree = next((path for path in KERNEL_TREES if (path / "cgroup.controllers").exists()), None)
    if tree is None or os.geteuid() != 0:
        pytest.skip("needs root and a mount of cgroup v2")
    made = tree / f"hami-test-{os.getpid()}"
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"cgroups cannot be made here: {error}")
    try:
        machine = Machine(tmp_path, cgroups=str(tree))
        assert machine.limit(made, 1000 * MIB) == ""
        with machine.client() as program:
            (made / "cgroup.procs").write_text(str(program.process.pid))
            assert program.use() == 0
            assert program.info() == [0, 900 * MIB, 1000 * MIB]
            assert program.alloc(901 * MIB)[0] == OUT_OF_MEMORY
    finally:
        made.rmdir()
