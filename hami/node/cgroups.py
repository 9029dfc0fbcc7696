"""Where the containers of this node are among its cgroups.

A grant is told apart by what nobody else has: its own directory, mounted in its container. So no container runtime is
asked, and a container is found as soon as its first process runs. A container's group is the one directly below its
pod's, whatever the program makes of groups below that.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hami.model.names import PodUid

ROOT: Final = Path("/sys/fs/cgroup")
PROC: Final = Path("/proc")
CONTROLLERS: Final = "cgroup.controllers"
"""Exists in each directory of the kernel's cgroup v2, and in none of version 1."""
DEEPEST: Final = 7
"""Levels at which a pod's group is looked for: the kubelet's root, its slices, a class of service, the pod."""
MOST_PIDS: Final = 64
"""Processes of one group that are asked; all of a container have the mount, unless they unmounted it."""
_POD: Final = re.compile(r"pod[0-9a-f]{8}[-_]?[0-9a-f]{4}", re.ASCII)


@dataclass(slots=True)
class Cgroups:
    """The tree at `root`. Calls read files only and belong in a worker thread."""

    root: Path = ROOT
    proc: Path = PROC
    _pods: dict[PodUid, Path] = field(default_factory=dict)
    _found: dict[str, tuple[Path, int]] = field(default_factory=dict)
    """By grant: its container's group, and that directory's inode."""

    def of(self, grant_id: str, pod_uid: PodUid) -> Path | None:
        """The group of the container that has this grant; None while none of its processes runs."""
        known = self._found.get(grant_id)
        if known is not None and _inode(known[0]) == known[1] and self._is_populated(known[0]):
            return known[0]
        self._found.pop(grant_id, None)
        for group in self._containers(pod_uid):
            inode = _inode(group)
            if inode is not None and any(self._mounts(pid, grant_id) for pid in _pids(group)):
                self._found[grant_id] = group, inode
                return group
        return None

    def forget(self, grant_id: str, pod_uid: PodUid) -> None:
        """Drop what is remembered of a grant that is over."""
        self._found.pop(grant_id, None)
        self._pods.pop(pod_uid, None)

    def _is_populated(self, group: Path) -> bool:
        """An empty group is a container that ended; its successor in the same pod has another group."""
        return next(_pids(group), None) is not None

    def _containers(self, pod_uid: PodUid) -> Iterator[Path]:
        pod = self._pods.get(pod_uid)
        if pod is None or not pod.is_dir():
            pod = _find(self.root, {f"pod{pod_uid}", f"pod{pod_uid.replace('-', '_')}.slice"}, DEEPEST)
            if pod is None:
                self._pods.pop(pod_uid, None)
                return
            self._pods[pod_uid] = pod
        yield from _directories(pod)

    def _mounts(self, pid: int, grant_id: str) -> bool:
        """Whether a process has the grant's directory mounted where its library looks for it."""
        try:
            text = (self.proc / str(pid) / "mountinfo").read_text(errors="replace")
        except OSError:
            return False  # it has ended
        source = f"/grants/{grant_id}/etc"
        return any(
            len(words := line.split(" ", 5)) > 4 and words[3].endswith(source) and words[4] == "/etc/hami"
            for line in text.splitlines()
        )


def is_version_2(root: Path) -> bool:
    """Whether `root` is the kernel's cgroup v2."""
    return (root / CONTROLLERS).is_file()


def _find(directory: Path, endings: set[str], depth: int) -> Path | None:
    """The directory whose name ends in one of `endings`; other pods' groups are not searched."""
    below = []
    for entry in _directories(directory):
        if any(entry.name == ending or entry.name.endswith(f"-{ending}") for ending in endings):
            return entry
        if not _POD.search(entry.name):
            below.append(entry)
    if depth > 1:
        for entry in below:
            found = _find(entry, endings, depth - 1)
            if found is not None:
                return found
    return None


def _directories(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []  # groups come and go


def _pids(group: Path) -> Iterator[int]:
    """Some processes of a group and of those below it."""
    left = MOST_PIDS
    waiting = [group]
    while waiting and left > 0:
        at = waiting.pop()
        try:
            listed = (at / "cgroup.procs").read_text().split()
        except OSError:
            listed = []
        for word in listed[:left]:
            yield int(word)
        left -= len(listed)
        waiting += _directories(at)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None
