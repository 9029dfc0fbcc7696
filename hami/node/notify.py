"""Waking up when something happens in a directory (inotify), with polling where the kernel gives no more watches.

It only wakes: callers look at the files themselves, so a lost or merged event costs nothing.
"""

import ctypes
import ctypes.util
import os
from pathlib import Path
from typing import Final, Self

import anyio

IN_CLOSE_WRITE: Final = 0x08
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
IN_DELETE: Final = 0x200
POLL_S: Final = 0.02
"""Period without inotify (its instances are limited for each user)."""

_libc = ctypes.CDLL(None, use_errno=True)


class DirectoryWatch:
    """Wakes when a file of `directory` is created, renamed into it, written and closed, or deleted."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = _open(directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    async def wait(self, timeout_s: float) -> None:
        """Return after an event since the last call, or after `timeout_s`."""
        if self._descriptor is None:
            await anyio.sleep(min(timeout_s, POLL_S))
            return
        with anyio.move_on_after(timeout_s):
            await anyio.wait_readable(self._descriptor)
            _drain(self._descriptor)


def _open(directory: Path) -> int | None:
    """A non-blocking inotify descriptor on `directory`, or None where the kernel refuses one."""
    descriptor = int(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if descriptor < 0:
        return None
    events = IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_DELETE
    if _libc.inotify_add_watch(descriptor, os.fsencode(directory), events) < 0:
        os.close(descriptor)
        return None
    return descriptor


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 65536):
            pass
    except BlockingIOError:
        return
