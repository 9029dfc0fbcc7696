"""Leave nothing behind: shims, containers, mounts, cgroups, and the few fixed paths outside the state folder.

Works on what a crashed run left as well, when containerd is long gone: everything of ours is known by the state folder
in its name, by the cgroup tree, or by the network's name.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.cluster.harness import cgroups
from tests.cluster.harness.layout import CHECKPOINT, Layout
from tests.cluster.harness.runtime import NETWORK
from tests.cluster.harness.waiting import eventually

_HOST_FOLDERS: Final = (
    Path("/var/lib/kubelet"),
    Path("/var/lib/cni"),
    Path("/var/log/containers"),
    Path("/run/containerd"),
    Path("/etc/cni"),
    Path("/opt/cni"),
    Path("/tmp/vgpulock"),
)
"""Fixed paths that the kubelet, containerd, the network plugins or the device plug-in's contract make on the host."""

_FORWARD: Final = Path("/proc/sys/net/ipv4/ip_forward")
"""The network plugin switches it on."""


def remember(layout: Layout) -> None:
    """Note what the machine looks like before, so that afterwards it can look like that again."""
    before = {
        "folders": [str(folder) for folder in _HOST_FOLDERS if folder.exists()],
        "forward": _FORWARD.read_text(encoding="ascii").strip(),
    }
    (layout.state / "before.json").write_text(json.dumps(before), encoding="ascii")


def sweep(layout: Layout) -> None:
    """Everything but the state folder's own files. The cluster's processes have ended before."""
    state = str(layout.state)
    cgroups.end_processes()
    for pid in _shims(state):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    eventually("containers ended", lambda: not _shims(state), 10)
    _unmount(state)
    eventually("cgroups of the pods removed", lambda: not cgroups.remove(), 10)
    _restore(layout)


def remains(layout: Layout) -> list[str]:
    """What is still there of a swept cluster, for people and for the test of the sweep."""
    state = str(layout.state)
    return [
        *(f"shim {pid}" for pid in _shims(state)),
        *(f"mount {point}" for point in _mounts(state)),
        *(f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob(f"*/{cgroups.NAME}")),
        *(f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob(cgroups.NAME)),
        *(f"folder {layout.state}" for _ in range(layout.state.exists())),
        *(f"link {name}" for name in _network_links()),
    ]


def _restore(layout: Layout) -> None:
    try:
        before = json.loads((layout.state / "before.json").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return
    for folder in _HOST_FOLDERS:
        if str(folder) not in before["folders"]:
            shutil.rmtree(folder, ignore_errors=True)
    # Where the folder was there before, ours within it are known by name.
    for cached in Path("/var/lib/cni/results").glob(f"{NETWORK}-*"):
        cached.unlink(missing_ok=True)
    for entry in Path("/var/log/containers").glob("*.log"):
        if entry.is_symlink() and os.readlink(entry).startswith(str(layout.state)):
            entry.unlink(missing_ok=True)
    CHECKPOINT.unlink(missing_ok=True)
    for link in _network_links():
        subprocess.run(["ip", "link", "del", link], capture_output=True, check=False)
    _FORWARD.write_text(before["forward"], encoding="ascii")


def _shims(state: str) -> list[int]:
    """Shims whose containerd socket lies in `state`; they outlive containerd by design."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        ours = any(word.startswith(state.encode() + b"/") for word in words)
        if ours and words[0].endswith(b"containerd-shim-runc-v2"):
            found.append(int(folder.name))
    return found


def _unmount(state: str) -> None:
    for point in _mounts(state):
        subprocess.run(["umount", "-l", point], capture_output=True, check=False)


def _mounts(state: str) -> list[str]:
    """Mount points below `state`, deepest first."""
    with Path("/proc/self/mountinfo").open(encoding="utf-8") as table:
        points = [_unescaped(line.split()[4]) for line in table]
    return sorted((point for point in points if point.startswith(state + "/")), key=len, reverse=True)


def _unescaped(text: str) -> str:
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def _network_links() -> Iterator[str]:
    """Host ends of pods' links: `veth` interfaces with an address of our range."""
    listed = subprocess.run(["ip", "-json", "addr"], capture_output=True, text=True, check=False)
    for link in json.loads(listed.stdout or "[]"):
        addresses = [str(address.get("local", "")) for address in link.get("addr_info", ())]
        if str(link["ifname"]).startswith("veth") and any(address.startswith("10.245.0.") for address in addresses):
            yield str(link["ifname"])
