"""What the agent is told: one value, made of flags, environment and files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hami.agent.answer import NO_ADDITIONS, Additions, Strategy
from hami.model.machine_cards import MachineCard
from hami.model.names import NodeName
from hami.model.settings import DeviceConfig, NodeOverrides
from hami.node.installed import HookTree
from hami.node.mps import SHM


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """All that the agent is told."""

    node: NodeName
    kubeconfig: str | None
    role: Literal["both", "plugin", "monitor"] = "both"
    config: DeviceConfig
    overrides: NodeOverrides
    tree: HookTree
    library: Path
    """The installed library that grants mount."""
    device_plugin_dir: Path
    pod_resources_socket: Path
    strategy: Strategy = "cdi"
    cdi_dir: Path
    inventory_format: Literal["json", "colon"] = "json"
    additions: Additions = NO_ADDITIONS
    """With a simulated driver, what its runtime would add to containers."""
    simulated: bool = False
    cards: tuple[MachineCard, ...] = ()
    """Simulated devices of other families."""
    amd: bool | None = None
    """Whether AMD's GPUs are served; None = where their library is installed."""
    cgroups: Path | None = None
    """Root of the cgroup tree in which the driver may be asked to cap containers; None = it is asked to cap nothing."""
    host_pid: Path | None = None
    """Where programs of containers ask for their host pids; None = nowhere."""
    mps_shm: Path = SHM
    """On the node, the directory that this process has at /dev/shm: an MPS daemon shares it with its programs."""
    legacy_metrics: bool = False
    metrics_bind: tuple[str, int] | None = ("", 9394)
