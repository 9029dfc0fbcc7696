"""One pod from its request to its limit: admission, placement, one write, the kubelet's call, the program's view."""

import base64
import json

from tests.cluster.audit import Audit
from tests.cluster.harness.api import Api
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.layout import CHECKPOINT, NODE
from tests.cluster.harness.services import AGENT, SCHEDULER, SCHEDULER_NAME, Services
from tests.cluster.harness.waiting import eventually
from tests.cluster.nodes import cards, samples
from tests.cluster.pods import DONE, IDLE, Card, Namespace, allocation, container, pod
from tests.cluster.probe import assert_sees_its_own, look, report_of, seen

USE_UUID = "nvidia.com/use-gpuuuid"
KERNEL_NS = 1_000_000


def test_from_request_to_limit(space: Namespace, api: Api, cluster: Cluster, services: Services, audit: Audit) -> None:
    device = next(card for card in cards(api) if "A100" in card.model)
    pin = {USE_UUID: device.uuid}
    # A neighbour on the same device that takes all the time it can get, for as long as this test lasts.
    space.run(
        pod("greedy", container("main", f"exec gpuprobe burn 600 {KERNEL_NS}", gpu=1, gpumem=3000), annotations=pin)
    )
    script = f"gpuprobe info alloc 3001; gpuprobe burn 5 {KERNEL_NS}; echo finished; {IDLE}"
    body = pod("share", container("main", script, gpu=1, gpumem=3000, gpucores=30), annotations=pin)

    created = space.create(body)
    assert created["spec"]["schedulerName"] == SCHEDULER_NAME, "mutated at admission"
    document = space.wait_running("share")

    # One write carries everything, and it is the Binding.
    ours = [write for write in audit.writes(namespace=space.name, user=SCHEDULER) if write.resource.startswith("pods")]
    about = [write for write in ours if write.name == "share"]
    assert [(write.verb, write.resource, write.status) for write in about] == [("create", "pods/binding", 201)]
    carried = about[0].body["metadata"]["annotations"]
    assert carried[DONE] == f"{device.uuid},NVIDIA,3000,30:;"
    assert carried["hami.io/vgpu-node"] == NODE
    assert carried["hami.io/bind-phase"] == "allocating"
    assert carried.items() <= {**document["metadata"]["annotations"], "hami.io/bind-phase": "allocating"}.items()
    assert document["metadata"]["labels"]["hami.io/vgpu-node"] == NODE
    assert allocation(document) == [[Card(uuid=device.uuid, memory_mib=3000, cores=30)]]

    # The kubelet has given it one slot of that device by the agent's answer.
    eventually("phase success", lambda: _annotation(space, "hami.io/bind-phase") == "success", 10)
    checkpoint = json.loads(CHECKPOINT.read_bytes())
    entries = [e for e in checkpoint["Data"]["PodDeviceEntries"] if e["PodUID"] == document["metadata"]["uid"]]
    assert [entry["ResourceName"] for entry in entries] == ["nvidia.com/gpu"]
    assert b"/vgpu/grants/" in base64.b64decode(entries[0]["AllocResp"])
    region = cluster.layout.hook / "vgpu" / "containers" / f"{document['metadata']['uid']}_main"
    assert list(region.glob("*.cache")), "where monitors look for the region"

    # What the program sees and gets.
    space.wait_line("share", "finished")
    results = space.results("share")
    (view,) = seen(results)
    assert (view.uuid, view.nvml_total, view.cuda_total, view.device_total) == (device.uuid, 3000, 3000, 3000)
    alloc = report_of(results, "alloc")
    assert (alloc["got_mib"], alloc["result"]) == (3000, "CUDA_ERROR_OUT_OF_MEMORY")
    share = report_of(results, "burn")["share"]
    assert 0.27 <= share <= 0.33, f"{share:.1%} of the device's time beside a greedy neighbour"


def test_the_whole_limit_is_the_programs_own(space: Namespace) -> None:
    # On the T4s a context takes 300 MiB of the device. It is shown as used, but what was asked can all be allocated.
    annotations = {"nvidia.com/use-gputype": "T4"}
    space.finish(pod("share", container("main", "gpuprobe alloc 3001", gpu=1, gpumem=3000), annotations=annotations))
    alloc = report_of(space.results("share"), "alloc")
    assert (alloc["got_mib"], alloc["result"]) == (3000, "CUDA_ERROR_OUT_OF_MEMORY")


def test_limits_hold_for_a_child_without_the_environment(space: Namespace) -> None:
    script = (
        "exec env -i HAMI_SIM_STATE=$HAMI_SIM_STATE NVIDIA_VISIBLE_DEVICES=$NVIDIA_VISIBLE_DEVICES gpuprobe alloc 1201"
    )
    space.finish(
        pod("child", container("main", script, gpu=1, gpumem=1200), annotations={"nvidia.com/use-gputype": "A100"})
    )
    alloc = report_of(space.results("child"), "alloc")
    assert (alloc["got_mib"], alloc["result"]) == (1200, "CUDA_ERROR_OUT_OF_MEMORY")


def test_use_and_refusals_are_shown_by_the_agents_metrics(space: Namespace, services: Services) -> None:
    script = f"gpuprobe alloc 701; gpuprobe hold 600 1000 & {IDLE}"
    space.run(pod("user", container("main", script, gpu=1, gpumem=700), annotations={"nvidia.com/use-gputype": "A100"}))

    def shown(name: str) -> list[float]:
        labels = {"namespace": space.name, "pod": "user", "container": "main"}
        found = samples(services.agent_metrics(), name)
        return [value for own, value in found if labels.items() <= own.items()]

    mib = 2**20
    eventually("600 MiB in use", lambda: shown("hami_vgpu_memory_used_bytes") == [600 * mib], 20)
    assert shown("hami_vgpu_memory_limit_bytes") == [700 * mib]
    assert shown("hami_container_oom_rejections_total") == [1]
    (simulated,) = {own.get("simulated") for own, _ in samples(services.agent_metrics(), "hami_container_blocked")}
    assert simulated == "true", "a person who reads it is told"


def test_the_environment_strategy(space: Namespace, cluster: Cluster, services: Services) -> None:
    services.restart_agent(["--devices=env"])
    try:
        script = "gpuprobe alloc 801; " + look()
        space.run(
            pod("env", container("main", script, gpu=2, gpumem=800), annotations={"nvidia.com/use-gputype": "A100"})
        )
        assert_sees_its_own(space, space.get("env"))
        alloc = report_of(space.results("env"), "alloc")
        assert (alloc["got_mib"], alloc["result"]) == (800, "CUDA_ERROR_OUT_OF_MEMORY")
    finally:
        services.restart_agent()
    assert cluster.processes.find(AGENT) is not None


def _annotation(space: Namespace, key: str) -> str | None:
    value = space.get("share")["metadata"]["annotations"].get(key)
    return None if value is None else str(value)
