"""Pods as the cluster tests write them, and what a test wants to know of a running one."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.cluster.harness.api import Api, ApiError, Json
from tests.cluster.harness.images import PROBE
from tests.cluster.harness.waiting import NotYet, eventually

PREFIX: Final = "nvidia.com/"
DONE: Final = "hami.io/vgpu-devices-allocated"
NODE_POLICY: Final = "hami.io/node-scheduler-policy"
CARD_POLICY: Final = "hami.io/gpu-scheduler-policy"
IDLE: Final = "sleep 1000000 & wait"
"""A script that does nothing until it is told to end: a shell takes a signal in `wait`, but not while a child runs."""


def container(name: str = "main", script: str = IDLE, /, **limits: object) -> Json:
    """A container of the probe image that runs `script`; `limits` are `gpu=1, gpumem=3000, gpucores=30, ...`.

    An underscore stands for a hyphen (`gpumem_percentage`). The shell ends on SIGTERM, so pods go quickly.
    """
    resources = {PREFIX + key.replace("_", "-"): value for key, value in limits.items()}
    return {
        "name": name,
        "image": PROBE,
        "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", f"trap 'exit 0' TERM; {script}"],
        **({"resources": {"limits": resources}} if resources else {}),
    }


def pod(
    name: str,
    *containers: Json,
    init: Sequence[Json] = (),
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    **spec: Any,
) -> Json:
    """A pod that is not restarted, ends within a second when deleted, and needs no service account."""
    body: Json = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "containers": list(containers),
        **({"initContainers": list(init)} if init else {}),
        **spec,
    }
    metadata = {"name": name, "annotations": dict(annotations or {}), "labels": dict(labels or {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One card of a pod's allocation annotation."""

    uuid: str
    memory_mib: int
    cores: int


def allocation(document: Json) -> list[list[Card]]:
    """The pod's final allocation, one list a container (init containers first).

    Read here by a few lines of its own, so that the writer under test is not its own witness.
    """
    text = document["metadata"].get("annotations", {}).get(DONE)
    if text is None:
        return []
    assert text.endswith(";"), text
    segments = []
    for segment in text.split(";")[:-1]:
        cards = []
        for card in filter(None, segment.split(":")):
            uuid, kind, memory, cores = card.split(",")
            assert kind == "NVIDIA", text
            cards.append(Card(uuid=uuid, memory_mib=int(memory), cores=int(cores)))
        segments.append(cards)
    return segments


class Namespace:
    """One namespace of the cluster, a test's own."""

    def __init__(self, api: Api, name: str) -> None:
        self.api, self.name = api, name
        self._path = f"/api/v1/namespaces/{name}"

    def open(self, labels: Mapping[str, str] | None = None) -> None:
        """Make it, and wait until it takes pods (the default service account comes a moment later)."""
        self.api.post("/api/v1/namespaces", {"metadata": {"name": self.name, "labels": dict(labels or {})}})
        eventually("default service account", lambda: self.api.exists(f"{self._path}/serviceaccounts/default"), 20)

    def close(self) -> None:
        """Delete every pod and wait until the node has ended them; the namespace itself goes in the background."""
        self.api.delete(f"/apis/batch/v1/namespaces/{self.name}/jobs")
        self.api.delete(f"/apis/apps/v1/namespaces/{self.name}/deployments")
        for item in self.pods():
            # Pods of described nodes have no kubelet that would confirm their end.
            real = item["spec"].get("nodeName") in (None, "127.0.0.1")
            self.delete(item["metadata"]["name"], grace_s=None if real else 0)
        eventually(f"pods of {self.name} gone", lambda: not self.pods(), 60)
        self.api.delete(f"/api/v1/namespaces/{self.name}")

    def create(self, body: Json) -> Json:
        return self.api.post(f"{self._path}/pods", body)

    def delete(self, name: str, grace_s: int | None = None) -> None:
        self.api.delete(f"{self._path}/pods/{name}", grace_s=grace_s)

    def get(self, name: str) -> Json:
        return self.api.get(f"{self._path}/pods/{name}")

    def pods(self, **query: str) -> list[Json]:
        return list(self.api.items(f"{self._path}/pods", **query))

    def events(self, name: str | None = None) -> list[Json]:
        """Events of the namespace, of one pod if named, oldest first."""
        found = [
            event
            for event in self.api.items(f"{self._path}/events")
            if name is None or event["involvedObject"].get("name") == name
        ]
        return sorted(found, key=lambda event: int(event["metadata"]["resourceVersion"]))

    def logs(self, name: str, container_name: str = "main") -> str:
        return self.api.text(f"{self._path}/pods/{name}/log", container=container_name)

    def wait_phase(self, name: str, *phases: str, within_s: float = 30) -> Json:
        """The pod once it is in one of `phases`."""

        def probe() -> Json | None:
            document = self.get(name)
            if document["status"].get("phase") in phases:
                return document
            raise NotYet(_state(document))

        return eventually(f"{self.name}/{name} {' or '.join(phases)}", probe, within_s)

    def run(self, body: Json, within_s: float = 30) -> Json:
        """Create the pod and wait until it runs."""
        self.create(body)
        return self.wait_running(body["metadata"]["name"], within_s)

    def wait_running(self, name: str, within_s: float = 30) -> Json:
        document = self.wait_phase(name, "Running", "Succeeded", "Failed", within_s=within_s)
        assert document["status"]["phase"] == "Running", _state(document)
        return document

    def finish(self, body: Json, within_s: float = 40) -> Json:
        """Create the pod and wait until it has ended well."""
        self.create(body)
        return self.wait_done(body["metadata"]["name"], within_s)

    def wait_done(self, name: str, within_s: float = 40) -> Json:
        document = self.wait_phase(name, "Succeeded", "Failed", within_s=within_s)
        assert document["status"]["phase"] == "Succeeded", f"{_state(document)}\n{self._all_logs(document)}"
        return document

    def wait_line(self, name: str, mark: str, container_name: str = "main", within_s: float = 30) -> str:
        """The first line of a container's output that contains `mark`."""

        def probe() -> str | None:
            try:
                lines = self.logs(name, container_name).splitlines()
            except ApiError as error:
                raise NotYet(str(error)) from error
            return next((line for line in lines if mark in line), None)

        return eventually(f"{mark!r} in the output of {self.name}/{name}", probe, within_s)

    def wait_event(self, name: str, reason: str, within_s: float = 20) -> str:
        """The message of the pod's first event with that reason."""

        def probe() -> str | None:
            return next((str(event["message"]) for event in self.events(name) if event["reason"] == reason), None)

        return eventually(f"event {reason} on {self.name}/{name}", probe, within_s)

    def results(self, name: str, container_name: str = "main") -> list[Json]:
        """The JSON lines of a container's output."""
        lines = self.logs(name, container_name).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def report(self) -> str:
        """Everything a person needs after a failure: pods, events, output."""
        parts = [f"===== namespace {self.name}"]
        for item in self.pods():
            parts += [_state(item), f"  annotations {json.dumps(item['metadata'].get('annotations', {}))}"]
            parts += [f"  {line}" for line in self._all_logs(item).splitlines()]
        for event in self.events():
            involved = event["involvedObject"]
            parts.append(f"  event {involved.get('kind')}/{involved.get('name')} {event['reason']}: {event['message']}")
        return "\n".join(parts)

    def _all_logs(self, document: Json) -> str:
        parts = []
        for item in [*document["spec"].get("initContainers", ()), *document["spec"]["containers"]]:
            try:
                parts.append(f"[{item['name']}] " + self.logs(document["metadata"]["name"], item["name"])[-2000:])
            except (ApiError, OSError) as error:
                parts.append(f"[{item['name']}] no output: {error}")
        return "\n".join(parts)


def unique(prefix: str) -> str:
    """A name that no earlier test of this cluster had."""
    return f"{prefix}-{time.monotonic_ns() // 1_000_000 % 1_000_000_000}"


def _state(document: Json) -> str:
    status = document["status"]
    waiting = [
        f"{entry['name']}: {json.dumps(entry.get('state', {}))}"
        for entry in [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    ]
    conditions = [f"{c['type']}: {c['message']}" for c in status.get("conditions", ()) if c.get("message")]
    head = f"pod {document['metadata']['name']} on {document['spec'].get('nodeName')} is {status.get('phase')}"
    return "; ".join([head, status.get("message", ""), *waiting, *conditions])
