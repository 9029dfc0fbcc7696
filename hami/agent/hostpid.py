"""The host-pid broker: tells a program of a container its own pid as the node sees it, by the kernel's word alone.

The protocol is HAMi's, version 1: one request and one answer on a stream socket, integers in network order.

    request   magic `HPID`, version (2 bytes), command (2): 1 = my pid
    answer    magic `HPID`, version (2), status (2): 0 = fine, 1 = not a request, pid (4)

A program cannot ask about another one, and what it sends is never believed beyond being a request. Work is bounded:
so many connections at a time, one deadline for each; more are closed unanswered, and clients do without.
"""

import fcntl
import logging
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import SocketAttribute, SocketStream

log = logging.getLogger(__name__)

DIRECTORY: Final = Path("/var/run/hami/hostpid")
"""HAMi's; on the node and in the agent alike."""
SOCKET: Final = "broker.sock"
LOCK: Final = "broker.lock"
MAGIC: Final = b"HPID"
VERSION: Final = 1
GET_PID: Final = 1
FINE, NO_REQUEST = 0, 1
REQUEST: Final = struct.Struct("!4sHH")
ANSWER: Final = struct.Struct("!4sHHI")
CREDENTIALS: Final = struct.Struct("iII")
"""The kernel's `struct ucred`: pid, uid, gid."""
MOST: Final = 256
"""Connections at a time."""
DEADLINE_S: Final = 0.5
AGAIN_S: Final = 5.0
"""Pause before the next attempt: the agent before this one may be ending."""


class BrokerError(Exception):
    """The socket cannot be served here; the text says why."""


class Broker:
    """Answers connections; one agent a node may have it."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self.directory = directory
        self._active = 0
        self._served = False

    def served(self) -> Path | None:
        """Its directory, while it is served."""
        return self.directory if self._served else None

    async def run(self) -> None:
        """Serve for ever; where that cannot be, try again: programs do without."""
        told = ""
        while True:
            try:
                async with self.serving():
                    log.info("host pids are told at %s", self.path)
                    await anyio.sleep_forever()
            except BrokerError as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("host pids are not told: %s", error)
                await anyio.sleep(AGAIN_S)

    @property
    def path(self) -> Path:
        return self.directory / SOCKET

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Answer while the block lasts. Raises BrokerError."""
        with _owned(self.directory):
            _remove_stale(self.path)
            try:
                listener = await anyio.create_unix_listener(self.path, mode=0o666, backlog=MOST)
            except OSError as error:
                raise BrokerError(f"{self.path}: {error.strerror}") from error
            made = self.path.lstat()
            async with listener, anyio.create_task_group() as tasks:
                tasks.start_soon(listener.serve, self._answer, name="host pids")
                self._served = True
                try:
                    yield
                finally:
                    self._served = False
                    tasks.cancel_scope.cancel()
                    _remove_own(self.path, made)

    async def _answer(self, stream: SocketStream) -> None:
        async with stream:
            if self._active >= MOST:
                return
            self._active += 1
            try:
                with anyio.move_on_after(DEADLINE_S):
                    request = await _receive(stream, REQUEST.size)
                    fine = request == REQUEST.pack(MAGIC, VERSION, GET_PID)
                    pid = _peer(stream.extra(SocketAttribute.raw_socket)) if fine else 0
                    if fine and pid == 0:
                        return  # a peer that this process's pid namespace does not contain
                    await stream.send(ANSWER.pack(MAGIC, VERSION, FINE if fine else NO_REQUEST, pid))
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return  # it has gone away
            finally:
                self._active -= 1


async def _receive(stream: SocketStream, size: int) -> bytes:
    """Exactly `size` bytes. Raises EndOfStream."""
    data = b""
    while len(data) < size:
        data += await stream.receive(size - len(data))
    return data


def _peer(connection: socket.socket) -> int:
    """Who connected, by the kernel: as this process's pid namespace numbers it."""
    pid, _, _ = CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    return int(pid)


@contextmanager
def _owned(directory: Path) -> Iterator[None]:
    """The directory, made and ours alone, while the block lasts: programs trust a socket by who owns it and its
    directory. Raises BrokerError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise BrokerError(f"{directory} is not a directory of this user")
        directory.chmod(0o711)
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BrokerError(f"{directory}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BrokerError(f"{directory}: another process serves it") from None
    finally:
        os.close(descriptor)


def _remove_stale(path: Path) -> None:
    """Take a dead server's socket away; anything else in its place is nobody's to remove."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        raise BrokerError(f"{path} exists and is not a socket of this user")
    path.unlink()


def _remove_own(path: Path, made: os.stat_result) -> None:
    try:
        now = path.lstat()
    except FileNotFoundError:
        return
    if (now.st_dev, now.st_ino) == (made.st_dev, made.st_ino):
        path.unlink()
