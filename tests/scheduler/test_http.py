"""HTTP in front of the handlers: limits, routes, certificates. Not here: what the handlers decide."""

import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import anyio
import pytest
from anyio.streams.tls import TLSAttribute

from hami.model.names import WireError
from hami.scheduler import http as module
from hami.scheduler.http import Act, Address, Answer, App, Certificate, Decide, read_address, serve

pytestmark = pytest.mark.anyio


def refuse(body: bytes) -> Answer:
    raise WireError("field", "something", body.decode())


ECHO = App(
    {
        ("POST", "/echo"): Decide(lambda body: Answer(body)),
        ("POST", "/refuse"): Decide(refuse),
        ("GET", "/healthz"): Decide(lambda body: Answer()),
    }
)


@asynccontextmanager
async def serving(app: App, certificate: Certificate | None = None) -> AsyncIterator[str]:
    async with anyio.create_task_group() as tasks:
        start = partial(serve, app, Address("127.0.0.1", 0), certificate=certificate)
        address = await tasks.start(start)
        yield f"{'https' if certificate else 'http'}://{address}"
        tasks.cancel_scope.cancel()


async def test_routes(guard: None) -> None:
    async with serving(ECHO) as url, aiohttp.ClientSession() as http:
        for method, path, data, status, body in (
            ("POST", "/echo", b"hello", 200, b"hello"),
            ("POST", "/echo", b"", 400, b"Please send a request body"),
            ("POST", "/refuse", b"x", 400, b"field: expected something, got 'x'"),
            ("GET", "/echo", None, 405, b""),
            ("GET", "/nowhere", None, 404, b""),
            ("GET", "/healthz", None, 200, b""),
        ):
            async with http.request(method, url + path, data=data) as answer:
                assert (answer.status, await answer.read()) == (status, body), path


@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_above_the_cap_are_not_read(guard: None, monkeypatch: pytest.MonkeyPatch, chunked: bool) -> None:
    monkeypatch.setattr(module, "MAX_BODY", 100_000)

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 10_000

    async with serving(ECHO) as url, aiohttp.ClientSession() as http:
        async with http.post(url + "/echo", data=b"x" * 100_000) as answer:
            assert answer.status == 200
        async with http.post(url + "/echo", data=parts() if chunked else b"x" * 100_001) as answer:
            assert answer.status == 413


async def test_a_body_that_never_ends_is_given_up(guard: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BODY_S", 0.1)

    async def parts() -> AsyncIterator[bytes]:
        yield b"x"
        await anyio.sleep(1)
        yield b"y"

    async with (
        serving(ECHO) as url,
        aiohttp.ClientSession() as http,
        http.post(url + "/echo", data=parts()) as answer,
    ):
        assert answer.status == 408


async def test_a_handler_hears_that_its_caller_went_away(guard: None) -> None:
    left = anyio.Event()

    async def wait(body: bytes, gone: anyio.Event) -> Answer:
        await gone.wait()
        left.set()
        return Answer()

    async with serving(App({("POST", "/wait"): Act(wait)})) as url, aiohttp.ClientSession() as http:
        with anyio.move_on_after(0.1):
            await http.post(url + "/wait", data=b"x")
        with anyio.fail_after(2):
            await left.wait()


async def test_leaving_waits_for_requests_under_way(guard: None) -> None:
    inside = anyio.Event()

    async def slow(body: bytes, gone: anyio.Event) -> Answer:
        inside.set()
        await anyio.sleep(0.3)
        return Answer(b"done")

    got: list[bytes] = []
    async with aiohttp.ClientSession() as http, anyio.create_task_group() as callers:

        async def call(url: str) -> None:
            async with http.post(url + "/slow", data=b"x") as answer:
                got.append(await answer.read())

        async with serving(App({("POST", "/slow"): Act(slow)})) as url:
            callers.start_soon(call, url)
            await inside.wait()
    assert got == [b"done"]


def issue(folder: Path) -> str:
    """A fresh self-signed certificate and its key; the certificate's text."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=test"
    cert, key = folder / "tls.crt", folder / "tls.key"
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert.read_text()


async def served(url: str) -> str:
    """The certificate that a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host, _, port = url.removeprefix("https://").rpartition(":")
    stream = await anyio.connect_tcp(host, int(port), tls=True, ssl_context=context, tls_standard_compatible=False)
    async with stream:
        raw = stream.extra(TLSAttribute.peer_certificate_binary)
    assert raw is not None
    return ssl.DER_cert_to_PEM_cert(raw)


async def test_certificate_follows_its_files(guard: None, tmp_path: Path) -> None:
    first = issue(tmp_path)
    certificate = Certificate(tmp_path / "tls.crt", tmp_path / "tls.key")
    async with serving(ECHO, certificate) as url, anyio.create_task_group() as tasks:
        tasks.start_soon(partial(certificate.follow, every_s=0.02))
        assert await served(url) == first
        # A key that does not belong to the certificate: the old pair stays in use.
        (tmp_path / "tls.key").write_text("half written")
        await anyio.sleep(0.1)
        assert await served(url) == first
        second = issue(tmp_path)
        await anyio.sleep(0.2)
        assert await served(url) == second
        tasks.cancel_scope.cancel()


def test_unusable_certificate_is_an_error_at_start(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        Certificate(tmp_path / "none.crt", tmp_path / "none.key")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("0.0.0.0:443", "0.0.0.0", 443), (":9395", "", 9395), ("[::1]:80", "::1", 80), ("127.0.0.1:0", "127.0.0.1", 0)],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert read_address(text, "--http_bind") == Address(host, port)


@pytest.mark.parametrize("text", ["", "80", "host:", "host:http", "host:99999", "host:-1"])
def test_unusable_addresses_name_the_flag(text: str) -> None:
    with pytest.raises(WireError, match="--http_bind"):
        read_address(text, "--http_bind")


async def test_address_in_use(guard: None) -> None:
    async with serving(ECHO) as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            await serve(ECHO, Address("127.0.0.1", port))
