"""Nodes as the tests see them: the real one's cards, and nodes that are only described.

A described node has no kubelet: pods can be bound to it, which is all that a question about scheduling needs.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from tests.cluster.harness.api import Api, Json
from tests.cluster.harness.layout import NODE
from tests.cluster.harness.services import COUNT
from tests.cluster.harness.waiting import eventually
from tests.cluster.pods import Namespace, allocation

REGISTER: Final = "hami.io/node-nvidia-register"
PROTOCOL: Final = "hami.io/agent-protocol"
CORDON: Final = "hami.io/device-cordon"
LOCK: Final = "hami.io/mutex.lock"
A100: Final = "NVIDIA A100-SXM4-40GB"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredCard:
    """One card of a node's inventory annotation."""

    uuid: str
    index: int
    model: str
    memory_mib: int
    cores: int
    slots: int
    numa: int


def cards(api: Api, node: str = NODE) -> list[RegisteredCard]:
    """The node's cards in driver order, as it announces them."""
    text = api.get(f"/api/v1/nodes/{node}")["metadata"]["annotations"][REGISTER]
    return sorted(
        (
            RegisteredCard(
                uuid=entry["id"],
                index=entry.get("index", 0),
                model=entry["type"],
                memory_mib=entry["devmem"],
                cores=entry["devcore"],
                slots=entry["count"],
                numa=entry.get("numa", 0),
            )
            for entry in json.loads(text)
        ),
        key=lambda card: card.index,
    )


def inventory(node: str, count: int, memory_mib: int = 16384) -> str:
    """An inventory annotation of `count` equal cards."""
    entries = [
        {
            "id": f"GPU-{node}-{index}",
            **({"index": index} if index else {}),
            "count": 10,
            "devmem": memory_mib,
            "devcore": 100,
            "type": A100,
            "mode": "hami-core",
            "health": True,
        }
        for index in range(count)
    ]
    return json.dumps(entries, separators=(",", ":"))


def described(name: str, *, annotations: Mapping[str, str], labels: Mapping[str, str] | None = None) -> Json:
    """A Node object that is Ready, allocates pods and ten device slots, and carries `annotations`."""
    capacity = {"cpu": "16", "memory": "64Gi", "pods": "200", COUNT: "10"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": dict(annotations),
            "labels": {"kubernetes.io/hostname": name, **(labels or {})},
        },
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Described", "message": "", **_TIMES}],
        },
    }


_TIMES: Final = {"lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}


@contextmanager
def described_nodes(api: Api, nodes: Sequence[Json]) -> Iterator[None]:
    """The nodes exist and take pods while the block runs."""
    names = [node["metadata"]["name"] for node in nodes]
    try:
        for node in nodes:
            api.post("/api/v1/nodes", node)
        for name in names:
            # The controller manager takes the taint of new nodes off once it has seen the condition.
            eventually(f"node {name} untainted", partial(_untainted, api, name), 20)
        yield
    finally:
        for name in names:
            api.delete(f"/api/v1/nodes/{name}")


def _untainted(api: Api, name: str) -> bool:
    return not api.get(f"/api/v1/nodes/{name}")["spec"].get("taints")


@contextmanager
def node_annotation(api: Api, key: str, value: str, node: str = NODE) -> Iterator[None]:
    """The node carries the annotation while the block runs."""
    path = f"/api/v1/nodes/{node}"
    api.patch(path, {"metadata": {"annotations": {key: value}}})
    try:
        yield
    finally:
        api.patch(path, {"metadata": {"annotations": {key: None}}})


def assert_nothing_overbooked(space: Namespace) -> None:
    """No card of the real node holds more than it has, over all pods of the cluster that have not ended."""
    memory: dict[str, int] = {}
    cores: dict[str, int] = {}
    slots: dict[str, int] = {}
    for document in space.api.items("/api/v1/pods", fieldSelector=f"spec.nodeName={NODE}"):
        if document["status"].get("phase") in ("Succeeded", "Failed"):
            continue
        for share in (share for segment in allocation(document) for share in segment):
            memory[share.uuid] = memory.get(share.uuid, 0) + share.memory_mib
            cores[share.uuid] = cores.get(share.uuid, 0) + share.cores
            slots[share.uuid] = slots.get(share.uuid, 0) + 1
    known = {card.uuid: card for card in cards(space.api)}
    for uuid, held in memory.items():
        card = known[uuid]
        assert held <= card.memory_mib, f"{uuid} holds {held} of {card.memory_mib} MiB"
        assert cores[uuid] <= card.cores, f"{uuid} holds {cores[uuid]} % of {card.cores} %"
        assert slots[uuid] <= card.slots, f"{uuid} has {slots[uuid]} sharers of {card.slots}"


def samples(text: str, name: str) -> list[tuple[dict[str, str], float]]:
    """The samples of one metric in Prometheus's text form: labels and value."""
    found = []
    for line in text.splitlines():
        match = re.fullmatch(rf"{re.escape(name)}(?:\{{(.*)\}})? (\S+)", line)
        if match:
            found.append((dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[1] or "")), float(match[2])))
    return found


def held(metrics: str, uuid: str) -> tuple[int, int, int]:
    """What the scheduler's metrics say a card carries: MiB, percent of its time, sharers."""

    def value(name: str) -> float:
        return sum(amount for labels, amount in samples(metrics, name) if labels.get("device_uuid") == uuid)

    memory_mib = value("hami_gpu_memory_allocated_bytes") / 2**20
    return round(memory_mib), round(value("hami_gpu_core_allocated_ratio")), round(value("hami_gpu_shared_count"))
