"""`hami agent` as a process of its own, on a simulated machine, beside a fake kubelet and a scripted API server."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import anyio
import pytest

from hami.model.wire.grant import read_grant
from hami.model.wire.node import read_inventory
from hami.node.simulated import environment
from tests.agent.conftest import NODE, container, pod
from tests.agent.fake_kubelet import FakeKubelet, Json
from tests.fakes.apiserver import FakeApi
from tests.fakes.loop import guarded_loop
from tests.interpose.cuda_client import MIB, OUT_OF_MEMORY, Client
from tests.node.test_cgroups import container as container_process
from tests.node.test_cgroups import group

pytestmark = pytest.mark.anyio

REGISTER = "hami.io/node-nvidia-register"
MACHINE = """
devices:
- {model: NVIDIA A100-SXM4-40GB, count: 2, numa: [0, 1]}
links: {nvlink: none}
"""


@dataclass
class AgentProcess:
    """How to start the agent under test."""

    root: Path
    api: FakeApi
    kubelet: FakeKubelet
    port: int
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @contextmanager
    def started(self, *flags: str, program: str = "main") -> Iterator[subprocess.Popen[bytes]]:
        """`program` is the function that a name on PATH runs; `main` is `hami agent`."""
        arguments = [
            f"--node-name={NODE}",
            f"--kubeconfig={self.api.kubeconfig(self.root)}",
            f"--device-plugin-dir={self.kubelet.directory}",
            f"--pod-resources-socket={self.kubelet.pod_resources}",
            f"--cdi-dir={self.root / 'cdi'}",
            f"--hook-path={self.root / 'hook'}",
            f"--host-pid-dir={self.root / 'hostpid'}",
            f"--simulate={self.root / 'machine.yaml'}",
            f"--metrics-bind-address=127.0.0.1:{self.port}",
            *flags,
        ]
        environment = {key: value for key, value in os.environ.items() if key not in {"HAMI_SIM_STATE", "KUBECONFIG"}}
        named = ["agent"] if program == "main" else []
        start = f"import sys; from hami.__main__ import {program}; sys.exit({program}())"
        process = subprocess.Popen([sys.executable, "-c", start, *named, *arguments], env=environment)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    async def registered(self) -> None:
        await until(lambda: self.kubelet.registered.is_set() and bool(self.kubelet.devices), 30)

    def granted(self, name: str) -> list[tuple[str, int, int]]:
        answer = self.kubelet.answers[name, "main"]
        etc = next(mount.host_path for mount in answer.mounts if mount.container_path == "/etc/hami")
        return [(d.uuid, d.memory_mib, d.cores) for d in read_grant(Path(etc, "grant").read_text()).devices]


async def until(condition: Callable[[], bool], within_s: float = 10) -> None:
    with anyio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 - another process brings it about
            await anyio.sleep(0.02)


@pytest.fixture
async def agent(tmp_path: Path, unused_port: int) -> AsyncIterator[AgentProcess]:
    (tmp_path / "machine.yaml").write_text(MACHINE)
    async with guarded_loop(), FakeApi.serving() as api, FakeKubelet.running(tmp_path) as kubelet:
        api.put("nodes", {"metadata": {"name": NODE}})
        yield AgentProcess(tmp_path, api, kubelet, unused_port)


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def run(agent: AgentProcess, document: Json) -> None:
    await agent.kubelet.admit(document)
    await agent.kubelet.start_container(document, "main")


async def metrics(agent: AgentProcess, until_it_has: str) -> str:
    """What the metrics port tells, once this is among it."""
    text = ""
    async with aiohttp.ClientSession() as session:
        with anyio.fail_after(20):
            while until_it_has not in text:
                # The port opens when the process has started.
                with suppress(aiohttp.ClientConnectionError):
                    async with session.get(f"http://127.0.0.1:{agent.port}/metrics") as answer:
                        text = await answer.text()
                await anyio.sleep(0.05)
    return text


def notes(api: FakeApi, name: str) -> dict[str, str]:
    found: dict[str, str] = api.get("pods", name, "default")["metadata"].get("annotations", {})
    return found


async def test_from_registration_to_a_grant_and_its_metrics(agent: AgentProcess) -> None:
    with agent.started() as process:
        await agent.registered()
        await until(lambda: "annotations" in agent.api.get("nodes", NODE)["metadata"])
        annotations = agent.api.get("nodes", NODE)["metadata"]["annotations"]
        devices = read_inventory(annotations[REGISTER], REGISTER)
        assert [(d.index, d.memory_mib, d.numa, d.model) for d in devices] == [
            (0, 40960, 0, "NVIDIA A100-SXM4-40GB"),
            (1, 40960, 1, "NVIDIA A100-SXM4-40GB"),
        ]
        assert annotations["hami.io/agent-protocol"] == "1;families=NVIDIA;devices=cdi"
        assert len(agent.kubelet.devices) == 20
        document = agent.api.put("pods", pod("a", assigned=f"{devices[1].uuid},NVIDIA,3000,30:;"))
        await run(agent, document)
        assert agent.granted("a") == [(devices[1].uuid, 3000, 30)]
        mounts = {mount.container_path: mount for mount in agent.kubelet.answers["a", "main"].mounts}
        inside = agent.kubelet.answers["a", "main"].envs["HAMI_SIM_STATE"]
        assert not mounts[inside].read_only
        for mount in mounts.values():
            assert os.path.exists(mount.host_path), mount  # noqa: ASYNC240 - a test may wait for its disk
        await until(lambda: notes(agent.api, "a")["hami.io/bind-phase"] == "success")
        assert len(agent.api.asked("PATCH", "pods/a")) == 1
        text = await metrics(agent, "hami_vgpu_memory_limit_bytes{")
        labels = f'container="main",device_uuid="{devices[1].uuid}",namespace="default",pod="a",vdevice_index="0"'
        assert f'hami_vgpu_memory_limit_bytes{{{labels},zone="vGPU"}} 3.145728e+09' in text
        assert 'simulated="true"' in text
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


async def test_a_killed_agent_is_followed_by_one_that_knows(agent: AgentProcess) -> None:
    with agent.started():
        await agent.registered()
        devices = sorted({i.rpartition("-")[0] for i in agent.kubelet.devices})
        first = agent.api.put(
            "pods", pod("first", container("main", memory=30000), assigned=f"{devices[0]},NVIDIA,30000,30:;")
        )
        await run(agent, first)
        second = agent.api.put("pods", pod("second", assigned=f"{devices[1]},NVIDIA,3000,30:;"))
        agent.kubelet.writes_checkpoint = False
        await agent.kubelet.admit(second)
    agent.kubelet.registered = anyio.Event()
    with agent.started():
        await agent.registered()
        agent.kubelet.write_checkpoint()
        await agent.kubelet.start_container(second, "main")
        await agent.kubelet.start_container(first, "main")
        assert agent.granted("second") == [(devices[1], 3000, 30)]
        assert agent.granted("first") == [(devices[0], 30000, 30)]


async def test_two_processes_under_their_old_names(agent: AgentProcess) -> None:
    """As HAMi's chart runs them: one serves the kubelet, the other measures; flags in Go's spelling."""
    config = agent.root / "device-config.yaml"
    config.write_text("nvidia: {deviceSplitCount: 4}")
    old = (f"--config-file={config}", "-mig-strategy=none", "--disable-core-limit=false", "-v=4")
    with agent.started(*old, program="device_plugin"), agent.started("-v=4", program="monitor"):
        await agent.registered()
        assert len(agent.kubelet.devices) == 8
        uuid = next(iter(agent.kubelet.devices)).rpartition("-")[0]
        document = agent.api.put("pods", pod("a", assigned=f"{uuid},NVIDIA,3000,30:;"))
        await run(agent, document)
        text = await metrics(agent, "hami_vgpu_memory_limit_bytes{")
        assert 'pod="a"' in text


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare to mount as a runtime does"
)
async def test_a_driver_that_can_cap_caps_a_program_without_the_library(agent: AgentProcess) -> None:
    """The library is told so once it is certain, and that it is not when the container starts anew."""
    cgroups = agent.root / "cgroup"
    cgroups.mkdir()
    described = f"{MACHINE}driver: {{version: '615.71', cuda: '13.4'}}\ncgroups: {cgroups}\n"
    (agent.root / "machine.yaml").write_text(described)
    with agent.started():
        await agent.registered()
        uuid = next(iter(agent.kubelet.devices)).rpartition("-")[0]
        document = agent.api.put("pods", pod("a", assigned=f"{uuid},NVIDIA,3000,30:;"))
        await run(agent, document)
        etc = next(m.host_path for m in agent.kubelet.answers["a", "main"].mounts if m.container_path == "/etc/hami")

        def enforcer() -> str:
            return read_grant(Path(etc, "grant").read_text()).devices[0].enforced_by

        assert enforcer() == "library"
        [state] = (agent.root / "hook" / "vgpu").glob("simulated-*.state")
        with (
            container_process(agent.root / "hook" / "vgpu", Path(etc).parent.name) as pid,
            Client({**environment(state), "NVIDIA_VISIBLE_DEVICES": uuid}) as program,
        ):
            group(cgroups, "kubepods/poduid-a/main", pid, program.process.pid)
            await until(lambda: enforcer() == "driver")
            assert program.use() == 0
            assert program.alloc(2701 * MIB)[0] == OUT_OF_MEMORY
            assert program.alloc(2600 * MIB)[0] == 0
            assert program.info() == [0, 100 * MIB, 3000 * MIB]
            labels = f'container="main",device_uuid="{uuid}",namespace="default",pod="a",vdevice_index="0"'
            await metrics(agent, f'hami_vgpu_memory_used_bytes{{{labels},zone="vGPU"}} 3.0408704e+09')
        await agent.kubelet.start_container(document, "main")
        assert enforcer() == "library"


async def test_a_restarted_kubelet_meets_a_registered_agent(agent: AgentProcess) -> None:
    with agent.started():
        await agent.registered()
        for _ in range(3):
            await agent.kubelet.restart()
            started = anyio.current_time()
            await until(agent.kubelet.registered.is_set)
            assert anyio.current_time() - started < 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--simulate=/nowhere"], "/nowhere"),
        (["--hook-path=relative"], "hook path must be absolute"),
        (["--devices=magic"], "--devices: expected one of"),
        (["--role=cook"], "--role"),
        (["--inventory-format=xml"], "--inventory-format"),
        (["--metrics-bind-address=here"], "--metrics-bind-address"),
        (["--kubeconfig=/nowhere"], "/nowhere"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
async def test_what_cannot_be_meant_is_said_and_ends(agent: AgentProcess, flags: list[str], words: str) -> None:
    arguments = [
        f"--node-name={NODE}",
        f"--hook-path={agent.root / 'hook'}",
        f"--simulate={agent.root / 'machine.yaml'}",
    ]
    done = await anyio.run_process([sys.executable, "-m", "hami", "agent", *arguments, *flags], check=False)
    assert done.returncode in {2, 69}
    assert words in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


async def test_a_machine_of_other_families_alone(agent: AgentProcess) -> None:
    """Their plug-ins are played, each in its own form; the node does not call them our agent's."""
    (agent.root / "machine.yaml").write_text("devices: [{family: DCU, count: 2}, {family: Biren}, {family: GCU}]")
    agent.api.put("nodes", {"metadata": {"name": NODE, "annotations": {"hami.io/node-handshake-dcu": "Requesting_x"}}})
    resources = {"nvidia.com/gpu", "hygon.com/dcunum", "birentech.com/gpu", "enflame.com/gcu"}
    with agent.started() as process:
        await until(lambda: {one.resource_name for one in agent.kubelet.registrations} == resources, 30)

        def answered() -> bool:
            notes = agent.api.get("nodes", NODE)["metadata"]["annotations"]
            return str(notes["hami.io/node-handshake-dcu"]).startswith("Reported_")

        await until(answered)
        annotations = agent.api.get("nodes", NODE)["metadata"]["annotations"]
        assert annotations["hami.io/node-dcu-register"].count(":") == 2
        assert [device.index for device in read_inventory(annotations["hami.io/node-biren-register"], "x")] == [0]
        assert annotations["hami.io/agent-protocol"] == "1;families=NVIDIA;devices=cdi"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


async def test_a_family_that_is_not_configured_is_named(agent: AgentProcess) -> None:
    (agent.root / "machine.yaml").write_text("devices: [{family: Abacus}]")
    with agent.started() as process:
        assert await anyio.to_thread.run_sync(process.wait, 20) == 2
