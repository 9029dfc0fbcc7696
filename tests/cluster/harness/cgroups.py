"""The cgroups below which the kubelet puts every pod of ours, so that they can be told from anyone else's.

A tree of our own in each hierarchy (version 1) or in the unified one (version 2).
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_MOUNT: Final = Path("/sys/fs/cgroup")
NAME: Final = "hami-cluster"
_CONTROLLERS: Final = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")


def unified() -> bool:
    """Whether the machine has version 2 alone."""
    return (_MOUNT / "cgroup.controllers").exists()


def make() -> None:
    """The root that the kubelet's `cgroupRoot` names; the kubelet refuses one that is not there."""
    if not unified():
        for hierarchy in _MOUNT.iterdir():
            if hierarchy.is_dir() and not hierarchy.is_symlink():
                (hierarchy / NAME).mkdir(exist_ok=True)
        return
    available = (_MOUNT / "cgroup.controllers").read_text(encoding="ascii").split()
    wanted = " ".join(f"+{name}" for name in _CONTROLLERS if name in available)
    (_MOUNT / "cgroup.subtree_control").write_text(wanted, encoding="ascii")
    (_MOUNT / NAME).mkdir(exist_ok=True)


def end_processes() -> None:
    """SIGKILL to whatever still runs in a pod of ours."""
    for tree in _trees():
        for listing in tree.rglob("cgroup.procs"):
            for pid in _pids(listing):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue


def remove() -> list[Path]:
    """Remove the trees, leaves first; what could not be removed (a process still ends) is returned."""
    left: list[Path] = []
    for tree in _trees():
        for folder, _, _ in os.walk(tree, topdown=False):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                continue
            except OSError:
                left.append(Path(folder))
    return left


def _trees() -> Iterator[Path]:
    places = [_MOUNT] if unified() else [path for path in _MOUNT.iterdir() if path.is_dir() and not path.is_symlink()]
    return (place / NAME for place in places if (place / NAME).is_dir())


def _pids(listing: Path) -> list[int]:
    try:
        return [int(word) for word in listing.read_text(encoding="ascii").split()]
    except OSError:
        return []
