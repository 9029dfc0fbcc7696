"""A whole one-node cluster: up, status, down, with one owner at a time.

The kubelet's device-plugin folder is a fixed path, so a machine carries one such cluster; a lock in the state folder's
name keeps two runs apart, and a run that crashed is cleared away by the next one.
"""

import fcntl
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from tests.cluster.harness import binaries, controlplane, kubelet, runtime, sweep
from tests.cluster.harness.api import Api, Json
from tests.cluster.harness.binaries import Missing
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.kubelet import Kubelet
from tests.cluster.harness.layout import DEVICE_PLUGINS, NODE, Layout, fresh, recorded, state_folder
from tests.cluster.harness.pki import Pki
from tests.cluster.harness.processes import Processes
from tests.cluster.harness.runtime import Runtime
from tests.cluster.harness.waiting import eventually

_STANDING = "standing"
"""A file in the state folder that says: this cluster is meant to outlive the command that started it."""

_STOP_ORDER = ("hami-agent", "hami-scheduler", "kubelet", "containerd", "kube-scheduler", "kube-controller-manager",
               "kube-apiserver", "etcd")  # fmt: skip


class Cluster:
    """The components of one cluster over a layout. `up` first; as a context manager it is taken down at the end."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.processes = Processes(layout)
        self.pki = Pki(layout)
        self._programs = programs = binaries.ensure(
            (*controlplane.PROGRAMS, *kubelet.PROGRAMS, *runtime.PROGRAMS, "kubectl")
        )
        self.control_plane = ControlPlane(layout, self.pki, self.processes, programs)
        self.runtime = Runtime(layout, self.processes, programs)
        self.kubelet = Kubelet(layout, self.pki, self.processes, programs)

    @property
    def api(self) -> Api:
        return self.control_plane.admin

    @property
    def kubectl(self) -> Path:
        return self._programs["kubectl"]

    def up(self, scheduler_config: Json | None = None) -> None:
        """Everything but hami: control plane, containerd, kubelet, and the node Ready. On failure nothing is left."""
        began = time.monotonic()
        try:
            self.layout.make()
            sweep.remember(self.layout)
            self.control_plane.start(scheduler_config)
            _say(f"control plane after {time.monotonic() - began:.1f} s")
            self.runtime.start()
            self.kubelet.start()
            self.wait_ready()
            _say(f"node ready after {time.monotonic() - began:.1f} s")
        except BaseException:
            self.down()
            raise

    def leave_standing(self) -> None:
        """From now on only `down` ends it."""
        (self.layout.state / _STANDING).touch()

    def wait_ready(self, within_s: float = 60) -> None:
        """The node is Ready and takes pods."""
        api = self.api

        def ready() -> bool:
            node = next((item for item in api.items("/api/v1/nodes") if item["metadata"]["name"] == NODE), None)
            if node is None:
                return False
            conditions = {entry["type"]: entry["status"] for entry in node["status"].get("conditions", ())}
            return conditions.get("Ready") == "True" and not node["spec"].get("taints")

        eventually("node Ready", ready, within_s)

    def down(self) -> None:
        """Stop everything and leave nothing behind, whatever state it is in."""
        self.processes.stop("kubelet")
        if self.processes.find("containerd") is not None:
            self.runtime.remove_containers()
        for name in _STOP_ORDER:
            self.processes.stop(name)
        for record in self.processes.running():
            self.processes.stop(record.name)
        sweep.sweep(self.layout)
        if kept := os.environ.get("HAMI_CLUSTER_LOGS"):
            shutil.copytree(self.layout.logs, kept, dirs_exist_ok=True)
        shutil.rmtree(self.layout.state)

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()


@contextmanager
def claimed(state: Path | None = None) -> Iterator[Layout]:
    """A fresh layout on this machine, ours alone while the block runs.

    What a crashed run left in the folder is cleared away first. Raises `Missing` if this is not root, if a Debian
    package is absent, or if another cluster or another kubelet is running.
    """
    folder = state or state_folder()
    if os.geteuid() != 0:
        raise Missing("cluster tests start a kubelet and containers, which takes root: run them as root")
    binaries.debian_tools()
    lock = Path(f"{folder}.lock")
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Missing(f"another run is using {folder}") from None
        clear_abandoned(folder)
        if _kubelet_answers():
            raise Missing(f"a kubelet that is not ours serves {DEVICE_PLUGINS}: this machine is a node already")
        try:
            yield fresh(folder)
        finally:
            lock.unlink(missing_ok=True)


def clear_abandoned(folder: Path) -> None:
    """Take down a cluster that nobody owns any more. Raises `Missing` if it is a standing one (`make demo-cluster`)."""
    layout = recorded(folder)
    if layout is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    if (folder / _STANDING).exists() and Processes(layout).find("kube-apiserver") is not None:
        raise Missing("the demonstration cluster is running: `python -m tests.cluster.harness down` ends it")
    _say(f"clearing what an earlier run left in {folder}")
    Cluster(layout).down()


def _say(line: str) -> None:
    print(f"cluster: {line}", file=sys.stderr, flush=True)


def _kubelet_answers() -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(DEVICE_PLUGINS / "kubelet.sock"))
        except OSError:
            return False
    return True
