"""The interposer as installed on this node: where containers find it, and how a new version gets there.

The library is mapped by running programs, so its file is never written in place: a new version is a new file, and the
plain name changes by rename. A container that has the old file mounted keeps the old inode.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hami.node.atomic import write_atomically

ELF_MAGIC: Final = b"\x7fELF"
KEPT_VERSIONS: Final = 3
"""The current version and the two before it."""
VERSIONED: Final = re.compile(r"libvgpu\.so\..+-[0-9a-f]{8}")


class InstallError(Exception):
    """The library cannot be installed here; the text says what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookTree:
    """The directory that host and containers share, `<HOOK>/vgpu`, and the names inside it."""

    vgpu: Path

    @property
    def library(self) -> Path:
        return self.vgpu / "libvgpu.so"

    @property
    def preload(self) -> Path:
        return self.vgpu / "ld.so.preload"

    @property
    def grants(self) -> Path:
        return self.vgpu / "grants"

    @property
    def containers(self) -> Path:
        """What monitors look for: `<pod uid>_<container>`, links to the regions' directories."""
        return self.vgpu / "containers"


def hook_tree(hook_path: str) -> HookTree:
    """The tree for HOOK_PATH as users write it: with or without a trailing `/vgpu`; must be absolute.

    Raises ValueError for a relative path: it becomes a path inside containers, too.
    """
    path = Path(os.path.normpath(hook_path))
    if not path.is_absolute():
        raise ValueError(f"hook path must be absolute, got {hook_path!r}")
    return HookTree(vgpu=path if path.name == "vgpu" else path / "vgpu")


def install(source: Path, tree: HookTree, version: str) -> Path:
    """Put `source` and the preload file into `tree`; returns the versioned file that grants mount.

    The same content is installed once. Raises InstallError where the directory does not serve.
    """
    data = _read_library(source)
    _make_directories(tree)
    digest = hashlib.sha256(data).hexdigest()[:8]
    versioned = tree.vgpu / f"libvgpu.so.{version}-{digest}"
    try:
        if not _same(versioned, data):
            write_atomically(versioned, data, mode=0o755)
        if not _same(tree.library, data):
            write_atomically(tree.library, data, mode=0o755)
        line = f"{tree.library}\n".encode()
        if not _same(tree.preload, line):
            write_atomically(tree.preload, line)
    except OSError as error:
        raise InstallError(f"cannot write into {tree.vgpu}: {error.strerror}; choose another hook path") from error
    _remove_old(tree, keep=versioned)
    return versioned


def _read_library(source: Path) -> bytes:
    try:
        data = source.read_bytes()
    except OSError as error:
        raise InstallError(f"cannot read the library {source}: {error.strerror}") from error
    if not data.startswith(ELF_MAGIC):
        raise InstallError(f"{source} is not a shared library")
    return data


def _make_directories(tree: HookTree) -> None:
    try:
        for directory in (tree.vgpu, tree.grants, tree.containers):
            directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InstallError(f"cannot create {error.filename}: {error.strerror}; choose another hook path") from error
    if os.statvfs(tree.vgpu).f_flag & os.ST_NOEXEC:
        raise InstallError(
            f"{tree.vgpu} is mounted noexec: no program could load the library; choose another hook path"
        )


def _same(path: Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data


def _remove_old(tree: HookTree, *, keep: Path) -> None:
    """Delete versions beyond the newest few. A container keeps what it has mounted: the inode lives on."""
    found = sorted(
        (path for path in tree.vgpu.iterdir() if VERSIONED.fullmatch(path.name) and path != keep),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    for path in found[KEPT_VERSIONS - 1 :]:
        path.unlink(missing_ok=True)
