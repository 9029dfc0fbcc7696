"""AMD's GPUs handed out by our agent on real Kubernetes components, from registration to what the container's runtime
made of the answer.

AMD's binding is real; a stand-in is its shared library, and two device nodes that answer like /dev/null are its driver.
No AMD GPU was at hand.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from hami.vendors.amd import AMD
from tests.cluster.harness.api import Api, Json
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.images import PROBE
from tests.cluster.harness.layout import NODE
from tests.cluster.harness.services import AGENT, SCHEDULER, Services
from tests.cluster.harness.waiting import eventually
from tests.cluster.nodes import samples
from tests.cluster.pods import IDLE, Namespace, pod, unique
from tests.node import amd_stand_in

GPUS = 2
NODES = ("/dev/kfd", *(f"/dev/dri/{name}" for i in range(GPUS) for name in (f"card{1 + i}", f"renderD{128 + i}")))
WITHIN_S = 120


@pytest.fixture(scope="module")
def driver() -> Iterator[None]:
    """AMD's device nodes, as far as a container's runtime looks at them."""
    if present := [path for path in NODES if Path(path).exists()]:
        pytest.skip(f"this machine has {', '.join(present)}: stand-ins would be in the way of a driver")
    folder = Path("/dev/dri")
    made = not folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        for path in NODES:
            os.mknod(path, 0o666 | stat.S_IFCHR, os.stat(os.devnull).st_rdev)
        yield
    finally:
        for path in NODES:
            Path(path).unlink(missing_ok=True)
        if made:
            folder.rmdir()


@pytest.fixture(scope="module")
def space(
    driver: None, cluster: Cluster, services: Services, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Namespace]:
    """The node has a simulated NVIDIA device and two AMD GPUs."""
    if why := amd_stand_in.without_library():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("amd")
    amd_stand_in.describe(folder / "gpus", *(amd_stand_in.line(i) for i in range(GPUS)))
    environment = amd_stand_in.environment(amd_stand_in.build(folder), folder / "gpus")
    (folder / "machine.yaml").write_text("{name: amd, devices: [{model: Tesla T4}]}\n")
    namespace = Namespace(cluster.api, unique("amd"))
    with services.every_family(folder / "machine.yaml", ["--amd"], environment):
        eventually("AMD's GPUs are allocatable", lambda: allocatable(cluster.api) == 10 * GPUS, 60)
        namespace.open()
        try:
            yield namespace
        except BaseException:
            print(namespace.report())
            raise
        finally:
            namespace.close()


def allocatable(api: Api) -> int:
    return int(api.get(f"/api/v1/nodes/{NODE}")["status"]["allocatable"].get(AMD.resources.count, "0"))


def asking(name: str, cores: int) -> Json:
    """A container that shows what it was given."""
    script = f"trap 'exit 0' TERM; env; ls -d /dev/kfd; ls /dev/dri; echo told; {IDLE}"
    limits = {"amd.com/gpu": "1", "amd.com/gpumem": "4096", "amd.com/gpucores": str(cores)}
    return {
        "name": name,
        "image": PROBE,
        "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", script],
        "resources": {"limits": limits},
    }


def told(space: Namespace, name: str, container: str = "main") -> tuple[dict[str, str], list[str]]:
    """A container's environment, and the device nodes that it sees."""
    space.wait_line(name, "told", container)
    lines = space.logs(name, container).splitlines()
    environment = dict(line.partition("=")[::2] for line in lines if "=" in line)
    return environment, [line for line in lines if line == "/dev/kfd" or line.startswith(("card", "renderD"))]


def booked(services: Services) -> tuple[int, int]:
    """MiB and sharers that the scheduler counts on AMD's GPUs."""

    def total(name: str) -> float:
        found = samples(services.scheduler_metrics(), name)
        return sum(value for labels, value in found if labels.get("device_uuid", "").startswith("GPU-1f2e"))

    return round(total("hami_gpu_memory_allocated_bytes") / 2**20), round(total("hami_gpu_shared_count"))


def test_two_pods_share_a_gpu(space: Namespace, services: Services, cluster: Cluster) -> None:
    try:
        for name, cores in (("a", 25), ("b", 50)):
            document = pod(name, asking("main", cores), annotations={"hami.io/gpu-scheduler-policy": "binpack"})
            notes = space.run(document, WITHIN_S)["metadata"]["annotations"]
            assert notes["hami.io/bind-phase"] == "success"
            assert not notes[AMD.pending_key].strip(";")
        (first, seen), (second, seen_too) = told(space, "a"), told(space, "b")
        uuid = first["ROCR_VISIBLE_DEVICES"]
        assert second["ROCR_VISIBLE_DEVICES"] == uuid
        assert (first["HSA_CU_MASK"], second["HSA_CU_MASK"]) == ("0:0-75", "0:76-227")
        assert first["HIP_DEVICE_MEMORY_LIMIT"] == second["HIP_DEVICE_MEMORY_LIMIT"] == "4096m"
        # The GPU's own nodes, and none of the other one's.
        index = int(uuid[-1])
        assert seen == seen_too == ["/dev/kfd", f"card{1 + index}", f"renderD{128 + index}"]
        node = cluster.api.get(f"/api/v1/nodes/{NODE}")["metadata"]["annotations"]
        assert "hami.io/mutex.lock" not in node
        eventually("accounted", lambda: booked(services) == (8192, 2), 10)
        for name in ("a", "b"):
            space.delete(name)
        eventually("gone", lambda: not space.pods(), 60)
        eventually("given back", lambda: booked(services) == (0, 0), 10)
    except BaseException:
        print(space.report())
        for service in (SCHEDULER, AGENT):
            print(f"===== end of the log of {service}\n{cluster.processes.tail(service, 60)}")
        raise


def test_one_pod_of_nvidia_and_amd(space: Namespace) -> None:
    """Each container has its own family's device and none of the other's."""
    nvidia = {**asking("nvidia", 1), "resources": {"limits": {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "1000"}}}
    script = f"trap 'exit 0' TERM; env; test -e /dev/kfd || echo none; echo told; {IDLE}"
    nvidia["command"] = ["/bin/sh", "-c", script]
    space.run(pod("mixed", nvidia, asking("amd", 25)), WITHIN_S)
    environment, seen = told(space, "mixed", "amd")
    assert environment["ROCR_VISIBLE_DEVICES"].startswith("GPU-1f2e")
    assert len(seen) == 3
    space.wait_line("mixed", "none", "nvidia")
    space.wait_line("mixed", "told", "nvidia")
    assert "ROCR_VISIBLE_DEVICES" not in space.logs("mixed", "nvidia")
    space.delete("mixed")
    eventually("gone", lambda: not space.pods(), 60)
