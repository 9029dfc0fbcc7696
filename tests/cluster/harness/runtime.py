"""containerd with runc: its own root and state, the Container Device Interface on, images from archives."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.harness import images
from tests.cluster.harness.binaries import debian_path
from tests.cluster.harness.layout import Layout
from tests.cluster.harness.processes import Processes

NETWORK = "hami-cluster"
PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr")

_CONFIG = """\
version = 3
root = "{state}/containerd/root"
state = "{state}/containerd/state"
# Filesystem drivers that this machine may lack, and NRI, whose socket is a fixed path of the host.
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.differ.v1.erofs",
]
[grpc]
  address = "{socket}"
[plugins.'io.containerd.internal.v1.opt']
  path = "{state}/containerd/opt"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{pause}"
[plugins.'io.containerd.cri.v1.runtime']
  enable_cdi = true
  cdi_spec_dirs = ["{cdi}"]
  restrict_oom_score_adj = true
  # Below the state folder instead of /run/netns, so that an abandoned namespace is known as ours.
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        SystemdCgroup = false
        BinaryName = "{runc}"
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{cni_plugins}"]
    conf_dir = "{state}/cni"
"""


class Runtime:
    """containerd of one cluster."""

    def __init__(self, layout: Layout, processes: Processes, programs: Mapping[str, Path]) -> None:
        self._layout, self._processes, self._programs = layout, processes, programs

    def start(self) -> None:
        """Serve, and hold the sandbox and busybox images."""
        state = self._layout.state
        plugins = debian_path("ptp")
        config = state / "containerd.toml"
        config.write_text(
            _CONFIG.format(
                state=state,
                socket=self._layout.containerd_socket,
                pause=images.PAUSE,
                cdi=self._layout.cdi,
                runc=debian_path("runc"),
                cni_plugins=plugins.parent if plugins else "",
            ),
            encoding="utf-8",
        )
        self._write_network()
        # It looks for the shim on its PATH.
        shim = self._programs["containerd-shim-runc-v2"].parent
        self._processes.start("containerd", [self._programs["containerd"], "-c", config], {"PATH": f"{shim}:{_PATH}"})
        self._processes.ready("containerd", lambda: self._ctr("version").returncode == 0, 30)
        work = state / "images"
        work.mkdir(exist_ok=True)
        self.load(images.pause(work))
        self.load(images.busybox())

    def load(self, image: images.Image) -> None:
        """Import an image into the kubelet's namespace; pods name it with `imagePullPolicy: Never`."""
        archive = images.write(image, self._layout.state / "images" / (image.name.replace("/", "_") + ".tar"))
        done = self._ctr("-n", "k8s.io", "images", "import", "--local", str(archive))
        archive.unlink()
        if done.returncode:
            raise RuntimeError(f"import of {image.name} failed: {done.stderr}")

    def remove_containers(self) -> None:
        """End and remove every container; containerd must still be up. Best effort: the sweep does the rest."""
        for task in self._listed("tasks"):
            self._ctr("-n", "k8s.io", "tasks", "kill", "-a", "-s", "9", task)
            self._ctr("-n", "k8s.io", "tasks", "rm", "-f", task)
        for container in self._listed("containers"):
            self._ctr("-n", "k8s.io", "containers", "rm", container)

    def _listed(self, kind: str) -> list[str]:
        return self._ctr("-n", "k8s.io", kind, "ls", "-q").stdout.split()

    def _ctr(self, *words: str) -> "subprocess.CompletedProcess[str]":
        argv = [str(self._programs["ctr"]), "-a", str(self._layout.containerd_socket), *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    def _write_network(self) -> None:
        """Point-to-point links with addresses of a private range: without a network the node is never ready."""
        folder = self._layout.state / "cni"
        folder.mkdir(exist_ok=True)
        addresses = {"type": "host-local", "subnet": "10.245.0.0/24", "dataDir": str(folder / "addresses")}
        plugin = {"type": "ptp", "ipMasq": False, "ipam": addresses}
        network = {"cniVersion": "0.4.0", "name": NETWORK, "plugins": [plugin]}
        (folder / "10-hami.conflist").write_text(json.dumps(network), encoding="ascii")


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
