"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler on loopback."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.harness.api import Api, Json
from tests.cluster.harness.layout import HOST, Layout
from tests.cluster.harness.pki import Pki
from tests.cluster.harness.processes import Processes

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")

# The audit log is how a test knows who wrote what to a pod or a node, and in how many requests.
_AUDIT: Json = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {
            "level": "Request",
            "verbs": ["create", "update", "patch", "delete"],
            "resources": [{"group": "", "resources": ["pods", "pods/binding", "nodes", "events"]}],
        },
        {"level": "None"},
    ],
}


class ControlPlane:
    """The four processes; each is ready when its method returns."""

    def __init__(self, layout: Layout, pki: Pki, processes: Processes, programs: Mapping[str, Path]) -> None:
        self._layout, self._pki, self._processes, self._programs = layout, pki, processes, programs

    @property
    def admin(self) -> Api:
        """The API as its administrator sees it."""
        return self.api_as("admin")

    def api_as(self, user: str) -> Api:
        """The API under a certificate that `pki` has made."""
        return Api(self._layout.api_url, ca=self._pki.ca, cert=self._pki.cert(user), key=self._pki.key(user))

    def start(self, scheduler_config: Json | None = None) -> None:
        """All four on empty state, the scheduler with `scheduler_config` (default: one plain profile)."""
        self._pki.make_control_plane()
        self.start_etcd()
        self.start_apiserver()
        self.start_controller_manager()
        self.start_scheduler(scheduler_config or scheduler_configuration(self._layout))

    def start_etcd(self) -> None:
        ports = self._layout.ports
        client, peer = f"http://{HOST}:{ports['etcd']}", f"http://{HOST}:{ports['etcd-peer']}"
        self._processes.start(
            "etcd",
            [
                self._programs["etcd"],
                "--name=hami",
                f"--data-dir={self._layout.state / 'etcd'}",
                # A test's cluster does not outlive the machine, so nothing need reach the disk.
                "--unsafe-no-fsync",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=hami={peer}",
            ],
        )
        self._processes.ready("etcd", lambda: answers(f"{client}/health"))

    def start_apiserver(self) -> None:
        policy = self._layout.state / "audit-policy.json"
        policy.write_text(json.dumps(_AUDIT), encoding="ascii")
        pki = self._pki
        self._processes.start(
            "kube-apiserver",
            [
                self._programs["kube-apiserver"],
                f"--etcd-servers=http://{HOST}:{self._layout.ports['etcd']}",
                f"--bind-address={HOST}",
                f"--advertise-address={HOST}",
                # Lets it advertise a loopback address; the kubernetes Service then has no endpoints.
                "--endpoint-reconciler-type=none",
                f"--secure-port={self._layout.ports['api']}",
                f"--tls-cert-file={pki.cert('apiserver')}",
                f"--tls-private-key-file={pki.key('apiserver')}",
                f"--client-ca-file={pki.ca}",
                f"--kubelet-client-certificate={pki.cert('apiserver-kubelet')}",
                f"--kubelet-client-key={pki.key('apiserver-kubelet')}",
                f"--kubelet-certificate-authority={pki.ca}",
                "--kubelet-preferred-address-types=InternalIP",
                f"--service-account-issuer={self._layout.api_url}",
                f"--service-account-key-file={pki.service_accounts}",
                f"--service-account-signing-key-file={pki.service_accounts}",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
                f"--audit-policy-file={policy}",
                f"--audit-log-path={self._layout.audit_log}",
                "--audit-log-mode=blocking",
                "--profiling=false",
            ],
        )
        admin = self.admin
        self._processes.ready("kube-apiserver", lambda: admin.healthy("/readyz"), 90)

    def start_controller_manager(self) -> None:
        kubeconfig = self._layout.kubeconfig("kube-controller-manager")
        port = self._layout.ports["controller-manager"]
        self._processes.start(
            "kube-controller-manager",
            [
                self._programs["kube-controller-manager"],
                f"--kubeconfig={kubeconfig}",
                f"--authentication-kubeconfig={kubeconfig}",
                f"--authorization-kubeconfig={kubeconfig}",
                f"--bind-address={HOST}",
                f"--secure-port={port}",
                "--leader-elect=false",
                f"--service-account-private-key-file={self._pki.service_accounts}",
                f"--root-ca-file={self._pki.ca}",
                "--use-service-account-credentials=true",
                f"--cluster-signing-cert-file={self._pki.ca}",
                f"--cluster-signing-key-file={self._pki.ca_key}",
                "--kube-api-qps=200",
                "--kube-api-burst=400",
                # Nodes that a test only describes send no heartbeat.
                "--node-monitor-grace-period=1h",
            ],
        )
        self._processes.ready("kube-controller-manager", lambda: self._component_ok(port, "/healthz"))

    def start_scheduler(self, config: Json) -> None:
        path = self._layout.state / "scheduler.json"
        path.write_text(json.dumps(config, indent=1), encoding="ascii")
        kubeconfig = self._layout.kubeconfig("kube-scheduler")
        port = self._layout.ports["scheduler"]
        self._processes.start(
            "kube-scheduler",
            [
                self._programs["kube-scheduler"],
                f"--config={path}",
                f"--authentication-kubeconfig={kubeconfig}",
                f"--authorization-kubeconfig={kubeconfig}",
                f"--bind-address={HOST}",
                f"--secure-port={port}",
            ],
        )
        self._processes.ready("kube-scheduler", lambda: self._component_ok(port, "/readyz"))

    def restart_scheduler(self, config: Json) -> None:
        """Stop it and start it with another configuration."""
        self._processes.stop("kube-scheduler")
        self.start_scheduler(config)

    def _component_ok(self, port: int, path: str) -> bool:
        """A component's health port serves a certificate that it signed itself, so it is not verified."""
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        return answers(f"https://{HOST}:{port}{path}", tls)


def answers(url: str, tls: ssl.SSLContext | None = None) -> bool:
    """Whether a GET of `url` is answered by 200."""
    try:
        with urllib.request.urlopen(url, context=tls, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def scheduler_configuration(
    layout: Layout, extenders: Sequence[Json] = (), names: Sequence[str] = ("default-scheduler",)
) -> Json:
    """A KubeSchedulerConfiguration with one profile a name and the extenders given."""
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": str(layout.kubeconfig("kube-scheduler")), "qps": 500, "burst": 1000},
        "leaderElection": {"leaderElect": False},
        "profiles": [{"schedulerName": name} for name in names],
        "extenders": list(extenders),
    }
