"""Pod and node documents in one line, as the API server has them."""

from collections.abc import Mapping, Sequence
from typing import Any


def container(name: str = "c", /, *, requests: Mapping[str, Any] | None = None, **extra: Any) -> dict[str, Any]:
    """A container; keywords `gpu`, `mem`, `pct`, `cores`, `priority` become NVIDIA limits, others fields."""
    short = {
        "gpu": "nvidia.com/gpu",
        "mem": "nvidia.com/gpumem",
        "pct": "nvidia.com/gpumem-percentage",
        "cores": "nvidia.com/gpucores",
        "priority": "nvidia.com/priority",
    }
    limits = {short[key]: extra.pop(key) for key in tuple(extra) if key in short}
    resources: dict[str, Any] = {"limits": limits} if limits else {}
    if requests is not None:
        resources["requests"] = {short[key]: value for key, value in requests.items()}
    return {"name": name, "image": "img", "resources": resources, **extra}


def pod(
    *apps: dict[str, Any],
    inits: Sequence[dict[str, Any]] = (),
    notes: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    meta: Mapping[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A pod `ns/p` with uid `u`; keywords become fields of its spec."""
    metadata: dict[str, Any] = {"name": "p", "namespace": "ns", "uid": "u", **(meta or {})}
    if notes is not None:
        metadata["annotations"] = dict(notes)
    document: dict[str, Any] = {"metadata": metadata, "spec": {"containers": list(apps), **spec}}
    if inits:
        document["spec"]["initContainers"] = list(inits)
    if status is not None:
        document["status"] = dict(status)
    return document
