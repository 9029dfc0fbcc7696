"""The program as deployments start it: flags in Go's spelling, HTTPS, signals, and what it says when it cannot run."""

import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest

from hami.cli.scheduler import lock_timeout
from hami.model.names import WireError
from tests.fakes.apiserver import FakeApi
from tests.fakes.objects import node, pod

pytestmark = pytest.mark.anyio


def command(folder: Path, kubeconfig: str, *flags: str) -> list[str]:
    config = folder / "device-config.yaml"
    config.write_text("nvidia:\n  resourceCountName: nvidia.com/gpu\n  defaultMem: 100\n")
    standard = [f"--kubeconfig={kubeconfig}", f"--device-config-file={config}", "--scheduler-name=hami-scheduler"]
    return [sys.executable, "-m", "hami", "scheduler", *standard, *flags]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@asynccontextmanager
async def process(argv: list[str]) -> AsyncIterator[anyio.abc.Process]:
    async with await anyio.open_process(argv, stdout=None, stderr=subprocess.PIPE) as started:
        try:
            yield started
        finally:
            if started.returncode is None:
                started.kill()


async def ready(http: aiohttp.ClientSession, url: str) -> None:
    with anyio.fail_after(20):
        while True:
            try:
                async with http.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await anyio.sleep(0.05)


async def test_serves_and_stops_gracefully(api: FakeApi, tmp_path: Path) -> None:
    api.put("nodes", node("n1"))
    port, metrics, extender = free_port(), free_port(), free_port()
    tls = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=127.0.0.1"
    tls += " -addext subjectAltName=IP:127.0.0.1"
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    await anyio.run_process([*tls.split(), "-keyout", str(key), "-out", str(cert)], stderr=subprocess.DEVNULL)
    argv = command(
        tmp_path,
        api.kubeconfig(tmp_path),
        f"--http_bind=127.0.0.1:{port}",
        f"--extender_bind=127.0.0.1:{extender}",
        f"--metrics-bind-address=127.0.0.1:{metrics}",
        f"--cert_file={cert}",
        f"--key_file={key}",
        "--leader-elect=false",
        "--debug",
        "-v=4",
        "--default-mem=0",
        "--mthreads-name=x",
        "--kube-qps=20",
    )
    trust = ssl.create_default_context(cafile=str(cert))
    async with process(argv) as started, aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as http:
        await ready(http, f"https://127.0.0.1:{port}")
        made = api.put("pods", pod("p"))
        async with http.post(f"http://127.0.0.1:{extender}/filter", json={"Pod": made, "NodeNames": ["n1"]}) as answer:
            assert (await answer.json())["NodeNames"] == ["n1"]
        # Whoever reaches the webhook's port must not be able to bind.
        async with http.post(f"https://127.0.0.1:{port}/bind", json={}) as answer:
            assert answer.status == 404
        async with http.get(f"http://127.0.0.1:{metrics}/metrics") as answer:
            assert "hami_gpu_memory_limit_bytes" in await answer.text()
        started.send_signal(signal.SIGTERM)
        with anyio.fail_after(10):
            assert await started.wait() == 0


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--http_bind=nowhere"], "--http_bind"),
        (["--device-config-file=/does/not/exist"], "/does/not/exist"),
        (["--leader-elect"], "--leader-elect"),
        (["--node-lock-timeout=soon"], "--node-lock-timeout"),
        (["--node-label-selector=gpu"], "--node-label-selector"),
        (["--kubeconfig=/does/not/exist"], "/does/not/exist"),
        (["--cert_file=/does/not/exist", "--key_file=/does/not/exist", "--http_bind=127.0.0.1:0"], "/does/not/exist"),
    ],
)
async def test_what_cannot_run_says_why_in_one_line(api: FakeApi, tmp_path: Path, flags: list[str], told: str) -> None:
    argv = command(tmp_path, api.kubeconfig(tmp_path), "--metrics-bind-address=", *flags)
    with anyio.fail_after(20):
        done = await anyio.run_process(argv, check=False, env={**os.environ, "PYTHONWARNINGS": "default"})
    assert done.returncode == 1
    last = done.stderr.decode().strip().splitlines()[-1]
    assert last.startswith("hami scheduler: ")
    assert told in last


@pytest.mark.parametrize(
    ("flag", "environ", "seconds"),
    [
        ("", {}, 300),
        ("", {"HAMI_NODELOCK_EXPIRE": "1m30s"}, 90),
        ("2m", {"HAMI_NODELOCK_EXPIRE": "1m30s"}, 120),
        ("", {"HAMI_NODELOCK_EXPIRE": ""}, 300),
    ],
)
def test_lock_timeout_is_flag_then_environment_then_default(flag: str, environ: dict[str, str], seconds: float) -> None:
    assert lock_timeout(flag, environ) == seconds


def test_unusable_lock_timeout_names_its_source() -> None:
    with pytest.raises(WireError, match="HAMI_NODELOCK_EXPIRE"):
        lock_timeout("", {"HAMI_NODELOCK_EXPIRE": "soon"})
