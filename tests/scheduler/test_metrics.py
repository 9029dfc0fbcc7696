"""What Prometheus reads: names and labels as HAMi's dashboards expect them, values from the ledger."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hami.cluster.picture import Picture
from hami.kube.watch import Added
from hami.scheduler.clock import Clock
from hami.scheduler.counters import Counters
from hami.scheduler.metrics import Metrics
from hami.scheduler.service import Options
from hami.vendors import registry
from tests.fakes.objects import bound, card, node, pod
from tests.scheduler.running import LOOPBACK, Running

pytestmark = pytest.mark.anyio
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
MIB = 2**20
DEVICE = {"node": "n1", "device_uuid": "GPU-a", "device_index": "0", "device_type": "NVIDIA A10"}
POD = {"namespace": "ns", "node": "n1", "pod": "p", "container_index": "0", "device_uuid": "GPU-a"}


def parsed(text: str) -> Samples:
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in samples, f"{key} twice"
            samples[key] = sample.value
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted({**labels, "zone": "vGPU"}.items()))]


def picture() -> Picture:
    made = Picture(registry())
    made.fold_node(Added(node("n1", [card("GPU-a", memory=16384)])))
    made.fold_pod(Added(bound("p", "n1", "GPU-a,NVIDIA,4096,30:;")))
    made.fold_quota(
        Added({"metadata": {"namespace": "ns", "name": "q"}, "spec": {"hard": {"limits.nvidia.com/gpumem": "9000"}}})
    )
    return made


async def test_series_of_devices_pods_and_quotas() -> None:
    samples = parsed((await Metrics(picture(), Counters(Clock()), legacy=False).text()).decode())
    assert value(samples, "hami_gpu_memory_limit_bytes", **DEVICE) == 16384 * MIB
    assert value(samples, "hami_gpu_core_limit_ratio", **DEVICE) == 100
    assert value(samples, "hami_gpu_shared_count", **DEVICE) == 1
    assert value(samples, "hami_gpu_core_allocated_ratio", **DEVICE) == 30
    assert value(samples, "hami_gpu_memory_allocated_bytes", device_cores="100", **DEVICE) == 4096 * MIB
    overview = {"device_cores": "100", "device_memory_limit": "16384", **DEVICE}
    assert value(samples, "hami_node_gpu_overview", **overview) == 4096 * MIB
    assert value(samples, "hami_node_gpu_memory_allocated_ratio", **DEVICE) == 0.25
    assert value(samples, "hami_vgpu_memory_allocated_bytes", **POD) == 4096 * MIB
    assert value(samples, "hami_vgpu_core_allocated_ratio", **POD) == 30
    quota = {"namespace": "ns", "quota_name": "nvidia.com/gpumem"}
    assert value(samples, "hami_resource_quota_used", limit="9000", **quota) == 4096
    assert value(samples, "hami_resource_quota_limit", **quota) == 9000
    # The same in base units, by family.
    whole = {"family": "NVIDIA", **DEVICE}
    assert value(samples, "hami_device_memory_bytes", **whole) == 16384 * MIB
    assert value(samples, "hami_device_memory_allocated_bytes", **whole) == 4096 * MIB
    assert value(samples, "hami_device_compute_allocated_ratio", **whole) == 0.3
    mine = {"family": "NVIDIA", "namespace": "ns", "node": "n1", "pod": "p", "device_uuid": "GPU-a"}
    assert value(samples, "hami_pod_compute_allocated_ratio", **mine) == 0.3
    assert value(samples, "hami_quota_memory_used_bytes", family="NVIDIA", namespace="ns") == 4096 * MIB
    assert value(samples, "hami_quota_memory_limit_bytes", family="NVIDIA", namespace="ns") == 9000 * MIB
    assert not any(name.startswith(("GPUDevice", "vGPU", "nodeGPU", "Quota")) for name, _ in samples)


async def test_old_names_on_request() -> None:
    samples = parsed((await Metrics(picture(), Counters(Clock()), legacy=True).text()).decode())
    old = {"nodeid": "n1", "deviceuuid": "GPU-a", "deviceidx": "0"}
    assert value(samples, "GPUDeviceMemoryLimit", devicetype="NVIDIA A10", **old) == 16384 * MIB
    assert value(samples, "GPUDeviceMemoryAllocated", devicecores="100", devicetype="NVIDIA A10", **old) == 4096 * MIB
    labels = {"devicecores": "100", "devicememorylimit": "16384", "devicetype": "NVIDIA A10"}
    assert value(samples, "nodeGPUOverview", **labels, **old) == 4096 * MIB
    assert value(samples, "nodeGPUMemoryPercentage", **old) == 0.25
    pod_labels = {"podnamespace": "ns", "nodename": "n1", "podname": "p", "containeridx": "0", "deviceuuid": "GPU-a"}
    assert value(samples, "vGPUMemoryAllocated", **pod_labels) == 4096 * MIB
    assert value(samples, "QuotaUsed", quotanamespace="ns", quotaName="nvidia.com/gpumem", limit="9000") == 4096


async def test_hostile_names_are_escaped() -> None:
    made = Picture(registry())
    made.fold_node(Added(node("n1", [card('GPU-"a\\\n', model='"}')])))
    text = (await Metrics(made, Counters(Clock()), legacy=False).text()).decode()
    samples = parsed(text)
    assert any(dict(labels).get("device_uuid") == 'GPU-"a\\\n' for _, labels in samples)


async def test_a_large_scrape_lets_others_in_between() -> None:
    made = Picture(registry())
    for i in range(100):
        made.fold_node(Added(node(f"n{i}", 8)))
    breaths = 0

    async def breathe() -> None:
        nonlocal breaths
        breaths += 1
        # Nodes may go while the scrape waits.
        made.ledger.drop_node(next(iter(made.ledger.nodes)))

    parsed((await Metrics(made, Counters(Clock()), legacy=False).text(breathe)).decode())
    assert breaths >= 5


async def test_counts_of_calls(running: Running) -> None:
    running.api.put("nodes", node("n1"))
    async with running.started(options=Options(http=LOOPBACK, metrics=LOOPBACK)):
        await running.place(pod("p"), "n1")
        await running.filter(pod("q", memory=99999), "n1")
        async with running.http.get(f"http://{running.bound.metrics}/metrics") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            samples = parsed(await answer.text())
        assert value(samples, "hami_scheduler_filter_total", result="succeeded", reason="") == 1
        assert value(samples, "hami_scheduler_filter_total", result="failed", reason="no_fitting_node") == 1
        assert value(samples, "hami_scheduler_filter_total", result="failed", reason="score_failed") == 0
        assert value(samples, "hami_scheduler_bind_total", result="succeeded", reason="") == 1
        assert value(samples, "hami_scheduler_filter_duration_seconds_count") == 2
        assert value(samples, "hami_scheduler_waiting_pods") == 1
        assert value(samples, "hami_scheduler_active") == 1
        build = [dict(labels) for name, labels in samples if name == "hami_build_info"]
        assert list(build[0]) == ["version"]
        told = {"family": "NVIDIA", "memory_unit_mib": "1", "core_unit": "percent"}
        assert value(samples, "hami_device_units_info", **told) == 1
