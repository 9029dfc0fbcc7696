"""`hami agent`: flags, environment and files become the agent's settings."""

import logging
import platform
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import anyio
import typer
import yaml

from hami import __version__
from hami.agent import hostpid
from hami.agent.answer import NO_ADDITIONS, Additions, Strategy, simulated_additions
from hami.agent.service import run
from hami.agent.settings import AgentSettings
from hami.agent.simulation import simulated_machine
from hami.alloc.grant import LOCK
from hami.kube.errors import ConfigError
from hami.model.machine import Machine, read_machine
from hami.model.machine_cards import MachineCard
from hami.model.names import NodeName, WireError
from hami.model.settings import (
    DEFAULT_DEVICE_CONFIG,
    DeviceConfig,
    NodeOverrides,
    read_device_config,
    read_node_config,
)
from hami.node import cgroups, mps
from hami.node.installed import HookTree, InstallError, hook_tree, install
from hami.node.probe import ProbeError
from hami.node.probe_nvidia import MIXED, SINGLE
from hami.node.simulated import NativeMissing, native_dir
from hami.vendors.amd import AMD

log = logging.getLogger("hami.agent")

UNUSABLE: Final = 69
"""Exit code when this machine cannot be served (EX_UNAVAILABLE of sysexits.h)."""
STRATEGIES: Final[Mapping[str, Strategy]] = {
    "cdi": "cdi",
    "cdi-cri": "cdi",
    "cdi-annotations": "cdi",
    "env": "env",
    "envvar": "env",
    "volume-mounts": "env",
}
"""Our words and HAMi's."""
LOADER_DIRS: Final = {"x86_64": "/usr/lib/x86_64-linux-gnu", "aarch64": "/usr/lib/aarch64-linux-gnu"}
"""Where a container's loader looks without being told, by architecture (Debian's layout)."""


def agent(
    node_name: Annotated[
        str, typer.Option(envvar=["NODE_NAME", "NodeName"], help="this node, as Kubernetes knows it")
    ] = "",
    kubeconfig: Annotated[
        str | None, typer.Option(envvar="KUBECONFIG", help="default: ~/.kube/config, then the pod's service account")
    ] = None,
    role: Annotated[str, typer.Option(help="plugin, monitor or both")] = "both",
    device_config_file: Annotated[
        Path | None, typer.Option("--device-config-file", "--config-file", help="the cluster's device configuration")
    ] = None,
    node_config_file: Annotated[Path, typer.Option(help="overrides by node, JSON; absent = none")] = Path(
        "/config/config.json"
    ),
    device_plugin_dir: Annotated[Path, typer.Option(help="the kubelet's device-plugin directory")] = Path(
        "/var/lib/kubelet/device-plugins"
    ),
    pod_resources_socket: Annotated[Path, typer.Option(help="the kubelet's pod-resources socket")] = Path(
        "/var/lib/kubelet/pod-resources/kubelet.sock"
    ),
    devices: Annotated[
        str, typer.Option(envvar="DEVICE_LIST_STRATEGY", help=f"how devices are handed out: {', '.join(STRATEGIES)}")
    ] = "cdi",
    cdi_dir: Annotated[Path, typer.Option(help="where the container runtime looks for devices")] = Path("/var/run/cdi"),
    hook_path: Annotated[
        str, typer.Option(envvar="HOOK_PATH", help="directory of libraries, grants and regions; /vgpu may be left out")
    ] = "/usr/local",
    inventory_format: Annotated[str, typer.Option(help="json; colon for schedulers up to HAMi 2.7")] = "json",
    simulate: Annotated[Path | None, typer.Option(metavar="FILE", help="a simulated machine's description")] = None,
    metrics_bind_address: Annotated[str, typer.Option(help="HOST:PORT; empty: no metrics")] = ":9394",
    resource_name: Annotated[str | None, typer.Option(help="count resource, over the configuration's")] = None,
    device_split_count: Annotated[int | None, typer.Option(min=1, help="sharers a device")] = None,
    device_memory_scaling: Annotated[float | None, typer.Option(min=0.0, help="registered by real memory")] = None,
    device_cores_scaling: Annotated[float | None, typer.Option(min=0.0, help="registered by real compute")] = None,
    disable_core_limit: Annotated[bool | None, typer.Option(help="never limit compute on this node")] = None,
    mig_strategy: Annotated[
        str, typer.Option(help="MIG instances made by others: none, single (devices to share), mixed (own resources)")
    ] = "none",
    driver_cap: Annotated[
        bool, typer.Option(help="let drivers that can (615 and newer) cap each container's memory themselves")
    ] = True,
    cgroup_root: Annotated[Path, typer.Option(help="where the node's cgroups are mounted")] = cgroups.ROOT,
    host_pid_broker: Annotated[
        bool, typer.Option(help="tell programs of containers their pid on the node, by the kernel's word")
    ] = True,
    host_pid_dir: Annotated[Path, typer.Option(help="the broker's directory, seen by containers")] = hostpid.DIRECTORY,
    mps_shm: Annotated[
        Path, typer.Option(help="the node's directory that this process has at /dev/shm, for nodes with sharing: mps")
    ] = mps.SHM,
    amd: Annotated[
        bool | None,
        typer.Option(help="serve AMD's GPUs instead of AMD's plug-in; default: where amdsmi is installed, for real"),
    ] = None,
    legacy_metrics: Annotated[bool, typer.Option(help="HAMi's old metric names, too")] = False,
    v: Annotated[int, typer.Option("-v", help="log level: 4 and more tell details")] = 1,
) -> None:
    """Serve this node: its devices to Kubernetes, their shares to containers, their use to Prometheus."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if v > 4 else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        given: dict[str, Any] = {
            "resource_count_name": resource_name,
            "device_split_count": device_split_count,
            "device_memory_scaling": device_memory_scaling,
            "device_core_scaling": device_cores_scaling,
            "disable_core_limit": disable_core_limit,
        }
        if not node_name:
            raise WireError("--node-name", "this node's name")
        config = _device_config(device_config_file, given)
        overrides = _overrides(node_config_file, node_name)
        overrides = replace(overrides, mig_strategy=overrides.mig_strategy or _mig_strategy(mig_strategy))
        tree = hook_tree(hook_path)
        library = tree.library
        if role != "monitor":
            library = install(native_dir() / "libvgpu.so", tree, __version__)
            locks = Path(LOCK)
            locks.mkdir(exist_ok=True)
            locks.chmod(0o1777)  # nobody may put another directory where the broker's is seen
        settings = AgentSettings(
            node=NodeName(node_name),
            kubeconfig=kubeconfig,
            role=_role(role),
            config=config,
            overrides=overrides,
            tree=tree,
            library=library,
            device_plugin_dir=device_plugin_dir,
            pod_resources_socket=pod_resources_socket,
            strategy=_strategy(devices),
            cdi_dir=cdi_dir,
            inventory_format=_form(inventory_format),
            additions=_simulated(simulate, node_name, tree) if simulate else NO_ADDITIONS,
            cgroups=_cgroups(driver_cap, cgroup_root, simulate, node_name),
            mps_shm=mps_shm,
            host_pid=host_pid_dir if host_pid_broker else None,
            simulated=simulate is not None,
            cards=_cards(simulate, node_name, amd=bool(amd)),
            amd=amd,
            legacy_metrics=legacy_metrics,
            metrics_bind=_address(metrics_bind_address),
        )
        anyio.run(run, settings, backend="asyncio", backend_options={"use_uvloop": True})
    except WireError as error:
        print(f"hami agent: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    except (ConfigError, InstallError, NativeMissing, ProbeError, OSError, ValueError) as error:
        print(f"hami agent: {error}", file=sys.stderr)
        raise typer.Exit(UNUSABLE) from None


def _device_config(path: Path | None, given: Mapping[str, Any]) -> DeviceConfig:
    """The cluster's configuration with this command's flags over it."""
    config = DEFAULT_DEVICE_CONFIG
    if path is not None:
        config = read_device_config(_yaml(path))
        for warning in config.warnings:
            log.warning("%s: %s", path, warning)
    changes = {key: value for key, value in given.items() if value is not None}
    return replace(config, nvidia=replace(config.nvidia, **changes))


def _overrides(path: Path, node_name: str) -> NodeOverrides:
    # YAML reads JSON, too; the file is absent where no node differs.
    return read_node_config(_yaml(path), node_name) if path.is_file() else NodeOverrides()


def _yaml(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return yaml.load(file, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise WireError(str(path), "YAML or JSON", str(error)) from error


def _simulated(description: Path, node_name: str, tree: HookTree) -> Additions:
    """Start, or join, the simulated machine; what its driver adds to containers."""
    state = simulated_machine(_yaml(description), node_name, tree)
    loader_dir = LOADER_DIRS.get(platform.machine())
    if loader_dir is None:
        raise WireError("--simulate", f"a machine of {', '.join(LOADER_DIRS)}", platform.machine())
    return simulated_additions(native_dir() / "sim", loader_dir, state)


def _cgroups(wanted: bool, root: Path, simulate: Path | None, node_name: str) -> Path | None:
    """The tree in which containers are capped; a simulated driver knows one by its description alone."""
    if simulate is not None:
        described = _machine(simulate, node_name).cgroups
        root, wanted = Path(described), wanted and bool(described)
    return root if wanted else None


def _machine(description: Path, node_name: str) -> Machine:
    return read_machine(_yaml(description), default_name=node_name)


def _cards(description: Path | None, node_name: str, *, amd: bool) -> tuple[MachineCard, ...]:
    """Simulated devices of other families."""
    cards = _machine(description, node_name).cards if description else ()
    if amd and any(card.family == AMD.name for card in cards):
        raise WireError("--amd", "a machine without simulated AMD devices")
    return cards


def _role(word: str) -> Literal["both", "plugin", "monitor"]:
    match word:
        case "both" | "plugin" | "monitor":
            return word
    raise WireError("--role", "plugin, monitor or both", word)


def _mig_strategy(word: str) -> str:
    if word in ("none", SINGLE, MIXED):
        return word
    raise WireError("--mig-strategy", f"none, {SINGLE} or {MIXED}", word)


def _form(word: str) -> Literal["json", "colon"]:
    match word:
        case "json" | "colon":
            return word
    raise WireError("--inventory-format", "json or colon", word)


def _strategy(words: str) -> Strategy:
    """HAMi takes a comma list; a container runtime that knows CDI gets CDI."""
    found = {STRATEGIES.get(word.strip()) for word in words.split(",")}
    if None in found:
        raise WireError("--devices", f"one of {', '.join(STRATEGIES)}", words)
    return "cdi" if "cdi" in found else "env"


def _address(text: str) -> tuple[str, int] | None:
    """`:9394`, `127.0.0.1:9394`, `[::1]:9394`; empty or `0` = none."""
    if text in ("", "0"):
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise WireError("--metrics-bind-address", "HOST:PORT", text)
    return host.strip("[]"), int(port)
