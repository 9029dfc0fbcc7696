"""Latency of `POST /filter` against the number of nodes, at the server and at the client, and the memory it takes.

    python -m bench.filter                      every size; writes bench/results/filter-<date>.json and prints a table
    python -m bench.filter --nodes 1000         one size
    python -m bench.filter --seconds 10 --json  longer, and one JSON object on the last line

Starts the real `hami scheduler` as a process of its own, over plain HTTP, on a scripted API server in another process
that holds the nodes (eight cards each) and running pods. Each request filters a fresh pod over all nodes on one kept
connection, as kube-scheduler does; the pod is filtered again or deleted later, so the number of holds stays small.
"Server" is the time between a request's arrival in our code and its answer, as the service itself reports it.
"""

import argparse
import asyncio
import contextlib
import datetime
import json
import multiprocessing
import os
import platform
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from rich.console import Console
from rich.table import Table

from tests.fakes.apiserver import FakeApi
from tests.fakes.objects import card, pod

Json = dict[str, Any]
RESULTS = Path(__file__).parent / "results"
CARDS = 8
PODS_AT_1000 = 10_000
"""Running pods in the picture with 1,000 nodes; other sizes have as many a node."""
UIDS = 64
"""Pods that take turns: a repeated one is decided again in place of its own hold."""
MODELS = ("NVIDIA A100-SXM4-80GB", "NVIDIA A10", "NVIDIA-Tesla T4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One size. Times in milliseconds, memory in MiB."""

    case: str
    nodes: int
    devices: int
    pods: int
    requests: int
    server_p50_ms: float
    server_p99_ms: float
    server_max_ms: float
    server_cpu_ms: float
    """The process's CPU time a request, HTTP included: still true when the machine is busy with others."""
    client_p50_ms: float
    client_p99_ms: float
    rss_idle_mib: float
    """After listing, before the first request."""
    rss_mib: float
    synced_s: float
    """From the start of the process to ready."""


def cluster(nodes: int) -> tuple[list[Json], list[Json]]:
    """Nodes of eight cards and the pods that run on them, the same for every run."""
    pick = random.Random(nodes)
    made_nodes, made_pods = [], []
    total = nodes * PODS_AT_1000 // 1000
    for n in range(nodes):
        name = f"node-{n:05d}"
        model = MODELS[n % len(MODELS)]
        cards = [
            card(f"GPU-{n:08x}-{i:04x}-4000-8000-0123456789ab", i, memory=81920, model=model) for i in range(CARDS)
        ]
        notes = {"hami.io/node-nvidia-register": orjson.dumps(cards).decode()}
        made_nodes.append(
            {"metadata": {"name": name, "annotations": notes}, "status": {"allocatable": {"nvidia.com/gpu": "80"}}}
        )
    for p in range(total):
        n = p % nodes
        uuid = f"GPU-{n:08x}-{pick.randrange(CARDS):04x}-4000-8000-0123456789ab"
        made = pod(f"running-{p:06d}", memory=4096)
        made["spec"]["nodeName"] = f"node-{n:05d}"
        made["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}] * 4}
        made["metadata"]["labels"] = {"hami.io/vgpu-node": f"node-{n:05d}", "app": "bench"}
        memory, cores = pick.choice((2048, 4096, 8192)), pick.choice((0, 10))
        made["metadata"]["annotations"] = {
            "hami.io/vgpu-node": f"node-{n:05d}",
            "hami.io/vgpu-devices-allocated": f"{uuid},NVIDIA,{memory},{cores}:;",
            "hami.io/bind-phase": "success",
        }
        made_pods.append(made)
    return made_nodes, made_pods


def serve_cluster(nodes: int, folder: str, ready: Connection) -> None:
    """The scripted API server, in a process of its own."""

    async def run() -> None:
        async with FakeApi.serving() as api:
            made_nodes, made_pods = cluster(nodes)
            for made in made_nodes:
                api.put("nodes", made)
            for made in made_pods:
                api.put("pods", made)
            api.compact()
            ready.send(api.kubeconfig(Path(folder)))
            await asyncio.Event().wait()

    asyncio.run(run())


@contextlib.contextmanager
def scheduler(kubeconfig: str, folder: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The service as a process, and its address; what it said is shown when it fails."""
    config = Path(folder, "device-config.yaml")
    config.write_text("nvidia:\n  resourceCountName: nvidia.com/gpu\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        sys.executable,
        "-m",
        "hami",
        "scheduler",
        f"--kubeconfig={kubeconfig}",
        f"--device-config-file={config}",
    ]
    command += [f"--http_bind={address}", "--scheduler-name=hami-scheduler", "--metrics-bind-address=127.0.0.1:0"]
    with (
        Path(folder, "scheduler.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield process, address
        except BaseException:
            sys.stderr.write(Path(log.name).read_text()[-4000:])
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


async def measure(nodes: int, seconds: float, service: subprocess.Popen[bytes], address: str, case: str) -> Result:
    """Wait until the service is ready, then filter one pod after another for `seconds`."""
    pid = service.pid
    started = time.monotonic()
    names = [f"node-{n:05d}" for n in range(nodes)]
    memory = 8192 if case == "fits" else 2**20
    bodies = []
    for i in range(UIDS):
        made = pod(f"new-{i}", memory=memory)
        bodies.append(orjson.dumps({"Pod": made, "Nodes": None, "NodeNames": names}))
    server: list[float] = []
    client: list[float] = []
    cpu = 0.0
    async with aiohttp.ClientSession() as http:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(f"http://{address}/readyz") as answer:
                    if answer.status == 200:
                        break
            if service.poll() is not None or time.monotonic() - started > 300:
                raise RuntimeError("the scheduler did not become ready")
            await asyncio.sleep(0.05)
        synced = time.monotonic() - started
        idle = rss_mib(pid)
        for warm in (True, False):
            end = time.monotonic() + (1.0 if warm else seconds)
            i = 0
            while time.monotonic() < end:
                before = time.perf_counter()
                async with http.post(f"http://{address}/filter", data=bodies[i % UIDS]) as answer:
                    raw = await answer.read()
                spent = (time.perf_counter() - before) * 1000
                i += 1
                if warm:
                    check(raw, case)
                    cpu = cpu_ms(pid)
                else:
                    client.append(spent)
                    server.append(float(answer.headers["Server-Timing"].rpartition("=")[2]))
    return Result(
        case=case,
        nodes=nodes,
        devices=nodes * CARDS,
        pods=nodes * PODS_AT_1000 // 1000,
        requests=len(server),
        server_p50_ms=percentile(server, 50),
        server_p99_ms=percentile(server, 99),
        server_max_ms=max(server),
        server_cpu_ms=(cpu_ms(pid) - cpu) / len(server),
        client_p50_ms=percentile(client, 50),
        client_p99_ms=percentile(client, 99),
        rss_idle_mib=idle,
        rss_mib=rss_mib(pid),
        synced_s=synced,
    )


def check(raw: bytes, case: str) -> None:
    """A measurement of errors would be none."""
    answer = orjson.loads(raw)
    if answer["Error"] or bool(answer["NodeNames"]) is not (case == "fits"):
        raise RuntimeError(f"unexpected answer: {raw[:300]!r}")


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def cpu_ms(pid: int) -> float:
    """CPU time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no VmRSS of {pid}")


def run(nodes: int, seconds: float, case: str) -> Result:
    """One size, all processes started and ended."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    with tempfile.TemporaryDirectory(prefix="hami-bench-") as folder:
        server = multiprocessing.get_context("spawn").Process(
            target=serve_cluster, args=(nodes, folder, there), daemon=True
        )
        server.start()
        try:
            kubeconfig = here.recv()
            with scheduler(kubeconfig, folder) as (service, address):
                return asyncio.run(measure(nodes, seconds, service, address, case))
        finally:
            server.terminate()
            server.join(10)


def machine() -> Json:
    """What it ran on; load tells whether something else did too."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def show(results: list[Result]) -> None:
    table = Table(title="POST /filter, 8 devices a node; times in ms, memory in MiB")
    for column in (
        "case",
        "nodes",
        "pods",
        "server p50",
        "server p99",
        "CPU",
        "client p50",
        "client p99",
        "RSS",
        "synced s",
    ):
        table.add_column(column, justify="left" if column == "case" else "right")
    for r in results:
        numbers = (r.server_p50_ms, r.server_p99_ms, r.server_cpu_ms, r.client_p50_ms, r.client_p99_ms)
        table.add_row(
            r.case,
            f"{r.nodes:,}",
            f"{r.pods:,}",
            *(f"{n:.2f}" for n in numbers),
            f"{r.rss_mib:.0f}",
            f"{r.synced_s:.1f}",
        )
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, action="append", help="a size; may be repeated (default: 10 to 5000)")
    parser.add_argument("--case", choices=("fits", "refused"), action="append", help="default: both")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured time of each case")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line, and no file")
    asked = parser.parse_args()
    about = machine()
    results = [
        run(nodes, asked.seconds, case)
        for nodes in asked.nodes or (10, 100, 1000, 5000)
        for case in asked.case or ("fits", "refused")
    ]
    show(results)
    report = {"benchmark": "filter", "machine": about, "results": [asdict(result) for result in results]}
    if asked.json:
        print(json.dumps(report))
    else:
        path = RESULTS / f"filter-{datetime.date.today():%Y-%m-%d}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n")
        print(f"written: {path}")


if __name__ == "__main__":
    main()
