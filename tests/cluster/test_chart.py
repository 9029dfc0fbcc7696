"""The chart on a real API server: what it installs is accepted, its roles are just enough, an upgrade keeps the pair.

The pods it describes have no published image yet, so none of them runs here; what runs is tested from the source tree.
"""

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness.api import Api, Json
from tests.cluster.harness.binaries import ensure
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.layout import REPOSITORY
from tests.cluster.harness.services import Services

RELEASE = "hami"
SPACE = "hami-chart"
CHART = REPOSITORY / "deploy" / "charts" / "hami"


class Helm:
    """Helm as the cluster's administrator."""

    def __init__(self, program: Path, kubeconfig: Path) -> None:
        self._words = [str(program), "--kubeconfig", str(kubeconfig), "--namespace", SPACE]

    def __call__(self, *words: str) -> str:
        done = subprocess.run([*self._words, *words], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def helm(cluster: Cluster, services: Services) -> Iterator[Helm]:
    """The chart installed in a namespace of its own; uninstalled at the end.

    Its webhook would be asked for every pod and nobody serves it, so it is limited to a namespace that does not exist.
    """
    run = Helm(ensure(["helm"])["helm"], cluster.layout.kubeconfig("admin"))
    run(
        *("install", RELEASE, str(CHART), "--create-namespace"),
        "--set-json",
        'scheduler.admissionWebhook.namespaceSelector.matchLabels={"kubernetes.io/metadata.name":"nowhere"}',
    )
    try:
        yield run
    finally:
        run("uninstall", RELEASE, "--wait")
        cluster.api.delete(f"/api/v1/namespaces/{SPACE}")


def test_everything_is_accepted_and_listed(helm: Helm, api: Api) -> None:
    (release,) = json.loads(helm("list", "--output", "json"))
    assert (release["name"], release["status"]) == (RELEASE, "deployed")
    for path in (
        f"/apis/apps/v1/namespaces/{SPACE}/deployments/hami-scheduler",
        f"/apis/apps/v1/namespaces/{SPACE}/daemonsets/hami-device-plugin",
        f"/api/v1/namespaces/{SPACE}/configmaps/hami-scheduler-device",
        f"/api/v1/namespaces/{SPACE}/services/hami-scheduler",
        f"/api/v1/namespaces/{SPACE}/services/hami-device-plugin-monitor",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/hami-device-plugin-monitor",
    ):
        assert api.exists(path), path


def test_an_upgrade_keeps_the_certificate_pair(helm: Helm, api: Api) -> None:
    def pair() -> tuple[str, str]:
        secret = api.get(f"/api/v1/namespaces/{SPACE}/secrets/hami-scheduler-serving")["data"]
        configuration = api.get(
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/" + f"{RELEASE}-webhook"
        )
        bundle = configuration["webhooks"][0]["clientConfig"]["caBundle"]
        assert base64.b64decode(bundle) == base64.b64decode(secret["ca"])
        return secret["tls.crt"], bundle

    before = pair()
    helm("upgrade", RELEASE, str(CHART), "--reuse-values", "--set", "scheduler.livenessProbe=true")
    assert pair() == before


RIGHTS = {
    "hami-scheduler": {
        "": {
            "pods": "get list watch patch",
            "pods/binding": "create",
            "nodes": "get list watch patch",
            "events": "create patch",
            "resourcequotas": "get list watch",
        },
    },
    "hami-device-plugin": {
        "": {"pods": "get list watch patch", "nodes": "get list watch patch", "events": "create patch"}
    },
}
WRITES = ("create", "update", "patch", "delete")
DENIED = ("secrets", "configmaps", "serviceaccounts", "pods/exec", "pods/eviction")


@pytest.mark.parametrize("account", RIGHTS)
def test_an_account_may_do_its_work(helm: Helm, api: Api, account: str) -> None:
    for group, resources in RIGHTS[account].items():
        for resource, verbs in resources.items():
            for verb in verbs.split():
                assert may(api, account, verb, group, resource), f"{account} may not {verb} {resource}"


def test_the_agent_may_do_nothing_else(helm: Helm, api: Api) -> None:
    account = "hami-device-plugin"
    for verb in ("get", *WRITES):
        for resource in DENIED:
            assert not may(api, account, verb, "", resource), f"{account} may {verb} {resource}"
    for verb in ("create", "update", "delete"):
        assert not may(api, account, verb, "", "pods"), f"{account} may {verb} pods"
        assert not may(api, account, verb, "", "nodes"), f"{account} may {verb} nodes"


def may(api: Api, account: str, verb: str, group: str, resource: str) -> bool:
    """Whether the service account has this right in every namespace."""
    name, _, sub = resource.partition("/")
    review: Json = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{SPACE}:{account}",
            "groups": ["system:serviceaccounts", f"system:serviceaccounts:{SPACE}", "system:authenticated"],
            "resourceAttributes": {"verb": verb, "group": group, "resource": name, "subresource": sub},
        },
    }
    answer = api.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])
