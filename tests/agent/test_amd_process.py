"""`hami agent` as a process on a machine with AMD GPUs: AMD's real binding over a stand-in for its shared library.

No AMD GPU was at hand. The kubelet is on real sockets, the API server scripted.
"""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import anyio
import pytest

from hami.alloc.ledger import Ledger
from hami.alloc.record import read_node
from hami.model.vendor import Registry
from hami.model.wire import pod as keys
from hami.model.wire.node import read_inventory
from hami.vendors.amd import AMD
from tests.agent.conftest import NODE
from tests.agent.fake_kubelet import FakeKubelet
from tests.agent.scheduling import bind
from tests.agent.test_amd import UUIDS, nodes, pod, units
from tests.agent.test_service import until
from tests.fakes.apiserver import FakeApi
from tests.fakes.loop import guarded_loop
from tests.node import amd_stand_in

pytestmark = pytest.mark.anyio
KNOWN = Registry((AMD,))
NVIDIA_REGISTER = "hami.io/node-nvidia-register"
# A driver of this machine, if there is one, is none of the test's.
WITHOUT_NVIDIA = "import pynvml\ndef absent():\n raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)\n"
WITHOUT_NVIDIA += "pynvml.nvmlInit = absent\n"


@dataclass
class Machine:
    """A machine with the stand-in library, beside a kubelet and an API server."""

    root: Path
    rocm: Path
    api: FakeApi
    kubelet: FakeKubelet

    @property
    def described(self) -> Path:
        return self.root / "gpus"

    def describe(self, *lines: str) -> None:
        amd_stand_in.describe(self.described, *lines)

    @contextmanager
    def agent(self, *flags: str, nvidia: bool = False, rocm: Path | None = None) -> Iterator["subprocess.Popen[str]"]:
        """With `nvidia`, beside a simulated NVIDIA device; else on a machine without NVIDIA's driver."""
        arguments = [
            "agent",
            f"--node-name={NODE}",
            f"--kubeconfig={self.api.kubeconfig(self.root)}",
            f"--device-plugin-dir={self.kubelet.directory}",
            f"--pod-resources-socket={self.kubelet.pod_resources}",
            f"--cdi-dir={self.root / 'cdi'}",
            f"--hook-path={self.root / 'hook'}",
            f"--host-pid-dir={self.root / 'hostpid'}",
            *([f"--simulate={self.root / 'machine.yaml'}"] if nvidia else []),
            *flags,
        ]
        (self.root / "machine.yaml").write_text("devices: [{model: Tesla T4}]\n")
        start = f"import sys\n{'' if nvidia else WITHOUT_NVIDIA}from hami.__main__ import main\nsys.exit(main())"
        environment = {key: value for key, value in os.environ.items() if key not in {"HAMI_SIM_STATE", "KUBECONFIG"}}
        environment |= amd_stand_in.environment(rocm or self.rocm, self.described)
        process = subprocess.Popen(
            [sys.executable, "-c", start, *arguments], env=environment, stderr=subprocess.PIPE, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    async def registered(self, ids: int) -> None:
        await until(lambda: len(self.kubelet.devices) == ids and AMD.node_key in self.notes(), 30)

    def notes(self, name: str = "") -> Mapping[str, str]:
        document = self.api.get("pods", name, "default") if name else self.api.get("nodes", NODE)
        found: dict[str, str] = document["metadata"].get("annotations", {})
        return found

    def ledger(self) -> Ledger:
        """What a scheduler knows of the node."""
        capacity = {AMD.resources.count: str(len(self.kubelet.devices))}
        document = {**self.api.get("nodes", NODE), "status": {"capacity": capacity, "allocatable": capacity}}
        record, problems = read_node(document, KNOWN)
        assert not problems
        ledger = Ledger(KNOWN)
        ledger.put_node(record)
        return ledger


@pytest.fixture(scope="module")
def rocm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ROCm tree with the stand-in library."""
    if why := amd_stand_in.without_library():
        pytest.skip(why)
    return amd_stand_in.build(tmp_path_factory.mktemp("rocm"))


@pytest.fixture
async def machine(tmp_path: Path, rocm: Path) -> AsyncIterator[Machine]:
    async with (
        guarded_loop(),
        FakeApi.serving() as api,
        FakeKubelet.running(tmp_path, AMD.resources.count) as kubelet,
    ):
        api.put("nodes", {"metadata": {"name": NODE}})
        made = Machine(tmp_path, rocm, api, kubelet)
        made.describe(amd_stand_in.line(0), amd_stand_in.line(1))
        yield made


async def test_a_node_without_nvidia(machine: Machine) -> None:
    """Two pods on one GPU, one of them before the agent ends and one after its next start."""
    with machine.agent("--metrics-bind-address=") as process:
        await machine.registered(20)
        devices = read_inventory(machine.notes()[AMD.node_key], AMD.node_key)
        assert [(d.uuid, d.memory_mib, d.cores, d.numa, d.healthy) for d in devices] == [
            (UUIDS[0], 196608, 304, 0, True),
            (UUIDS[1], 196608, 304, 1, True),
        ]
        assert machine.notes().keys() == {AMD.node_key}
        ledger = machine.ledger()
        bind(pod("a"), AMD, ledger, machine.api)
        await machine.kubelet.admit(machine.api.get("pods", "a", "default"))
        process.terminate()
        await until(lambda: process.poll() is not None, 10)
        assert process.returncode == 0
    with machine.agent("--metrics-bind-address="):
        await machine.registered(20)
        bind(pod("b"), AMD, ledger, machine.api)
        await machine.kubelet.admit(machine.api.get("pods", "b", "default"))
    first, second = (machine.kubelet.answers[name, "main"] for name in ("a", "b"))
    assert nodes(first) == nodes(second) == ["/dev/kfd", "/dev/dri/card2", "/dev/dri/renderD129"]
    assert (units(first), units(second)) == (set(range(76)), set(range(76, 152)))
    for name in ("a", "b"):
        assert machine.notes(name)[keys.BIND_PHASE] == keys.SUCCESS
    assert keys.NODE_LOCK not in machine.notes()


async def test_a_gpu_that_falls_ill_and_one_that_goes(machine: Machine) -> None:
    with machine.agent("--metrics-bind-address="):
        await machine.registered(20)
        machine.describe(amd_stand_in.line(0, ue=1), "gone")
        await until(lambda: set(machine.kubelet.devices) == {f"{UUIDS[0]}-{i}" for i in range(10)}, 20)
        await until(lambda: set(machine.kubelet.devices.values()) == {"Unhealthy"}, 20)
        await until(lambda: bool(machine.api.all("events")), 20)
    (event,) = machine.api.all("events")
    assert event["message"].startswith("AMD GPU 1 is left out: asic_info: expected an answer, got")


async def test_settings_of_the_node(machine: Machine) -> None:
    """Fewer sharers, and one GPU that is not to be shared."""
    hidden = {"nodeconfig": [{"name": NODE, "devicesplitcount": 3, "filterdevices": {"uuid": [UUIDS[0]]}}]}
    (machine.root / "nodes.json").write_text(json.dumps(hidden))
    with machine.agent(f"--node-config-file={machine.root / 'nodes.json'}", "--metrics-bind-address="):
        await machine.registered(3)
    assert set(machine.kubelet.devices) == {f"{UUIDS[1]}-{i}" for i in range(3)}


async def test_without_a_section_in_the_configuration(machine: Machine) -> None:
    (machine.root / "devices.yaml").write_text("nvidia: {deviceSplitCount: 2}\n")
    flags = f"--device-config-file={machine.root / 'devices.yaml'}", "--metrics-bind-address="
    with machine.agent("--amd", *flags, nvidia=True) as process:
        await until(lambda: NVIDIA_REGISTER in machine.notes(), 30)
        process.terminate()
        _, told = process.communicate(timeout=20)
    assert "AMD's GPUs are not served: no section amd is configured" in told
    assert AMD.node_key not in machine.notes()


async def test_beside_nvidia(machine: Machine) -> None:
    """Both families of one node; a simulated machine has real AMD GPUs only where somebody says so."""
    with machine.agent("--amd", "--metrics-bind-address=", nvidia=True):
        await machine.registered(20)
        await until(lambda: NVIDIA_REGISTER in machine.notes(), 20)
        assert {"nvidia.com/gpu", "amd.com/gpu"} <= {each.resource_name for each in machine.kubelet.registrations}
        bind(pod("a"), AMD, machine.ledger(), machine.api)
        await machine.kubelet.admit(machine.api.get("pods", "a", "default"))
    assert machine.kubelet.answers["a", "main"].envs["ROCR_VISIBLE_DEVICES"] == UUIDS[1]


async def test_the_library_fails_and_nvidia_is_served(machine: Machine) -> None:
    """One line says why; the agent goes on."""
    with machine.agent("--amd", "--metrics-bind-address=", nvidia=True, rocm=machine.root / "nowhere") as process:
        await until(lambda: NVIDIA_REGISTER in machine.notes(), 30)
        await until(lambda: any(r.resource_name == "nvidia.com/gpu" for r in machine.kubelet.registrations), 20)
        process.terminate()
        _, told = process.communicate(timeout=20)
    (line,) = [line for line in told.splitlines() if "AMD" in line or "amdsmi" in line]
    assert "ERROR" in line
    assert "AMD's GPUs are not served: amdsmi cannot load its library: " in line
    assert "libamd_smi.so: cannot open shared object file" in line
    assert AMD.node_key not in machine.notes()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((), "amdsmi: Error code: 34 | AMDSMI_STATUS_DRIVER_NOT_LOADED"),
        (("--amd=false",), ""),
    ],
    ids=["neither", "not AMD"],
)
async def test_without_any_driver_it_ends_and_names_what_is_missing(
    machine: Machine, flags: tuple[str, ...], told: str
) -> None:
    machine.described.unlink()
    with machine.agent(*flags, "--metrics-bind-address=") as process:
        await until(lambda: process.poll() is not None, 30)
        _, said = process.communicate(timeout=10)
    assert process.returncode == 69
    last = said.strip().splitlines()[-1]
    assert last.startswith("hami agent: NVML: ")
    assert ("amdsmi" in last) is bool(told)
    assert told in last


async def test_a_gpu_that_cannot_be_handed_out_is_named_where_there_is_no_other(machine: Machine) -> None:
    machine.describe(amd_stand_in.line(0, units=None))
    with machine.agent("--metrics-bind-address=") as process:
        await until(lambda: process.poll() is not None, 30)
        _, said = process.communicate(timeout=10)
    assert process.returncode == 69
    assert "GPU 0: num_compute_units: expected a number above 0, got 'N/A'" in said.splitlines()[-1]


@pytest.mark.parametrize("told", [False, True], ids=["finds the GPUs", "is told of them"])
async def test_the_monitor_of_such_a_node_tells_of_its_process(
    machine: Machine, free_tcp_port: int, told: bool
) -> None:
    """One that is told need not be able to load the library: in the chart it may open no device."""
    text = ""
    flags = ["--role=monitor", f"--metrics-bind-address=127.0.0.1:{free_tcp_port}", *(["--amd"] if told else [])]
    rocm = machine.root / "nowhere" if told else None
    with machine.agent(*flags, rocm=rocm) as process, anyio.fail_after(30):
        async with aiohttp.ClientSession() as session:
            while not text:
                # The port opens when the process has started.
                assert process.poll() is None
                with suppress(aiohttp.ClientConnectionError):
                    async with session.get(f"http://127.0.0.1:{free_tcp_port}/metrics") as answer:
                        text = await answer.text()
                await anyio.sleep(0.05)
    assert "process_resident_memory_bytes" in text


def test_simulated_amd_devices_and_real_ones_exclude_each_other(tmp_path: Path) -> None:
    (tmp_path / "machine.yaml").write_text("devices: [{family: AMD}]\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "hami",
            "agent",
            "--node-name=n",
            "--amd",
            f"--simulate={tmp_path / 'machine.yaml'}",
            f"--hook-path={tmp_path}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.strip().endswith("--amd: expected a machine without simulated AMD devices")
