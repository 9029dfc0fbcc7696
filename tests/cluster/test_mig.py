"""Pods on a node of eight A100 in the operating mode `mig`.

Memory asked for becomes an instance, for as long as the pod lasts, and the node ends as it began.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hami.node.simulated import environment
from tests.cluster.harness.api import Api
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.layout import NODE, REPOSITORY
from tests.cluster.harness.services import Services
from tests.cluster.harness.waiting import NotYet, eventually
from tests.cluster.nodes import REGISTER
from tests.cluster.pods import IDLE, Namespace, container, pod
from tests.cluster.probe import report_of, seen

RESERVED = "hami.io/vgpu-mig-allocations"
MIB = {"1g.10gb": 9728, "2g.20gb": 19968, "3g.40gb": 40192, "7g.80gb": 80896}
"""Memory of an instance."""
LOOK = f"gpuprobe info alloc 90000; {IDLE}"

Instance = tuple[str, int, int]
"""Card, first slice and slices of one instance."""

LIST = """
import json
from pynvml import *
from tests.interpose.mig_client import mig_devices
nvmlInit()
found = []
for index in range(nvmlDeviceGetCount()):
    card = nvmlDeviceGetHandleByIndex(index)
    for mig in mig_devices(card) if nvmlDeviceGetMigMode(card)[0] else ():
        info = nvmlGpuInstanceGetInfo(nvmlDeviceGetGpuInstanceById(card, nvmlDeviceGetGpuInstanceId(mig)))
        found.append([nvmlDeviceGetUUID(card), nvmlDeviceGetUUID(mig), info.placement.start, info.placement.size])
print(json.dumps(found))
"""


class Machine:
    """The eight cards as their driver sees them."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def instances(self) -> dict[str, Instance]:
        """Every instance that programs can run on, by its UUID."""
        done = subprocess.run(
            [sys.executable, "-c", LIST],
            env={**environment(self._state), "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return {uuid: (card, start, size) for card, uuid, start, size in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def machine(
    cluster: Cluster, services: Services, api: Api, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """The node has eight A100 and cuts them."""
    folder = tmp_path_factory.mktemp("mig")
    description, config = folder / "machine.yaml", folder / "config.json"
    description.write_text(
        yaml.safe_dump({"devices": [{"model": "NVIDIA A100-SXM4-80GB", "count": 8, "context_mib": 0}]})
    )
    config.write_text(json.dumps({"nodeconfig": [{"name": NODE, "operatingmode": "mig"}]}))
    states = cluster.layout.hook / "vgpu"
    before = set(states.glob("simulated-*.state"))
    with services.on_machine(description, [f"--node-config-file={config}"]):
        eventually("eight cards in MIG mode", lambda: [e["mode"] for e in register(api)] == ["mig"] * 8, 30)
        (state,) = set(states.glob("simulated-*.state")) - before
        yield Machine(state)
    eventually("the usual cards", lambda: {e["mode"] for e in register(api)} == {"hami-core"}, 30)


def register(api: Api) -> list[dict[str, Any]]:
    """The node's inventory annotation."""
    found: list[dict[str, Any]] = json.loads(api.get(f"/api/v1/nodes/{NODE}")["metadata"]["annotations"][REGISTER])
    return found


def reservations(space: Namespace, name: str) -> list[dict[str, Any]]:
    """What the pod's annotation says of its instances, once the node has made them all."""

    def told() -> list[dict[str, Any]] | None:
        found: list[dict[str, Any]] = json.loads(space.get(name)["metadata"]["annotations"].get(RESERVED, "[]"))
        return found if found and all("migUUID" in each for each in found) else None

    return eventually(f"the instances of {name}", told, 20)


def sees(space: Namespace, name: str, container_name: str = "main") -> tuple[str, int, int]:
    """What a program in the pod has: its device, that device's memory by three accounts, and how much it could take."""

    def report() -> list[dict[str, Any]]:
        found = space.results(name, container_name)
        if [result["command"] for result in found] != ["info", "alloc"]:
            raise NotYet(space.logs(name, container_name)[-500:])
        return found

    results = eventually(f"a report of {name}/{container_name}", report, 30)
    (device,) = seen(results)
    assert device.nvml_total == device.cuda_total == device.device_total
    alloc = report_of(results, "alloc")
    assert alloc["result"] == "CUDA_ERROR_OUT_OF_MEMORY"
    return device.uuid, device.nvml_total, alloc["got_mib"]


def test_memory_becomes_an_instance_while_the_pod_lasts(space: Namespace, api: Api, machine: Machine) -> None:
    began = register(api)
    assert machine.instances() == {}
    asked = {
        "one": ("1g.10gb", {"gpu": 1, "gpumem": 9000}),
        "two": ("2g.20gb", {"gpu": 1, "gpumem": 15000}),
        "half": ("3g.40gb", {"gpu": 1, "gpumem": 9000, "gpucores": 40}),
        "whole": ("7g.80gb", {"gpu": 1}),
    }
    for name, (_, limits) in asked.items():
        space.create(pod(name, container("main", LOOK, **limits)))
    for name, (profile, _) in asked.items():
        space.wait_running(name)
        (reservation,) = reservations(space, name)
        assert reservation["profile"] == profile
        assert sees(space, name) == (reservation["migUUID"], MIB[profile], MIB[profile])
        place = reservation["placement"]
        assert machine.instances()[reservation["migUUID"]] == (reservation["gpuUUID"], place["start"], place["size"])
    assert len(machine.instances()) == 4
    assert register(api) == began, "what pods hold is theirs, not missing from the node"
    for name in asked:
        space.delete(name)
    eventually("no instance left", lambda: machine.instances() == {}, 60)
    assert register(api) == began


def test_containers_and_counts_have_instances_of_their_own(space: Namespace, machine: Machine) -> None:
    body = pod(
        "several",
        container("a", LOOK, gpu=1, gpumem=9000),
        container("b", LOOK, gpu=2, gpumem=15000),
        init=[container("first", "gpuprobe info alloc 90000", gpu=1, gpumem=9000)],
    )
    space.run(body, within_s=60)
    made = reservations(space, "several")
    by_container = {index: [each["migUUID"] for each in made if each["containerIndex"] == index] for index in (0, 1, 2)}
    assert [len(by_container[index]) for index in (0, 1, 2)] == [1, 1, 2]
    assert sees(space, "several", "first")[0] == by_container[0][0]
    assert sees(space, "several", "a") == (by_container[1][0], MIB["1g.10gb"], MIB["1g.10gb"])
    # A process is shown one instance, whatever its container has.
    assert sees(space, "several", "b") == (by_container[2][0], MIB["2g.20gb"], MIB["2g.20gb"])
    space.delete("several")
    eventually("no instance left", lambda: machine.instances() == {}, 60)


def test_a_node_is_filled_and_emptied(space: Namespace, api: Api, machine: Machine) -> None:
    """More pods than fit: those that run have instances that don't overlap, the others follow as room appears."""
    names = [f"p{number}" for number in range(10)]
    for name in names:
        space.create(pod(name, container("main", IDLE, gpu=1, gpumem=70000)))

    def running() -> list[str]:
        return [p["metadata"]["name"] for p in space.pods() if p["status"].get("phase") == "Running"]

    eventually("eight pods run", lambda: len(running()) == 8, 90)
    cards = [card for card, _, _ in machine.instances().values()]
    assert len(set(cards)) == len(cards) == 8
    first = running()[:2]
    for name in first:
        space.delete(name)
    eventually("the others run", lambda: sorted(running()) == sorted(set(names) - set(first)), 90)
    for name in set(names) - set(first):
        space.delete(name)
    eventually("no instance left", lambda: machine.instances() == {}, 90)
