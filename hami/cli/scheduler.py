"""`hami scheduler`: flags, environment and files into settings, and the service started with them."""

import logging
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import anyio
import prometheus_client
import typer
import yaml

from hami.kube.client import DEFAULT_TIMEOUT_S, Kube
from hami.kube.errors import ConfigError, KubeError
from hami.kube.pace import RateLimit
from hami.model.document import parse_go_duration, read_label_selector
from hami.model.names import WireError
from hami.model.settings import DeviceConfig, SchedulerSettings, read_device_config
from hami.model.vendor import Registry
from hami.scheduler.http import read_address
from hami.scheduler.service import Options, Scheduler, until_told_to_stop
from hami.vendors import registry

log = logging.getLogger("hami.scheduler")

_LOCK_EXPIRE = "HAMI_NODELOCK_EXPIRE"


def scheduler(
    kubeconfig: Annotated[str, typer.Option(help="default: KUBECONFIG, ~/.kube/config, the service account")] = "",
    device_config_file: Annotated[Path | None, typer.Option(help="resource names and defaults by family")] = None,
    http_bind: Annotated[
        str, typer.Option("--http_bind", metavar="HOST:PORT", help="webhook, health")
    ] = "127.0.0.1:8080",
    extender_bind: Annotated[
        str,
        typer.Option("--extender_bind", metavar="HOST:PORT", help="filter and bind, plain HTTP; default: --http_bind"),
    ] = "",
    cert_file: Annotated[Path | None, typer.Option("--cert_file", help="with --key_file: HTTPS on --http_bind")] = None,
    key_file: Annotated[Path | None, typer.Option("--key_file")] = None,
    metrics_bind_address: Annotated[str, typer.Option(metavar="HOST:PORT", help="empty: no metrics")] = ":9395",
    scheduler_name: Annotated[str, typer.Option(help="what pods name, and the source of events")] = "",
    node_scheduler_policy: Annotated[str, typer.Option(help="binpack, spread")] = "binpack",
    gpu_scheduler_policy: Annotated[str, typer.Option(help="binpack, spread, mutex, numa, topology-aware")] = "spread",
    filter_answer: Annotated[
        Literal["single", "ranked"], typer.Option(help="the best node, or every fitting node for /prioritize")
    ] = "single",
    score_request: Annotated[
        bool, typer.Option(help="rank devices by their use with the request: it matters where their sizes differ")
    ] = False,
    privileged: Annotated[
        Literal["deny", "skip", "allow"], typer.Option(help="privileged containers in pods that ask for devices")
    ] = "deny",
    node_label_selector: Annotated[str, typer.Option(metavar="K=V,...", help="register only these nodes")] = "",
    force_overwrite_default_scheduler: Annotated[
        bool, typer.Option(help="take over the default scheduler's pods")
    ] = True,
    node_lock_timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="default: HAMI_NODELOCK_EXPIRE or 5m")
    ] = "",
    node_lock_retry_timeout: Annotated[str, typer.Option(metavar="DURATION", help="wait for a locked node")] = "28s",
    leader_elect: Annotated[bool, typer.Option(help="decide only while our kube-scheduler holds its Lease")] = False,
    leader_elect_resource_name: Annotated[str, typer.Option(help="kube-scheduler's Lease")] = "",
    leader_elect_resource_namespace: Annotated[str, typer.Option()] = "",
    kube_qps: Annotated[
        float, typer.Option(help="ordinary writes a second; bindings and reads are not held back")
    ] = 50,
    kube_burst: Annotated[int, typer.Option()] = 100,
    kube_timeout: Annotated[int, typer.Option(metavar="SECONDS", help="of one request; 0: 10 s")] = 0,
    legacy_metrics: Annotated[bool, typer.Option(help="HAMi's old metric names, too")] = False,
    profiling: Annotated[bool, typer.Option(help="accepted; there is no profile to serve")] = False,
    enable_ascend: Annotated[bool, typer.Option(help="serve Ascend chips of the device configuration")] = False,
    enable_iluvatar: Annotated[bool, typer.Option(help="serve Iluvatar chips of the device configuration")] = False,
    debug: Annotated[bool, typer.Option(help="log everything")] = False,
    verbosity: Annotated[int, typer.Option("-v", help="log level in Go's style: 5 and more is debug")] = 0,
) -> None:
    """The cluster service: scheduler extender, admission webhook and metrics, beside an unmodified kube-scheduler."""
    _log(debug or verbosity >= 5)
    # Nobody asks when a counter was made, and it doubles their series.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    if profiling:
        log.warning("--profiling has no effect: there is no profile to serve")
    try:
        config = _device_config(device_config_file)
        settings = SchedulerSettings(
            scheduler_name=scheduler_name,
            node_policy=node_scheduler_policy,
            card_policy=gpu_scheduler_policy,
            force_overwrite_default_scheduler=force_overwrite_default_scheduler,
            node_lock_timeout_s=lock_timeout(node_lock_timeout, os.environ),
            node_lock_retry_timeout_s=parse_go_duration(node_lock_retry_timeout, "--node-lock-retry-timeout"),
            node_label_selector=read_label_selector(node_label_selector, "--node-label-selector"),
            filter_answer=filter_answer,
            score_request=score_request,
            privileged=privileged,
        )
        options = Options(
            http=read_address(http_bind, "--http_bind"),
            extender=read_address(extender_bind, "--extender_bind") if extender_bind else None,
            metrics=read_address(metrics_bind_address, "--metrics-bind-address") if metrics_bind_address else None,
            cert=cert_file,
            key=key_file,
            legacy_metrics=legacy_metrics,
            lease=_lease(leader_elect, leader_elect_resource_namespace, leader_elect_resource_name),
            host=socket.gethostname(),
            pod=_own_pod(os.environ),
        )
        limit = RateLimit(kube_qps, kube_burst) if kube_qps > 0 and kube_burst > 0 else None
        timeout_s = float(kube_timeout) or DEFAULT_TIMEOUT_S
        anyio.run(
            _run,
            kubeconfig,
            registry(config, ascend=enable_ascend, iluvatar=enable_iluvatar),
            settings,
            options,
            timeout_s,
            limit,
            backend="asyncio",
            backend_options={"use_uvloop": True},
        )
    except (WireError, ConfigError, OSError) as error:
        raise _ended(error) from None
    except ExceptionGroup as group:
        # Ports and certificates are opened inside the service's task group.
        outside, bugs = group.split(OSError)
        if outside is None or bugs is not None:
            raise
        raise _ended(_first(outside)) from None


def _ended(error: Exception) -> typer.Exit:
    print(f"hami scheduler: {error}", file=sys.stderr)
    return typer.Exit(1)


def _first(group: ExceptionGroup[OSError]) -> Exception:
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def lock_timeout(flag: str, environ: Mapping[str, str]) -> float:
    """Seconds after which a node lock is dead: the flag, else the environment, else five minutes."""
    if flag:
        return parse_go_duration(flag, "--node-lock-timeout")
    return parse_go_duration(environ.get(_LOCK_EXPIRE) or "5m", _LOCK_EXPIRE)


async def _run(
    kubeconfig: str,
    families: Registry,
    settings: SchedulerSettings,
    options: Options,
    timeout_s: float,
    limit: RateLimit | None,
) -> None:
    async with Kube.connect(kubeconfig or None, timeout_s=timeout_s, limit=limit) as kube:
        log.info("cluster at %s", kube.host)
        service = Scheduler(kube, families, settings, options, username=await _username(kube))
        await until_told_to_stop(service.run)


async def _username(kube: Kube) -> str:
    """Who we are to the API server, because only we may write allocations; unknown on old servers."""
    try:
        return await kube.whoami()
    except KubeError as error:
        log.warning("own user name unknown: %s", error)
        return ""


def _device_config(path: Path | None) -> DeviceConfig:
    if path is None:
        raise WireError("--device-config-file", "the device configuration's path")
    try:
        document = yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise WireError(str(path), f"YAML ({error})") from error
    config = read_device_config(document)
    for warning in config.warnings:
        log.warning("%s: %s", path, warning)
    return config


def _lease(elect: bool, namespace: str, name: str) -> tuple[str, str] | None:
    if not elect:
        return None
    if not namespace or not name:
        raise WireError("--leader-elect", "--leader-elect-resource-name and -namespace with it")
    return namespace, name


def _own_pod(environ: Mapping[str, str]) -> tuple[str, str] | None:
    namespace, name = environ.get("POD_NAMESPACE"), environ.get("POD_NAME")
    return (namespace, name) if namespace and name else None


def _log(debug: bool) -> None:
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO,
        format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    # What the libraries below say about their own coming and going is never what is looked for.
    for library in ("asyncio", "uvicorn.error"):
        logging.getLogger(library).setLevel(logging.WARNING)
