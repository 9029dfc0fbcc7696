"""The kubelet of the one node, on the same machine as everything else."""

import json
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.harness import cgroups
from tests.cluster.harness.api import Json
from tests.cluster.harness.controlplane import answers
from tests.cluster.harness.layout import HOST, NODE, Layout
from tests.cluster.harness.pki import Pki
from tests.cluster.harness.processes import Processes

PROGRAMS = ("kubelet",)


class Kubelet:
    """Start, stop, and kill as a crash does; containers outlive it."""

    def __init__(self, layout: Layout, pki: Pki, processes: Processes, programs: Mapping[str, Path]) -> None:
        self._layout, self._pki, self._processes, self._programs = layout, pki, processes, programs

    def start(self) -> None:
        """Returns when it answers; the node becomes Ready a moment later."""
        cgroups.make()
        kubeconfig = self._pki.make_user(
            "kubelet",
            common_name=f"system:node:{NODE}",
            organization="system:nodes",
            addresses=f"IP:{HOST},DNS:localhost",
        )
        config = self._layout.state / "kubelet.json"
        config.write_text(json.dumps(self._configuration(), indent=1), encoding="ascii")
        self._processes.start(
            "kubelet",
            [
                self._programs["kubelet"],
                f"--config={config}",
                f"--kubeconfig={kubeconfig}",
                f"--hostname-override={NODE}",
                f"--root-dir={self._layout.kubelet_root}",
                f"--cert-dir={self._layout.kubelet_root / 'pki'}",
            ],
        )
        url = f"http://{HOST}:{self._layout.ports['kubelet-health']}/healthz"
        self._processes.ready("kubelet", lambda: answers(url))

    def _configuration(self) -> Json:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": HOST,
            "port": self._layout.ports["kubelet"],
            "healthzBindAddress": HOST,
            "healthzPort": self._layout.ports["kubelet-health"],
            "readOnlyPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._pki.ca)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(self._pki.cert("kubelet")),
            "tlsPrivateKeyFile": str(self._pki.key("kubelet")),
            "containerRuntimeEndpoint": f"unix://{self._layout.containerd_socket}",
            "podLogsDir": str(self._layout.logs / "pods"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{cgroups.NAME}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "enforceNodeAllocatable": ["none"],
            # The machine's own disk and memory say nothing about the tests.
            "localStorageCapacityIsolation": False,
            "evictionHard": {
                "memory.available": "0%",
                "nodefs.available": "0%",
                "nodefs.inodesFree": "0%",
                "imagefs.available": "0%",
            },
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "protectKernelDefaults": False,
            "makeIPTablesUtilChains": False,
            "resolvConf": "",
            # Nobody serves names here; without an address every pod would get a warning.
            "clusterDNS": ["10.96.0.10"],
            "syncFrequency": "5s",
            "nodeStatusUpdateFrequency": "4s",
            # The default of five image pulls and ten status writes a second would slow a burst of pods, not test it.
            "kubeAPIQPS": 100,
            "kubeAPIBurst": 200,
            "maxPods": 200,
        }
