"""Small clusters and pod lists, as files hold them."""

from pathlib import Path
from typing import Any

from hami.simulate.files import load_workload
from hami.simulate.replay import Outcome, Policy, Replay
from hami.simulate.workload import Item, Order, Workload, arrivals, read_workload
from hami.vendors import registry

NODES = "sn,cpu_milli,memory_mib,gpu,model\n"
PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,creation_time,deletion_time\n"
REGISTER = "hami.io/node-nvidia-register"
ALLOCATED = {"hami.io/vgpu-devices-allocated": "n-0,NVIDIA,300,0:;", "hami.io/vgpu-node": "n"}
"""Annotations of a pod that holds 300 MiB of the first card of the node `n`."""


def table(folder: Path, nodes: str, pods: str) -> Workload:
    """A workload of two tables, each given by its rows."""
    node_file, pod_file = folder / "nodes.csv", folder / "pods.csv"
    node_file.write_text(NODES + nodes)
    pod_file.write_text(PODS + pods)
    return load_workload(node_file, pod_file, registry())


def replayed(workload: Workload, policy: str = "binpack", order: Order = Order.FILE) -> Outcome:
    """What becomes of a workload."""
    return Replay(workload, registry(), Policy.parse(policy)).run(arrivals(workload, order))


def node(name: str = "n", *, gpus: int = 1, mib: int = 1000, cpu: str = "64", **spec: Any) -> dict[str, Any]:
    """A Node with cards `name-0`, `name-1`, ..."""
    cards = ":".join(f"{name}-{i},10,{mib},100,NVIDIA-A,0,true,{i},hami-core" for i in range(gpus))
    notes = {REGISTER: f"{cards}:"} if gpus else {}
    return {
        "kind": "Node",
        "metadata": {"name": name, "annotations": notes, "labels": spec.pop("labels", {})},
        "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": "256Gi", "nvidia.com/gpu": str(10 * gpus)}},
    }


def pod(
    name: str = "p", *, mem: int | str | None = 500, cores: int = 0, cpu: str | None = None, **more: Any
) -> dict[str, Any]:
    """A Pod of one container; `mem` None asks for no device, other keywords are fields of its spec or of itself."""
    limits: dict[str, Any] = {} if mem is None else {"nvidia.com/gpu": 1, "nvidia.com/gpumem": mem}
    if cores:
        limits["nvidia.com/gpucores"] = cores
    resources = {"limits": limits, "requests": {"cpu": cpu} if cpu else {}}
    document: dict[str, Any] = {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "ns", "uid": name, **more.pop("metadata", {})},
        "status": more.pop("status", {}),
    }
    document["spec"] = {"containers": [{"name": "c", "resources": resources}], **more}
    return document


def described(nodes: list[dict[str, Any]], pods: list[dict[str, Any]], *, keep_bound: bool = False) -> Workload:
    """A workload of objects, which stand at `n0`, `n1`, ... and `p0`, `p1`, ..."""
    return read_workload(
        [Item(where=f"n{i}", document=each) for i, each in enumerate(nodes)],
        [Item(where=f"p{i}", document=each) for i, each in enumerate(pods)],
        registry(),
        keep_bound=keep_bound,
    )
