"""What HAMi 2.x left on this node: directories of running containers, each with the region of its programs.

Our own grants appear in the same place as links; HAMi's are directories. They are read where they lie, and removed
when nobody needs them any more: never while a program still has a file of them.
"""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hami.model.names import PodUid
from hami.node.cgroups import PROC
from hami.node.installed import HookTree

_NAME: Final = re.compile(r"(?P<uid>[0-9a-zA-Z-]{1,64})_(?P<container>[0-9a-z]([-0-9a-z]{0,61}[0-9a-z])?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class InheritedContainer:
    """One container's directory."""

    pod_uid: PodUid
    """As the kubelet knows the pod."""
    container: str
    directory: Path

    def regions(self) -> Sequence[Path]:
        """Its regions, the newest first: a container that started again may have left one behind."""
        found = []
        try:
            with os.scandir(self.directory) as entries:
                found = [
                    (entry.stat(follow_symlinks=False).st_mtime, entry.path)
                    for entry in entries
                    if entry.name.endswith(".cache") and entry.is_file(follow_symlinks=False)
                ]
        except OSError:
            return ()  # it is being removed
        return [Path(path) for _, path in sorted(found, reverse=True)]


def inherited(tree: HookTree) -> Iterator[InheritedContainer]:
    """Every container that HAMi gave a directory here."""
    try:
        with os.scandir(tree.containers) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for name in sorted(names):
        match = _NAME.fullmatch(name)
        if match is not None:
            directory = tree.containers / name
            yield InheritedContainer(pod_uid=PodUid(match["uid"]), container=match["container"], directory=directory)


def is_busy(container: InheritedContainer, proc: Path = PROC) -> bool:
    """Whether some process has a file of the container's directory mapped. In doubt it is."""
    try:
        # By inode and name: on some file systems a mapping shows another device than the file.
        wanted = {(str(path.lstat().st_ino), path.name) for path in container.directory.iterdir()}
        processes = [entry for entry in proc.iterdir() if entry.name.isdigit()]
    except OSError:
        return True
    return any(_has_mapped(process, wanted, container.pod_uid) for process in processes)


def _has_mapped(process: Path, wanted: set[tuple[str, str]], pod_uid: PodUid) -> bool:
    """Whether a process has one of the files mapped; of one that may not be asked, whether it is the pod's."""
    try:
        lines = (process / "maps").read_text(errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return False  # it has ended
    except OSError:
        return _is_of_pod(process, pod_uid)
    for line in lines:
        words = line.split(maxsplit=5)
        if len(words) == 6 and (words[4], words[5].rpartition("/")[2]) in wanted:
            return True
    return False


def _is_of_pod(process: Path, pod_uid: PodUid) -> bool:
    """By the names that the kubelet gives to cgroups."""
    try:
        groups = (process / "cgroup").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return True
    return pod_uid in groups or pod_uid.replace("-", "_") in groups


def remove(container: InheritedContainer) -> None:
    """Delete a container's directory; what is already gone is no error."""
    shutil.rmtree(container.directory, ignore_errors=True)
