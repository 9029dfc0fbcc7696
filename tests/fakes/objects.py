"""Short builders of API objects, so that a case is a few lines."""

import json
from typing import Any

from hami.model.wire import pod as keys

Json = dict[str, Any]


def card(uuid: str, index: int = 0, *, memory: int = 16384, model: str = "NVIDIA A10", **other: Any) -> Json:
    """One card of an inventory."""
    return {
        "id": uuid,
        "index": index,
        "count": 10,
        "devmem": memory,
        "devcore": 100,
        "type": model,
        "mode": "hami-core",
        "health": True,
        **other,
    }


def node(
    name: str, cards: int | list[Json] = 2, *, own_agent: bool = True, annotations: dict[str, str] | None = None
) -> Json:
    """A node with NVIDIA cards `<name>-0`, `<name>-1`, ..."""
    listed = [card(f"{name}-{i}", i) for i in range(cards)] if isinstance(cards, int) else cards
    notes = {keys.NVIDIA_NODE: json.dumps(listed), **(annotations or {})}
    if own_agent:
        notes[keys.AGENT_PROTOCOL] = "1;families=NVIDIA;devices=cdi"
    return {
        "metadata": {"name": name, "annotations": notes},
        "status": {"allocatable": {"nvidia.com/gpu": str(10 * len(listed))}},
    }


def pod(
    name: str, *, memory: int | str | None = 4096, count: int | str = 1, cores: int | str | None = None, **metadata: Any
) -> Json:
    """A pod of namespace `ns` with one container that asks for devices; `count` 0 asks for none."""
    limits: Json = {}
    if count:
        limits["nvidia.com/gpu"] = str(count)
        if memory is not None:
            limits["nvidia.com/gpumem"] = str(memory)
        if cores is not None:
            limits["nvidia.com/gpucores"] = str(cores)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "ns", "name": name, "uid": f"uid-{name}", **metadata},
        "spec": {"schedulerName": "hami-scheduler", "containers": [{"name": "main", "resources": {"limits": limits}}]},
        "status": {"phase": "Pending"},
    }


def bound(name: str, node: str, allocation: str, *, phase: str = "Running") -> Json:
    """A pod that runs on `node` with this allocation."""
    made = pod(name)
    made["spec"]["nodeName"] = node
    made["status"]["phase"] = phase
    made["metadata"]["labels"] = {keys.NODE: node}
    made["metadata"]["annotations"] = {
        keys.NODE: node,
        keys.NVIDIA_DONE: allocation,
        keys.BIND_PHASE: keys.SUCCESS,
    }
    return made
