"""Two pods of every family on one node, over simulated devices: registered, placed, handed out, accounted, given back.

The scheduler's side is configured by the chart. The node's side speaks each family's registration and plug-in contract,
with the node lock where the vendor's plug-in relies on it; all families are at work at the same time.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from hami.model.vendor import Vendor
from tests.agent.families import EVERY, limits
from tests.cluster.harness.api import Api, Json
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.images import PROBE
from tests.cluster.harness.layout import NODE
from tests.cluster.harness.services import AGENT, SCHEDULER, Services
from tests.cluster.harness.waiting import eventually
from tests.cluster.nodes import samples
from tests.cluster.pods import IDLE, Namespace, allocation, container, pod, unique

CHIPS = {"vnpus": "Ascend910B3", "iluvatars": "MR-V100"}
"""One chip stands for its family: the others differ in names and amounts."""
FAMILIES = tuple(v for v in EVERY if CHIPS.get(v.config_section, v.name) == v.name)
PODS = ("a", "b")
WITHIN_S = 120
"""A family with the node lock waits for every other one that has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One device of a pod's allocation text."""

    uuid: str
    memory_mib: int
    cores: int


def held(vendor: Vendor, document: Json) -> list[Held]:
    text = document["metadata"]["annotations"][vendor.done_key]
    cards = [card.split(",") for card in text.replace(";", "").split(":") if card]
    return [Held(uuid=uuid, memory_mib=int(memory), cores=int(cores)) for uuid, _, memory, cores in cards]


def name_of(vendor: Vendor, which: str) -> str:
    return f"{vendor.name.lower()}-{which}"


def main(vendor: Vendor, name: str = "main") -> Json:
    """A container that shows what it was given."""
    script = f"trap 'exit 0' TERM; env; cat /etc/vdev/docker/* 2>/dev/null; echo told; {IDLE}"
    return {
        "name": name,
        "image": PROBE,
        "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", script],
        "resources": {"limits": limits(vendor)},
    }


@pytest.fixture(scope="module")
def stage(cluster: Cluster, services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    """The node has two devices of each family, and two pods of each have been created."""
    machine: Path = tmp_path_factory.mktemp("families") / "machine.yaml"
    devices: list[Mapping[str, object]] = [{"model": "Tesla T4"}]
    devices += [{"family": vendor.name, "count": 2, "slots": 4} for vendor in FAMILIES if vendor.name != "Enflame"]
    devices += [{"family": vendor.name, "count": 2} for vendor in FAMILIES if vendor.name == "Enflame"]
    machine.write_text(yaml.safe_dump({"name": "families", "devices": devices}), encoding="utf-8")
    space = Namespace(cluster.api, unique("families"))
    with services.every_family(machine):
        eventually("every family is allocatable", lambda: offered(cluster.api), 60)
        space.open()
        try:
            for vendor in FAMILIES:
                for which in PODS:
                    space.create(pod(name_of(vendor, which), main(vendor)))
            yield space
        except BaseException:
            print(space.report())
            raise
        finally:
            space.close()


def offered(api: Api) -> bool:
    allocatable = api.get(f"/api/v1/nodes/{NODE}")["status"]["allocatable"]
    return all(int(allocatable.get(vendor.resources.count, "0")) > 0 for vendor in FAMILIES)


def amounts(metrics: str, uuids: set[str]) -> tuple[int, int]:
    """MiB and sharers that the scheduler's metrics tell of some devices together."""

    def total(name: str) -> float:
        return sum(value for labels, value in samples(metrics, name) if labels.get("device_uuid") in uuids)

    return round(total("hami_gpu_memory_allocated_bytes") / 2**20), round(total("hami_gpu_shared_count"))


@pytest.mark.parametrize("vendor", FAMILIES, ids=lambda vendor: vendor.name)
def test_two_pods(stage: Namespace, services: Services, cluster: Cluster, vendor: Vendor) -> None:
    names = [name_of(vendor, which) for which in PODS]
    try:
        shares = []
        for name in names:
            stage.wait_running(name, WITHIN_S)
            stage.wait_line(name, "told")
            document = stage.get(name)
            notes, own = document["metadata"]["annotations"], held(vendor, document)
            assert notes["hami.io/bind-phase"] == "success"
            assert not notes.get(vendor.pending_key, "").strip(";")
            assert "false" not in [notes.get(key) for key in vendor.dress_keys]
            told = ";".join(f"{share.uuid},{share.memory_mib},{share.cores}" for share in own)
            assert f"HAMI_SIMULATED_DEVICES={told}" in stage.logs(name).splitlines()
            shares += own
        uuids = {share.uuid for share in shares}
        booked = sum(share.memory_mib for share in shares), len(shares)
        eventually("accounted", lambda: amounts(services.scheduler_metrics(), uuids) == booked, 10)
        for name in names:
            stage.delete(name)
        eventually("gone", lambda: not {p["metadata"]["name"] for p in stage.pods()} & set(names), 60)
        eventually("given back", lambda: amounts(services.scheduler_metrics(), uuids) == (0, 0), 10)
    except BaseException:
        print(stage.report())
        for service in (SCHEDULER, AGENT):
            print(f"===== end of the log of {service}\n{cluster.processes.tail(service, 60)}")
        raise


def test_one_pod_of_four_families(stage: Namespace) -> None:
    """Each container has its own family, one of them our agent's; each is told its own devices and no others."""
    mixed = [vendor for vendor in FAMILIES if vendor.name in ("MLU", "DCU", "Mthreads")]
    containers = [main(vendor, vendor.name.lower()) for vendor in mixed]
    document = stage.run(pod("mixed", container("nvidia", gpu=1, gpumem=1000), *containers), WITHIN_S)
    for vendor in mixed:
        name = vendor.name.lower()
        stage.wait_line("mixed", "told", name)
        (share,) = held(vendor, stage.get("mixed"))
        told = f"HAMI_SIMULATED_DEVICES={share.uuid},{share.memory_mib},{share.cores}"
        assert told in stage.logs("mixed", name).splitlines()
    ((card,), *others) = allocation(document)
    assert card.memory_mib == 1000
    assert others == [[], [], []]
    # A share of a DCU is a file in the place where its runtime looks for it.
    assert "mem: 4096 MiB" in stage.logs("mixed", "dcu")
    stage.delete("mixed")
    eventually("gone", lambda: not stage.pods(), 60)


def test_no_lock_is_left(stage: Namespace, cluster: Cluster) -> None:
    notes = cluster.api.get(f"/api/v1/nodes/{NODE}")["metadata"]["annotations"]
    assert not {vendor.lock_key for vendor in FAMILIES} & notes.keys()
