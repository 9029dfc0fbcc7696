"""The one lock of a directory of running programs: who holds it decides and writes, the kernel lets go when it dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

CAREFUL: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Flags for a file that another user may have put there: no link is followed, and a pipe does not block the open."""


class LocalStateError(Exception):
    """The directory of running programs cannot be used; the text says what to change."""


@contextmanager
def locked(directory: Path, patience_s: float = 10.0) -> Iterator[None]:
    """Alone with the directory: decide and write within this block. The kernel lets go when its holder dies."""
    path = directory / "lock"
    deadline = time.monotonic() + patience_s
    while (descriptor := _acquire(path, deadline, patience_s)) is None:
        continue
    try:
        yield
    finally:
        os.close(descriptor)


def _acquire(path: Path, deadline: float, patience_s: float) -> int | None:
    """The locked file; None when it was removed meanwhile, so that another program may have locked its successor."""
    descriptor = _open_lock(path)
    try:
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise LocalStateError(f"{path}: held for {patience_s:.0f} s by {_lock_holder(descriptor)}")
            time.sleep(0.01)
        if _is_named(descriptor, path):
            held, descriptor = descriptor, -1
            return held
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return None


def _open_lock(path: Path) -> int:
    flags = os.O_RDONLY | CAREFUL
    try:
        # In a sticky directory the kernel may refuse O_CREAT on a file of another user, so opening comes first.
        return os.open(path, flags)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise LocalStateError(f"{path}: {error.strerror}; remove it") from error
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return os.open(path, flags)  # another program was first
    os.fchmod(descriptor, 0o644)  # whatever this user's umask says, every user must be able to open it
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _lock_holder(descriptor: int) -> str:
    inode = os.fstat(descriptor).st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode):
            return f"process {words[4]}"
    return "another program"
