"""Where a cluster's files lie and which loopback ports it uses. Everything is below one state folder."""

import json
import os
import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
NODE: Final = "127.0.0.1"
"""The node's name. A loopback address, because the kubelet then takes it for its internal address too, which no flag
accepts, and all traffic between API server and kubelet stays on loopback."""

REPOSITORY: Final = Path(__file__).resolve().parents[3]

PORT_NAMES: Final = (
    "etcd",
    "etcd-peer",
    "api",
    "controller-manager",
    "scheduler",
    "kubelet",
    "kubelet-health",
    "hami",
    "hami-metrics",
    "agent-metrics",
)

DEVICE_PLUGINS: Final = Path("/var/lib/kubelet/device-plugins")
"""A constant of the kubelet, whatever its root directory: the one thing of ours outside the state folder."""
CHECKPOINT: Final = DEVICE_PLUGINS / "kubelet_internal_checkpoint"
"""What the kubelet remembers of device plug-ins: their devices, and their answers for each container."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The folders and ports of one cluster."""

    state: Path
    ports: Mapping[str, int]

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def logs(self) -> Path:
        return self.state / "log"

    @property
    def processes(self) -> Path:
        """One file a running process: its pid and start time."""
        return self.state / "run"

    @property
    def containerd_socket(self) -> Path:
        return self.state / "containerd.sock"

    @property
    def kubelet_root(self) -> Path:
        return self.state / "kubelet"

    @property
    def pod_resources_socket(self) -> Path:
        return self.kubelet_root / "pod-resources" / "kubelet.sock"

    @property
    def cdi(self) -> Path:
        return self.state / "cdi"

    @property
    def hook(self) -> Path:
        """What the node component calls the hook path: the library, the grants and the regions lie below it."""
        return self.state / "hook"

    @property
    def audit_log(self) -> Path:
        return self.logs / "audit.log"

    @property
    def api_url(self) -> str:
        return f"https://{HOST}:{self.ports['api']}"

    def kubeconfig(self, user: str) -> Path:
        return self.state / f"{user}.kubeconfig"

    def make(self) -> None:
        """The folders, and the ports on record for other commands."""
        for folder in (self.state, self.pki, self.logs, self.processes, self.cdi, self.hook, self.kubelet_root):
            folder.mkdir(parents=True, exist_ok=True)
        # Certificates' keys and service-account tokens lie below.
        self.state.chmod(0o711)
        self.pki.chmod(0o700)
        (self.state / "ports.json").write_text(json.dumps(dict(self.ports)), encoding="utf-8")


def state_folder() -> Path:
    """`HAMI_CLUSTER_STATE`, else a fixed folder on a real file system (overlayfs needs one)."""
    return Path(os.environ.get("HAMI_CLUSTER_STATE") or "/var/tmp/hami-cluster")


def fresh(state: Path) -> Layout:
    """A layout with ports that are free now."""
    return Layout(state=state, ports=dict(zip(PORT_NAMES, _free_ports(len(PORT_NAMES)), strict=True)))


def recorded(state: Path) -> Layout | None:
    """The layout of a cluster that was started in `state`, None if there is none."""
    try:
        ports = json.loads((state / "ports.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return Layout(state=state, ports={str(name): int(port) for name, port in ports.items()})


def _free_ports(count: int) -> list[int]:
    """Ports below the kernel's ephemeral range, so that no outgoing connection takes one before its server binds it."""
    candidates = random.sample(range(20000, 32000), 400)
    free: list[int] = []
    for port in candidates:
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        free.append(port)
        if len(free) == count:
            return free
    raise OSError("no free loopback ports between 20000 and 32000")
