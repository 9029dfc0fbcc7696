"""hami in the cluster: its two services as processes of this machine, and the objects that bind the cluster to them.

The chart is another way to the same; here the services come straight from this source tree, under users of their own
with no more rights than they need.
"""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster.harness import binaries, images
from tests.cluster.harness.api import Json
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.controlplane import scheduler_configuration
from tests.cluster.harness.layout import CHECKPOINT, HOST, NODE, REPOSITORY, Layout
from tests.cluster.harness.pki import encoded

SCHEDULER_NAME: Final = "hami-scheduler"
COUNT: Final = "nvidia.com/gpu"
RESOURCES: Final = (
    COUNT,
    "nvidia.com/gpumem",
    "nvidia.com/gpumem-percentage",
    "nvidia.com/gpucores",
    "nvidia.com/priority",
)
AGENT: Final = "hami-agent"
SCHEDULER: Final = "hami-scheduler"
"""Names of the two processes, their users and their logs."""

MACHINE: Final = REPOSITORY / "tests" / "cluster" / "machine.yaml"
_HAMI: Final = (sys.executable, "-m", "hami")

_ROLES: Final = {SCHEDULER: "hami-scheduler", AGENT: "hami-device-plugin-monitor"}
"""User -> the chart's ClusterRole for it, so that the tests prove that the chart's rights are enough."""
_RBAC: Final = "rbac.authorization.k8s.io"


class Services:
    """hami in one cluster that is up."""

    def __init__(self, cluster: Cluster, *, machine: Path = MACHINE) -> None:
        self._cluster, self._layout, self._machine = cluster, cluster.layout, machine
        self._agent_started = 0.0
        self._agent_environment: Mapping[str, str] = {}

    def start(self, scheduler_flags: Sequence[str] = (), agent_flags: Sequence[str] = ()) -> None:
        """Both services up, the node's devices announced and allocatable, the webhook in place."""
        self._cluster.runtime.load(images.probe())
        self._users()
        self._cluster.pki.make_leaf("hami-serving", common_name="hami", addresses=f"IP:{HOST},DNS:localhost")
        self._write_config(device_config())
        self.start_scheduler(scheduler_flags)
        self._cluster.api.apply("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", self._webhook())
        self.start_agent(agent_flags)
        self.wait_devices()

    def start_scheduler(self, flags: Sequence[str] = ()) -> None:
        """Returns when it reports that it has seen the whole cluster."""
        layout, pki = self._layout, self._cluster.pki
        port = layout.ports["hami"]
        self._cluster.processes.start(
            SCHEDULER,
            [
                *_HAMI,
                "scheduler",
                f"--kubeconfig={layout.kubeconfig(SCHEDULER)}",
                f"--device-config-file={layout.state / 'device-config.yaml'}",
                f"--http_bind={HOST}:{port}",
                f"--cert_file={pki.cert('hami-serving')}",
                f"--key_file={pki.key('hami-serving')}",
                f"--metrics-bind-address={HOST}:{layout.ports['hami-metrics']}",
                f"--scheduler-name={SCHEDULER_NAME}",
                *flags,
            ],
            _ENVIRONMENT,
        )
        serving = self._cluster.control_plane.api_as(SCHEDULER).elsewhere(f"https://{HOST}:{port}")
        self._cluster.processes.ready(SCHEDULER, lambda: serving.healthy("/readyz"), 40)

    def start_agent(self, flags: Sequence[str] = ()) -> None:
        """Returns when the process runs; `wait_devices` waits for its work."""
        layout = self._layout
        self._agent_started = time.time()
        self._cluster.processes.start(
            AGENT,
            [
                *_HAMI,
                "agent",
                f"--node-name={NODE}",
                f"--kubeconfig={layout.kubeconfig(AGENT)}",
                f"--device-config-file={layout.state / 'device-config.yaml'}",
                "--device-plugin-dir=/var/lib/kubelet/device-plugins",
                f"--simulate={self._machine}",
                f"--hook-path={layout.hook}",
                f"--cdi-dir={layout.cdi}",
                f"--pod-resources-socket={layout.pod_resources_socket}",
                f"--metrics-bind-address={HOST}:{layout.ports['agent-metrics']}",
                *flags,
            ],
            {**_ENVIRONMENT, **self._agent_environment},
        )

    def restart_scheduler(self, flags: Sequence[str] = ()) -> None:
        self._cluster.processes.stop(SCHEDULER)
        self.start_scheduler(flags)

    def restart_agent(self, flags: Sequence[str] = ()) -> None:
        self._cluster.processes.stop(AGENT)
        self.start_agent(flags)
        self.wait_devices()

    @contextmanager
    def configured(self, **changes: object) -> Iterator[None]:
        """Both services run with these keys of the device configuration changed while the block runs."""
        self._write_config({**device_config(), **changes})
        try:
            self.restart_scheduler()
            self.restart_agent()
            yield
        finally:
            self._write_config(device_config())
            self.restart_scheduler()
            self.restart_agent()

    @contextmanager
    def on_machine(self, machine: Path, agent_flags: Sequence[str] = ()) -> Iterator[None]:
        """The node is another machine while the block runs. No pod may hold a device before or after."""
        usual = self._machine
        self._machine = machine
        try:
            self.restart_agent(agent_flags)
            yield
        finally:
            self._machine = usual
            self.restart_agent()

    @contextmanager
    def every_family(
        self, machine: Path, agent_flags: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> Iterator[None]:
        """The node is `machine`, with all that the chart configures of every family, while the block runs; the agent
        with more flags and `environment`."""
        objects = _chart_objects("devices.ascend.enabled=true", "devices.iluvatar.enabled=true")
        maps = {o["metadata"]["name"]: o["data"] for o in objects if o["kind"] == "ConfigMap"}
        extenders = yaml.safe_load(maps["hami-scheduler"]["config.yaml"])["extenders"]
        plane, ca, usual = self._cluster.control_plane, self._cluster.pki.ca, self._machine
        config = self._layout.state / "device-config.yaml"
        config.write_text(maps["hami-scheduler-device"]["device-config.yaml"], encoding="utf-8")
        self._machine, self._agent_environment = machine, environment or {}
        try:
            self.restart_scheduler(["--enable-ascend", "--enable-iluvatar"])
            plane.restart_scheduler(kube_scheduler_configuration(self._layout, ca, extenders[0]["managedResources"]))
            self.restart_agent(agent_flags)
            yield
        finally:
            self._machine, self._agent_environment = usual, {}
            self._write_config(device_config())
            self.restart_scheduler()
            plane.restart_scheduler(kube_scheduler_configuration(self._layout, ca))
            self.restart_agent()

    @contextmanager
    def ranked(self) -> Iterator[None]:
        """The extender offers every fitting node and kube-scheduler asks it for priorities while the block runs."""
        plane = self._cluster.control_plane
        config = kube_scheduler_configuration(self._layout, self._cluster.pki.ca)
        asking = {**config, "extenders": [{**e, "prioritizeVerb": "prioritize"} for e in config["extenders"]]}
        self.restart_scheduler(["--filter-answer=ranked"])
        plane.restart_scheduler(asking)
        try:
            yield
        finally:
            plane.restart_scheduler(config)
            self.restart_scheduler()

    def revive(self) -> list[str]:
        """Start again what has ended, as its pod's kubelet would; the names of those."""
        ended = [name for name in (SCHEDULER, AGENT) if self._cluster.processes.find(name) is None]
        if SCHEDULER in ended:
            self.start_scheduler()
        if AGENT in ended:
            self.start_agent()
            self.wait_devices()
        return ended

    def wait_devices(self, since: float | None = None, within_s: float = 40) -> None:
        """The kubelet has heard of healthy devices after `since` (default: the agent's start) and counts them as
        allocatable, and the node says which they are."""
        api, processes = self._cluster.api, self._cluster.processes
        after = self._agent_started if since is None else since

        def announced() -> bool:
            # Allocatable alone may be what an agent before this one has left; the kubelet notes each new list here.
            if CHECKPOINT.stat().st_mtime <= after:
                return False
            heard = json.loads(CHECKPOINT.read_bytes())["Data"]["RegisteredDevices"] or {}
            node = api.get(f"/api/v1/nodes/{NODE}")
            allocatable = int(node["status"].get("allocatable", {}).get(COUNT, "0"))
            register = "hami.io/node-nvidia-register"
            return bool(heard.get(COUNT)) and allocatable > 0 and register in node["metadata"].get("annotations", {})

        processes.ready(AGENT, announced, within_s)

    def scheduler_metrics(self) -> str:
        """What the scheduler's metrics port serves."""
        return _metrics(self._layout.ports["hami-metrics"])

    def agent_metrics(self) -> str:
        """What the agent's metrics port serves."""
        return _metrics(self._layout.ports["agent-metrics"])

    def signals(self, name: str) -> Path:
        """A folder of this machine that a test shares with its pods, to tell them when to go on."""
        folder = self._layout.state / "signals" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def stop(self) -> None:
        for name in (AGENT, SCHEDULER):
            self._cluster.processes.stop(name)

    def _write_config(self, nvidia: Mapping[str, object]) -> None:
        path = self._layout.state / "device-config.yaml"
        path.write_text(yaml.safe_dump({"nvidia": dict(nvidia)}), encoding="utf-8")

    def _users(self) -> None:
        api, rules = self._cluster.api, _chart_rules()
        for user, role in _ROLES.items():
            self._cluster.pki.make_user(user, common_name=user)
            # The chart itself, installed beside, has roles under the plain names.
            name = f"test-{user}"
            api.apply(
                f"/apis/{_RBAC}/v1/clusterroles",
                {
                    "apiVersion": f"{_RBAC}/v1",
                    "kind": "ClusterRole",
                    "metadata": {"name": name},
                    "rules": rules[role],
                },
            )
            api.apply(
                f"/apis/{_RBAC}/v1/clusterrolebindings",
                {
                    "apiVersion": f"{_RBAC}/v1",
                    "kind": "ClusterRoleBinding",
                    "metadata": {"name": name},
                    "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": name},
                    "subjects": [{"apiGroup": _RBAC, "kind": "User", "name": user}],
                },
            )

    def _webhook(self) -> Json:
        unless_ignored = {"matchExpressions": [{"key": "hami.io/webhook", "operator": "NotIn", "values": ["ignore"]}]}
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "test-hami-webhook"},
            "webhooks": [
                {
                    "name": "vgpu.hami.io",
                    "admissionReviewVersions": ["v1", "v1beta1"],
                    "clientConfig": {
                        "url": f"https://{HOST}:{self._layout.ports['hami']}/webhook",
                        "caBundle": encoded(self._cluster.pki.ca),
                    },
                    "rules": [
                        {
                            "apiGroups": [""],
                            "apiVersions": ["v1"],
                            "operations": ["CREATE"],
                            "resources": ["pods"],
                            "scope": "*",
                        }
                    ],
                    "sideEffects": "None",
                    "matchPolicy": "Equivalent",
                    "timeoutSeconds": 10,
                    # The chart's default lets pods through while we are down; a test must see that instead.
                    "failurePolicy": "Fail",
                    "namespaceSelector": unless_ignored,
                    "objectSelector": unless_ignored,
                }
            ],
        }


_ENVIRONMENT: Final = {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}


def _chart_rules() -> dict[str, list[Json]]:
    """The rules of each ClusterRole that the chart renders, by name."""
    return {o["metadata"]["name"]: o["rules"] for o in _chart_objects() if o["kind"] == "ClusterRole"}


def _chart_objects(*values: str) -> list[Json]:
    """What the chart renders with these values set."""
    helm = binaries.ensure(["helm"])["helm"]
    words = [str(helm), "template", "hami", str(REPOSITORY / "deploy" / "charts" / "hami")]
    for value in values:
        words += ["--set", value]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def _metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=10) as answer:
        text: bytes = answer.read()
    return text.decode()


def kube_scheduler_configuration(layout: Layout, pki_ca: Path, managed: Sequence[Json] | None = None) -> Json:
    """One unmodified kube-scheduler with the ordinary profile and ours; the extender answers for `managed` resources
    (default: NVIDIA's)."""
    extender = {
        "urlPrefix": f"https://{HOST}:{layout.ports['hami']}",
        "filterVerb": "filter",
        "bindVerb": "bind",
        "weight": 1,
        "enableHTTPS": True,
        "tlsConfig": {"caFile": str(pki_ca)},
        "nodeCacheCapable": True,
        "httpTimeout": "30s",
        "managedResources": managed or [{"name": name, "ignoredByScheduler": True} for name in RESOURCES],
    }
    return scheduler_configuration(layout, [extender], ["default-scheduler", SCHEDULER_NAME])


def device_config() -> dict[str, Any]:
    """The `nvidia` section as the chart writes it by default."""
    count, memory, percentage, cores, priority = RESOURCES
    return {
        "resourceCountName": count,
        "resourceMemoryName": memory,
        "resourceMemoryPercentageName": percentage,
        "resourceCoreName": cores,
        "resourcePriorityName": priority,
        "overwriteEnv": False,
        "defaultMemory": 0,
        "defaultCores": 0,
        "defaultGPUNum": 1,
        "memoryFactor": 1,
        "deviceSplitCount": 10,
        "deviceMemoryScaling": 1,
        "deviceCoreScaling": 1,
        "gpuCorePolicy": "default",
        "libCudaLogLevel": 1,
    }
