"""Reading what a pod asks for: every value of a container, the annotations, and documents that are no pods."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami.alloc.request import (
    RequestError,
    WeightsError,
    containers,
    read_request,
    task_priority,
    warnings,
)
from hami.model.claim import Memory, Mib, Need, Percent, Role
from hami.model.names import VendorWord
from hami.model.settings import DeviceConfig, NvidiaConfig
from hami.vendors import nvidia, registry
from tests.alloc.pods import container, pod

NVIDIA = VendorWord("NVIDIA")
LIMIT = "spec.containers[0].resources.limits"


def need_of(document: dict[str, Any], **config: Any) -> Need | None:
    request = read_request(pod(document), registry(DeviceConfig(nvidia=NvidiaConfig(**config))))
    needs = request.containers[0].needs
    return needs[0] if needs else None


def need(count: int, memory: Memory, cores: int) -> Need:
    return Need(vendor=NVIDIA, count=count, memory=memory, cores=cores)


@pytest.mark.parametrize(
    ("asked", "config", "want"),
    [
        pytest.param({"gpu": 1}, {}, need(1, Percent(100), 0), id="count alone is the whole memory"),
        pytest.param({"gpu": "2", "mem": "3k"}, {}, need(2, Mib(3000), 0), id="suffix"),
        pytest.param({"gpu": "1e0", "mem": "3000.0"}, {}, need(1, Mib(3000), 0), id="whole in another spelling"),
        pytest.param({"gpu": 1, "pct": 33}, {}, need(1, Percent(33), 0), id="percentage"),
        pytest.param({"gpu": 1, "pct": 150}, {}, need(1, Percent(100), 0), id="percentage above 100"),
        pytest.param({"gpu": 1, "pct": 0}, {}, need(1, Percent(100), 0), id="percentage 0 is none"),
        pytest.param({"gpu": 1, "mem": 0, "pct": 50}, {}, need(1, Percent(50), 0), id="memory 0 is none"),
        pytest.param({"gpu": 1, "mem": 10, "pct": 50}, {}, need(1, Mib(10), 0), id="amount wins"),
        pytest.param({"gpu": 1, "cores": 30}, {}, need(1, Percent(100), 30), id="cores"),
        pytest.param({"gpu": 1, "cores": 150}, {}, need(1, Percent(100), 100), id="cores above 100"),
        pytest.param({"gpu": 1}, {"default_memory_mib": 5, "default_cores": 7}, need(1, Mib(5), 7), id="defaults"),
        pytest.param({"gpu": 1, "cores": 0}, {"default_cores": 7}, need(1, Percent(100), 0), id="0 over a default"),
        pytest.param(
            {"gpu": 1, "mem": 3}, {"memory_factor": 256, "default_memory_mib": 9}, need(1, Mib(768), 0), id="factor"
        ),
        pytest.param(
            {"gpu": 1, "pct": 0}, {"memory_factor": 256, "default_memory_mib": 9}, need(1, Mib(9), 0), id="no factor"
        ),
        pytest.param({"gpu": 1, "mem": 2**31 - 1}, {}, need(1, Mib(2**31 - 1), 0), id="largest amount"),
        pytest.param({"gpu": 1, "mem": 8388607}, {"memory_factor": 256}, need(1, Mib(8388607 * 256), 0), id="factored"),
        pytest.param({"mem": 3000, "cores": 10}, {}, None, id="no count: asks for nothing"),
        pytest.param({"mem": "16Gi"}, {}, None, id="unusable, but asks for nothing"),
    ],
)
def test_values(asked: dict[str, Any], config: dict[str, Any], want: Need | None) -> None:
    assert need_of(container(**asked), **config) == want


@pytest.mark.parametrize(
    ("asked", "config", "field"),
    [
        pytest.param({"gpu": 0}, {}, "nvidia.com/gpu", id="count 0"),
        pytest.param({"gpu": -1}, {}, "nvidia.com/gpu", id="negative count"),
        pytest.param({"gpu": "1500m"}, {}, "nvidia.com/gpu", id="fractional count"),
        pytest.param({"gpu": 2**31}, {}, "nvidia.com/gpu", id="giant count"),
        pytest.param({"gpu": "1e999999999"}, {}, "nvidia.com/gpu", id="giant exponent"),
        pytest.param({"gpu": "one"}, {}, "nvidia.com/gpu", id="no number"),
        pytest.param({"gpu": True}, {}, "nvidia.com/gpu", id="a truth"),
        pytest.param({"gpu": None}, {}, "nvidia.com/gpu", id="null"),
        pytest.param({"gpu": 1, "mem": "16Gi"}, {}, "nvidia.com/gpumem", id="bytes for MiB"),
        pytest.param({"gpu": 1, "mem": "0.5"}, {}, "nvidia.com/gpumem", id="fractional memory"),
        pytest.param({"gpu": 1, "mem": -1}, {}, "nvidia.com/gpumem", id="negative memory"),
        pytest.param({"gpu": 1, "mem": 8388608}, {"memory_factor": 256}, "nvidia.com/gpumem", id="too much by factor"),
        pytest.param({"gpu": 1, "pct": "50500m"}, {}, "nvidia.com/gpumem-percentage", id="fractional percentage"),
        pytest.param({"gpu": 1, "pct": -5}, {}, "nvidia.com/gpumem-percentage", id="negative percentage"),
        pytest.param({"gpu": 1, "cores": -1}, {}, "nvidia.com/gpucores", id="negative cores"),
        pytest.param({"gpu": 1, "cores": "1.5"}, {}, "nvidia.com/gpucores", id="fractional cores"),
    ],
)
def test_unusable_values_name_their_field(asked: dict[str, Any], config: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestError) as caught:
        need_of(container(**asked), **config)
    assert caught.value.field == f"{LIMIT}[{field}]"


def test_limits_win_over_requests() -> None:
    document = container(gpu=1, requests={"gpu": 2, "mem": 7})
    assert need_of(document) == need(1, Mib(7), 0)
    with pytest.raises(RequestError) as caught:
        need_of(container(gpu=1, requests={"mem": -7}))
    assert caught.value.field == "spec.containers[0].resources.requests[nvidia.com/gpumem]"
    assert caught.value.got == -7


def test_roles_and_order() -> None:
    document = pod(
        container("app"), inits=[container("side", restartPolicy="Always", gpu=1), container("init")], hostNetwork=True
    )
    request = read_request(document, registry())
    assert [(c.name, c.role) for c in request.containers] == [
        ("side", Role.SIDECAR),
        ("init", Role.INIT),
        ("app", Role.APP),
    ]
    assert [len(c.needs) for c in request.containers] == [1, 0, 0]
    assert [c.path for c in containers(document)] == [
        "spec.initContainers[0]",
        "spec.initContainers[1]",
        "spec.containers[0]",
    ]
    assert request.vendors == {NVIDIA}


def test_a_pod_without_devices_is_not_ours_whatever_its_annotations_say() -> None:
    request = read_request(
        pod(container(), notes={"hami.io/device-scoring-weights": "nonsense", "nvidia.com/use-gputype": "A"}),
        registry(),
    )
    assert request.vendors == frozenset()
    assert not request.selections


def test_renamed_resources() -> None:
    config = DeviceConfig(nvidia=NvidiaConfig(resource_count_name="example.com/vgpu"))
    renamed = {"name": "c", "resources": {"limits": {"example.com/vgpu": "1"}}}
    assert read_request(pod(renamed), registry(config)).vendors == {NVIDIA}
    assert read_request(pod(container(gpu=1)), registry(config)).vendors == frozenset()


@pytest.mark.parametrize(
    ("key", "text", "attribute", "want"),
    [
        ("nvidia.com/use-gputype", " a100, ,T4", "type_in", ("a100", "T4")),
        ("nvidia.com/use-gputype", "  ", "type_in", ()),
        ("nvidia.com/nouse-gputype", ",", "type_out", ()),
        ("nvidia.com/use-gpuuuid", "GPU-a,GPU-b ", "uuid_in", {"GPU-a", "GPU-b"}),
        ("nvidia.com/nouse-gpuuuid", "GPU-a", "uuid_out", {"GPU-a"}),
        ("nvidia.com/vgpu-mode", "hami-core,mig", "mode", "hami-core,mig"),
        ("nvidia.com/numa-bind", "True", "numa_bind", True),
        ("nvidia.com/numa-bind", " true", "numa_bind", False),
        ("nvidia.com/numa-bind", "yes", "numa_bind", False),
        ("hami.io/topology-require", "numa", "numa_bind", True),
        ("hami.io/topology-require", "numa", "link_bind", False),
        ("hami.io/topology-require", " link , numa", "link_bind", True),
        ("hami.io/topology-require", "link", "numa_bind", False),
        ("hami.io/topology-require", " ", "link_bind", False),
    ],
)
def test_selection(key: str, text: str, attribute: str, want: object) -> None:
    request = read_request(pod(container(gpu=1), notes={key: text}), registry())
    assert getattr(request.selections[NVIDIA], attribute) == want


def test_a_must_nobody_knows_is_refused() -> None:
    with pytest.raises(RequestError, match=r"hami.io/topology-require.*numa, link"):
        read_request(pod(container(gpu=1), notes={"hami.io/topology-require": "numa,rack"}), registry())


@pytest.mark.parametrize("key", ["use-gputype", "use-gpuuuid"])
def test_an_allow_list_that_names_nothing_allows_nothing(key: str) -> None:
    selection = read_request(pod(container(gpu=1), notes={f"nvidia.com/{key}": ", ,"}), registry()).selections[NVIDIA]
    allowed = selection.type_in or tuple(selection.uuid_in)
    assert len(allowed) == 1
    assert not any(word in "NVIDIA-Tesla T4 GPU-a" for word in allowed)


def test_policies_are_trimmed_and_blank_is_absent() -> None:
    notes = {"hami.io/node-scheduler-policy": " spread ", "hami.io/gpu-scheduler-policy": "  "}
    request = read_request(pod(container(gpu=1), notes=notes), registry())
    assert request.node_policy == "spread"
    assert request.card_policy is None


@pytest.mark.parametrize(
    ("text", "want"),
    [("slot=1,core=1,memory=3", (1, 1, 3)), (" memory = 5 , slot = 0 ,core=1", (0, 1, 5))],
)
def test_weights(text: str, want: tuple[int, int, int]) -> None:
    notes = {"hami.io/device-scoring-weights": text}
    assert read_request(pod(container(gpu=1), notes=notes), registry()).weights == want


@pytest.mark.parametrize(
    "text",
    [
        "",
        "slot=1,core=1",
        "slot=1,core=1,slot=1",
        "slot=1,core=1.5,memory=1",
        "slot=0,core=0,memory=0",
        "slot,core=1,memory=1",
        "slot=1,core=1,memory=-1",
        "slot=1,core=1,memory=1,",
        "slot=1,core=1,memory=²",
        "slot=1,core=1,memory=99999999999",
        "slot=1,core=1,memory=1" + " " * 300,
    ],
)
def test_unusable_weights(text: str) -> None:
    with pytest.raises(WeightsError, match="device-scoring-weights"):
        read_request(pod(container(gpu=1), notes={"hami.io/device-scoring-weights": text}), registry())


def test_warnings_name_unknown_words() -> None:
    notes = {"hami.io/node-scheduler-policy": "bin-pack", "hami.io/gpu-scheduler-policy": "numa, foo,topology-aware"}
    told = warnings(pod(container(gpu=1), notes=notes))
    assert len(told) == 2
    assert "node-scheduler-policy" in told[0]
    assert "'bin-pack'" in told[0]
    assert "binpack is used" in told[0]
    assert "'foo'" in told[1]
    assert "ignored" in told[1]
    assert warnings(pod(container(), notes={"hami.io/gpu-scheduler-policy": " mutex "})) == ()


@pytest.mark.parametrize(
    ("document", "want"),
    [
        pytest.param(container(gpu=1), 1, id="unsaid is low"),
        pytest.param(container(gpu=1, priority="0"), 0, id="resource"),
        pytest.param(container(priority="0", env=[{"name": "CUDA_TASK_PRIORITY", "value": "1"}]), 1, id="env wins"),
        pytest.param(
            container(env=[{"name": "CUDA_TASK_PRIORITY", "value": "1"}, {"name": "CUDA_TASK_PRIORITY", "value": "0"}]),
            0,
            id="last env wins",
        ),
        pytest.param(container(env=[{"name": "CUDA_TASK_PRIORITY", "value": "x"}]), 1, id="unusable env"),
        pytest.param(container(env=[{"name": "CUDA_TASK_PRIORITY", "valueFrom": {}}]), 1, id="indirect env"),
    ],
)
def test_priority(document: dict[str, Any], want: int) -> None:
    (found,) = containers(pod(document))
    assert task_priority(found, nvidia.NVIDIA) == want


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"spec": {"containers": {}}}, None),
        ({"spec": {"containers": "c"}}, "spec.containers"),
        ({"spec": {"containers": [3]}}, "spec.containers[0]"),
        ({"spec": []}, "spec"),
        ({"spec": {"containers": [{"name": 3}]}}, "spec.containers[0].name"),
        ({"spec": {"containers": [{"resources": 3}]}}, "spec.containers[0].resources"),
        ({"spec": {"containers": [{"resources": {"limits": []}}]}}, "spec.containers[0].resources.limits"),
        ({"metadata": {"annotations": {"a": 1}}, "spec": {}}, "metadata.annotations[a]"),
        ({"metadata": {"annotations": []}, "spec": {}}, "metadata.annotations"),
        ({"metadata": "m", "spec": {}}, "metadata"),
    ],
)
def test_documents_that_are_no_pods(document: dict[str, Any], field: str | None) -> None:
    if field is None:
        assert read_request(document, registry()).containers == ()
        return
    with pytest.raises(RequestError) as caught:
        read_request(document, registry())
    assert caught.value.field == field


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
RESOURCE = st.sampled_from(sorted(nvidia.NVIDIA.resources.names()))
QUANTITY = st.one_of(JSON, st.from_regex(r"[+-]?[0-9]{1,12}(\.[0-9]{1,3})?(Ki|k|m|e[0-9]{1,9})?", fullmatch=True))


@given(limits=st.dictionaries(RESOURCE, QUANTITY), requests=st.dictionaries(RESOURCE, QUANTITY), extra=JSON)
def test_any_values_give_a_need_in_range_or_one_error(
    limits: dict[str, Any], requests: dict[str, Any], extra: object
) -> None:
    document = pod({"name": "c", "resources": {"limits": limits, "requests": requests}, "env": extra})
    told: RequestError | None = None
    needs: tuple[Need, ...] = ()
    try:
        needs = read_request(document, registry()).containers[0].needs
    except RequestError as error:
        told = error
    if told is not None:
        assert told.field.startswith("spec.containers[0].resources.")
        assert len(str(told)) < 500
    for found in needs:
        assert 1 <= found.count < 2**31
        assert 0 <= found.cores <= 100
        assert 1 <= found.memory.amount < 2**31
