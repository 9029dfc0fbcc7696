"""HTTP in front of the handlers: routes, body limits, TLS that follows its files, and a server in a task group.

Bare ASGI on uvicorn, because `/filter` is hot: a handler gets the body and gives the answer's body. One request is one
task of the server's; leaving `serve` waits for those that are under way.
"""

import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import uvicorn
from anyio.abc import TaskStatus

from hami.model.names import WireError

log = logging.getLogger(__name__)

MAX_BODY: Final = 64 * 2**20
BODY_S: Final = 60.0
"""How long a body may take to arrive."""
GRACE_S: Final = 10
"""How long requests under way may take when the server stops."""

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler says."""

    body: bytes = b""
    status: int = 200
    content_type: bytes = b"application/json"


@dataclass(frozen=True, slots=True)
class Decide:
    """A route whose handler answers at once."""

    handler: Callable[[bytes], Answer]


@dataclass(frozen=True, slots=True)
class Act:
    """A route whose handler waits for others; its event is set when the caller goes away."""

    handler: Callable[[bytes, anyio.Event], Awaitable[Answer]]


Route = Decide | Act


class App:
    """The ASGI application: routes by method and path."""

    def __init__(self, routes: Mapping[tuple[str, str], Route]) -> None:
        self._routes = dict(routes)
        self._paths = {path for _, path in routes}

    async def __call__(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served")
        started = time.perf_counter()
        answer = await self._answer(scope, receive)
        spent_ms = (time.perf_counter() - started) * 1000
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [
                    (b"content-type", answer.content_type),
                    (b"content-length", str(len(answer.body)).encode()),
                    # Lets whoever measures latency tell our part from the network's.
                    (b"server-timing", b"app;dur=%.3f" % spent_ms),
                ],
            }
        )
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Mapping[str, Any], receive: _Receive) -> Answer:
        route = self._routes.get((scope["method"], scope["path"]))
        if route is None:
            return _plain(405 if scope["path"] in self._paths else 404)
        body = b""
        if scope["method"] == "POST":
            try:
                with anyio.fail_after(BODY_S):
                    read = await _read_body(scope, receive)
            except TimeoutError:
                return _plain(408)
            if read is None:
                return _plain(413)
            if not read:
                return _plain(400, "Please send a request body")
            body = read
        try:
            match route:
                case Decide(handler):
                    return handler(body)
                case Act(handler):
                    return await _watched(handler(body, gone := anyio.Event()), receive, gone)
        except WireError as error:
            return _plain(400, str(error))


async def _watched(work: Awaitable[Answer], receive: _Receive, gone: anyio.Event) -> Answer:
    """The work's answer, while `gone` is set as soon as the caller goes away."""
    answer: Answer | WireError
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_await_disconnect, receive, gone, name="caller")
        try:
            answer = await work
        except WireError as error:
            answer = error
        tasks.cancel_scope.cancel()
    if isinstance(answer, WireError):
        raise answer
    return answer


async def _read_body(scope: Mapping[str, Any], receive: _Receive) -> bytes | None:
    """The whole body; None when it is too large."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > MAX_BODY:
            return None
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _await_disconnect(receive: _Receive, gone: anyio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()


def _plain(status: int, text: str = "") -> Answer:
    return Answer(text.encode(), status, b"text/plain; charset=utf-8")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; an empty host is every interface."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_address(text: str, field: str) -> Address:
    """`HOST:PORT`, `:PORT` or `[IPv6]:PORT`."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise WireError(field, "HOST:PORT", text)
    return Address(host.removeprefix("[").removesuffix("]"), int(port))


class Certificate:
    """A TLS context whose certificate follows its files."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Raises OSError or ssl.SSLError when the files are not a certificate and its key."""
        self._cert = cert
        self._key = key
        self._stamp = self._look()
        self.context = _load(cert, key)

    async def follow(self, *, every_s: float = 1.0) -> None:
        """Load the files again whenever they change, for ever. Files that do not fit leave the old certificate."""
        while True:
            await anyio.sleep(every_s)
            try:
                stamp = self._look()
                if stamp == self._stamp:
                    continue
                # Tried on a fresh context first: a half-written pair must not spoil the one in use.
                _load(self._cert, self._key)
                self.context.load_cert_chain(self._cert, self._key)
            except (OSError, ssl.SSLError) as error:
                log.warning("certificate %s not loaded: %s", self._cert, error)
            else:
                self._stamp = stamp
                log.info("certificate %s loaded again", self._cert)

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        return tuple((s.st_mtime_ns, s.st_ino, s.st_size) for s in (self._cert.stat(), self._key.stat()))


def _load(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key)
    return context


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the service, not to one of its servers."""
        yield


async def serve(
    app: App,
    address: Address,
    *,
    certificate: Certificate | None = None,
    task_status: TaskStatus[Address] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; then take no more requests and finish those under way. Started with the bound address."""
    listener = _listen(address)
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        # Longer than Go clients keep an idle connection, so that we never close one they are about to use.
        timeout_keep_alive=180,
        timeout_graceful_shutdown=GRACE_S,
        ssl_context_factory=None if certificate is None else lambda config, default: certificate.context,
    )
    server = _Server(config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_stop, server, name=f"stop {address}")
        bound = listener.getsockname()
        task_status.started(Address(bound[0], bound[1]))
        with anyio.CancelScope(shield=True):
            await server.serve([listener])
        tasks.cancel_scope.cancel()


async def _stop(server: uvicorn.Server) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        server.should_exit = True


def _listen(address: Address) -> socket.socket:
    try:
        if not address.host and socket.has_dualstack_ipv6():
            return socket.create_server(("", address.port), family=socket.AF_INET6, dualstack_ipv6=True)
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        return socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from error
