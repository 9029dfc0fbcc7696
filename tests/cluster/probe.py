"""What `gpuprobe`, the CUDA and NVML client inside the test image, reports, and what a pod must see of its devices."""

from dataclasses import dataclass

from tests.cluster.harness.api import Json
from tests.cluster.harness.waiting import NotYet, eventually
from tests.cluster.pods import IDLE, Namespace, allocation


def look() -> str:
    """A script that reports what the container sees and then stays."""
    return f"gpuprobe info; {IDLE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One device as a program in a container sees it; all in MiB."""

    uuid: str
    nvml_total: int
    cuda_total: int
    """From cuMemGetInfo."""
    device_total: int
    """From cuDeviceTotalMem."""


def seen(results: list[Json]) -> list[Seen]:
    """The devices of the last `info` report, in CUDA's order."""
    report = next(result for result in reversed(results) if result["command"] == "info")
    return [
        Seen(
            uuid=device["uuid"],
            nvml_total=device["nvml_total_mib"],
            cuda_total=device["total_mib"],
            device_total=device["device_total_mib"],
        )
        for device in report["devices"]
    ]


def report_of(results: list[Json], name: str) -> Json:
    """The one report of that command."""
    (found,) = (result for result in results if result["command"] == name)
    return found


def assert_sees_its_own(space: Namespace, document: Json) -> None:
    """Every container of a running pod that looked sees just the devices and the memory its assignment gives it.

    Containers are those of `look()`; one that asks for no device must have no segment.
    """
    name = document["metadata"]["name"]
    segments = allocation(space.get(name))
    containers = [*document["spec"].get("initContainers", ()), *document["spec"]["containers"]]
    assert len(segments) == len(containers), f"{name}: {segments}"
    for entry, segment in zip(containers, segments, strict=True):
        asked = entry.get("resources", {}).get("limits", {}).get("nvidia.com/gpu")
        assert len(segment) == int(asked or 0), f"{name}/{entry['name']}: {segment}"
        if not segment:
            continue

        def report(container_name: str = entry["name"]) -> list[Seen]:
            results = space.results(name, container_name)
            if not any(result["command"] == "info" for result in results):
                raise NotYet(space.logs(name, container_name)[-500:])
            return seen(results)

        devices = eventually(f"a report of {name}/{entry['name']}", report, 20)
        given = {card.uuid: card.memory_mib for card in segment}
        for view in ("nvml_total", "cuda_total", "device_total"):
            assert {device.uuid: getattr(device, view) for device in devices} == given, (
                f"{name}/{entry['name']}: {view}"
            )
