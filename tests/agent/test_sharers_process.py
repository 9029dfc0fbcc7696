"""`hami agent` on a simulated node whose sharers run side by side: what a program of a granted container then gets.

With our library and without, by the variables and mounts of the container's own device file.
"""

import json
import os
from pathlib import Path

import anyio
import orjson
import pytest

from hami.alloc.grant import MPS_BESIDE_MIB
from hami.node.simulated import environment, native_dir
from tests.agent.conftest import NODE, pod
from tests.agent.test_service import AgentProcess, agent, run, unused_port
from tests.interpose.cuda_client import MIB, OUT_OF_MEMORY, Client

__all__ = ["agent", "unused_port"]  # fixtures

pytestmark = pytest.mark.anyio

MACHINE = """
devices:
- {{model: NVIDIA A100-SXM4-40GB, count: 2, sharing: mps}}
driver: {{version: "{release}", cuda: "{cuda}"}}
"""
CONTEXT_MIB = 300
MPS_ENABLED, MULTIPROCESSORS = 133, 16


@pytest.fixture(params=[("550.90.07", "12.4"), ("615.71", "13.4")], ids=["one place for all", "a place for each"])
def named(request: pytest.FixtureRequest, agent: AgentProcess) -> bool:
    """Whether this node's daemon has a place for each container."""
    release, cuda = request.param
    (agent.root / "machine.yaml").write_text(MACHINE.format(release=release, cuda=cuda))
    entry = {"name": NODE, "sharing": "mps"}
    (agent.root / "config.json").write_text(json.dumps({"nodeconfig": [entry]}))
    return bool(release >= "615")


def given(agent: AgentProcess, name: str) -> tuple[dict[str, str], dict[str, str]]:
    """The variables of a container, and what of the node is mounted in it, by its paths."""
    answer = agent.kubelet.answers[name, "main"]
    env = dict(answer.envs)
    mounts = {mount.container_path: mount.host_path for mount in answer.mounts}
    [device] = answer.cdi_devices
    path = agent.root / "cdi" / f"hami.io-grant-{device.name.partition('=')[2]}.json"
    edits = orjson.loads(path.read_bytes())["devices"][0]["containerEdits"]
    env |= dict(entry.split("=", 1) for entry in edits["env"])
    return env, mounts | {mount["containerPath"]: mount["hostPath"] for mount in edits["mounts"]}


def environments(agent: AgentProcess, name: str, pipes: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Those of the container's programs without our library, and with it; by the node's paths, as no container runs."""
    env, mounts = given(agent, name)
    [state] = (agent.root / "hook" / "vgpu").glob("simulated-*.state")
    bare = {
        **environment(state),
        **{variable: value for variable, value in env.items() if variable.startswith("CUDA_MPS")},
        "CUDA_MPS_PIPE_DIRECTORY": str(pipes),
        "NVIDIA_VISIBLE_DEVICES": env["HAMI_DEVICE_UUIDS"],
    }
    text = granted(agent, name)
    region = next(line.partition("=")[2] for line in text.splitlines() if line.startswith("region="))
    own = agent.root / "grant"
    own.write_text(text.replace(region, f"{mounts[os.path.dirname(region)]}/{os.path.basename(region)}"))
    return bare, {**bare, "LD_PRELOAD": str(native_dir() / "libvgpu.so"), "HAMI_GRANT": str(own)}


def granted(agent: AgentProcess, name: str) -> str:
    return Path(given(agent, name)[1]["/etc/hami"], "grant").read_text()


async def test_a_container_of_such_a_node(agent: AgentProcess, named: bool) -> None:
    with agent.started(f"--node-config-file={agent.root / 'config.json'}"):
        await agent.registered()
        uuid = min(agent.kubelet.devices).rpartition("-")[0]
        document = agent.api.put("pods", pod("a", assigned=f"{uuid},NVIDIA,3000,30:;"))
        await run(agent, document)
        with anyio.fail_after(10):
            # Started before the agent has looked at the daemon, a container takes turns until it starts anew.
            while "enforced_by=mps" not in granted(agent, "a"):
                await agent.kubelet.start_container(document, "main")
        env, mounts = given(agent, "a")
        shown = Path(mounts[env["CUDA_MPS_PIPE_DIRECTORY"]])
        pipes = agent.root / "hook" / "vgpu" / "mps" / "pipe"
        assert (shown.parent == pipes / "hami", shown == pipes) == (named, not named)
        bare, hooked = environments(agent, "a", shown)
        allowed = 3000 + MPS_BESIDE_MIB - CONTEXT_MIB
        with Client(bare) as program:
            assert program.use() == 0
            assert (program.attribute(MPS_ENABLED), program.attribute(MULTIPROCESSORS)) == (1, 32)
            assert program.info() == [0, allowed * MIB, 40960 * MIB]
            assert program.alloc((allowed + 1) * MIB)[0] == OUT_OF_MEMORY
        with Client(hooked) as program:
            assert program.use() == 0
            assert program.info()[2] == 3000 * MIB
            assert program.alloc(3001 * MIB)[0] == OUT_OF_MEMORY
            assert program.alloc(3000 * MIB)[0] == 0
