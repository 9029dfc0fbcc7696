"""Certificates and kubeconfigs of one cluster, made by openssl: one authority and a leaf for each component."""

import base64
import json
import subprocess
from pathlib import Path

from tests.cluster.harness.layout import HOST, Layout

_EC_KEY = ("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out")
SERVICE_ADDRESS = "10.96.0.1"


class Pki:
    """Leaves are made once; asking again for the same name returns at once."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    @property
    def ca(self) -> Path:
        return self._layout.pki / "ca.crt"

    @property
    def ca_key(self) -> Path:
        return self._layout.pki / "ca.key"

    @property
    def service_accounts(self) -> Path:
        """The key that signs service-account tokens."""
        return self._layout.pki / "service-accounts.key"

    def cert(self, name: str) -> Path:
        return self._layout.pki / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self._layout.pki / f"{name}.key"

    def make_authority(self) -> None:
        if self.ca.exists():
            return
        _run(*_EC_KEY, self.ca_key)
        _run(*_EC_KEY, self.service_accounts)
        extensions = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
        added = [word for extension in extensions for word in ("-addext", extension)]
        _run("openssl", "req", "-x509", "-new", "-key", self.ca_key, "-subj", "/CN=hami-cluster", "-days", "3650",
             *added, "-out", self.ca)  # fmt: skip

    def make_leaf(self, name: str, *, common_name: str, organization: str = "", addresses: str = "") -> None:
        """A P-256 leaf for serving and for identifying as `common_name` of group `organization`.

        `addresses` are subject alternative names in openssl's form (`IP:127.0.0.1,DNS:localhost`).
        """
        if self.cert(name).exists():
            return
        subject = (f"/O={organization}" if organization else "") + f"/CN={common_name}"
        request = self._layout.pki / f"{name}.csr"
        extensions = self._layout.pki / f"{name}.ext"
        lines = ["keyUsage=digitalSignature", "extendedKeyUsage=serverAuth,clientAuth", "basicConstraints=CA:FALSE"]
        if addresses:
            lines.append(f"subjectAltName={addresses}")
        extensions.write_text("\n".join(lines) + "\n", encoding="ascii")
        _run(*_EC_KEY, self.key(name))
        _run("openssl", "req", "-new", "-key", self.key(name), "-subj", subject, "-out", request)
        _run("openssl", "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.ca_key, "-CAcreateserial",
             "-days", "3650", "-extfile", extensions, "-out", self.cert(name))  # fmt: skip

    def make_control_plane(self) -> None:
        """Every certificate and kubeconfig that the control plane and its administrator need."""
        self.make_authority()
        self.make_leaf(
            "apiserver",
            common_name="kube-apiserver",
            addresses=f"IP:{HOST},IP:{SERVICE_ADDRESS},DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,"
            "DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local",
        )
        self.make_leaf("apiserver-kubelet", common_name="apiserver-kubelet", organization="system:masters")
        self.make_user("admin", common_name="admin", organization="system:masters")
        for component in ("kube-controller-manager", "kube-scheduler"):
            self.make_user(component, common_name=f"system:{component}")

    def make_user(self, name: str, *, common_name: str, organization: str = "", addresses: str = "") -> Path:
        """A leaf and a kubeconfig (JSON, which is YAML) that identifies by it."""
        self.make_leaf(name, common_name=common_name, organization=organization, addresses=addresses)
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "hami",
            "clusters": [
                {
                    "name": "hami",
                    "cluster": {"server": self._layout.api_url, "certificate-authority-data": encoded(self.ca)},
                }
            ],
            "users": [
                {
                    "name": name,
                    "user": {
                        "client-certificate-data": encoded(self.cert(name)),
                        "client-key-data": encoded(self.key(name)),
                    },
                }
            ],
            "contexts": [{"name": "hami", "context": {"cluster": "hami", "user": name}}],
        }
        path = self._layout.kubeconfig(name)
        path.touch(mode=0o600)
        path.write_text(json.dumps(document, indent=1), encoding="ascii")
        return path


def encoded(path: Path) -> str:
    """A file's bytes in base64, as kubeconfigs and webhook configurations carry them."""
    return base64.b64encode(path.read_bytes()).decode("ascii")


def _run(*argv: str | Path) -> None:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv[0]} {argv[1]}: {done.stderr.strip()}")
