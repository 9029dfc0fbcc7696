"""Being known to the kubelet: serve the plug-in's socket, register, and register again when the kubelet comes back.

A starting kubelet deletes every socket in its directory and then listens. It skips `PreStartContainer` for a resource
until that is registered again, so what follows a new `kubelet.sock` must take milliseconds.
"""

import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.server import Server

from hami.agent.pb.deviceplugin_grpc import DevicePluginBase, RegistrationStub
from hami.agent.pb.deviceplugin_pb2 import DevicePluginOptions, RegisterRequest
from hami.node.notify import DirectoryWatch

log = logging.getLogger(__name__)

API_VERSION: Final = "v1beta1"
KUBELET_SOCKET: Final = "kubelet.sock"
RECHECK_S: Final = 1.0
"""How long to trust that no event means no change."""
RETRY_S: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Pauses between attempts to register: the socket's file exists a moment before anyone listens on it."""

OPTIONS: Final = DevicePluginOptions(pre_start_required=True, get_preferred_allocation_available=True)

SocketIdentity = tuple[int, int]
"""Inode and change time in ns: inode numbers are used again soon after a delete."""


async def stay_registered(
    plugin: DevicePluginBase,
    directory: Path,
    *,
    endpoint: str,
    resource: str,
    options: DevicePluginOptions = OPTIONS,
    registered: Callable[[bool], None] = lambda _known: None,
    retry_s: Sequence[float] = RETRY_S,
) -> None:
    """Serve `plugin` on `directory/endpoint` and keep the kubelet knowing it, until cancelled.

    `options` are the plug-in's own answer. `registered` is told of every change. Raises OSError when the plug-in's
    socket cannot be made.
    """
    with DirectoryWatch(directory) as changes:
        while True:
            kubelet = await _kubelet(directory, changes)
            async with _serving(plugin, directory / endpoint):
                own = _identity(directory / endpoint)
                request = RegisterRequest(
                    version=API_VERSION, endpoint=endpoint, resource_name=resource, options=options
                )
                if await _register(directory, kubelet, request, retry_s):
                    registered(True)
                    log.info("registered %s with the kubelet as %s", resource, endpoint)
                    await _until_changed(directory, endpoint, kubelet, own, changes)
                    registered(False)


def _identity(socket: Path) -> SocketIdentity | None:
    try:
        found = os.lstat(socket)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns


async def _kubelet(directory: Path, changes: DirectoryWatch) -> SocketIdentity:
    """The kubelet's socket, as soon as there is one."""
    while (found := _identity(directory / KUBELET_SOCKET)) is None:
        await changes.wait(RECHECK_S)
    return found


async def _until_changed(
    directory: Path, endpoint: str, kubelet: SocketIdentity, own: SocketIdentity | None, changes: DirectoryWatch
) -> None:
    """Until the kubelet's socket is another one, or ours has been taken away."""
    while _identity(directory / KUBELET_SOCKET) == kubelet and _identity(directory / endpoint) == own:
        await changes.wait(RECHECK_S)


@asynccontextmanager
async def _serving(plugin: DevicePluginBase, socket: Path) -> AsyncIterator[None]:
    await anyio.Path(socket).unlink(missing_ok=True)
    server = Server([plugin])
    await server.start(path=str(socket))
    try:
        yield
    finally:
        server.close()
        with anyio.CancelScope(shield=True):
            await server.wait_closed()


async def _register(
    directory: Path, kubelet: SocketIdentity, request: RegisterRequest, retry_s: Sequence[float]
) -> bool:
    """Register with this very kubelet; False when it has gone meanwhile. Refusals are tried again, ever more slowly."""
    attempt = 0
    while _identity(directory / KUBELET_SOCKET) == kubelet:
        channel = Channel(path=str(directory / KUBELET_SOCKET))
        try:
            await RegistrationStub(channel).Register(request, timeout=10)
        except (OSError, GRPCError, StreamTerminatedError, TimeoutError) as error:
            pause = retry_s[min(attempt, len(retry_s) - 1)]
            log.log(
                logging.WARNING if pause >= 1 else logging.DEBUG, "kubelet refuses %s: %r", request.resource_name, error
            )
            attempt += 1
            await anyio.sleep(pause)
        else:
            return True
        finally:
            channel.close()
    return False
