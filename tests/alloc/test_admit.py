"""Admission beyond the recorded answers: what this project refuses, the switches, and the exact patch."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami.alloc.admit import Admission, admit
from hami.alloc.quota import Quotas
from hami.model.names import VendorWord
from hami.model.settings import DeviceConfig, NvidiaConfig, SchedulerSettings
from hami.vendors import registry
from tests.alloc.jsonpatch import apply_patch
from tests.alloc.pods import container, pod
from tests.alloc.test_request import JSON

SETTINGS = SchedulerSettings(scheduler_name="hami-scheduler")
TAKE_OVER = {"op": "add", "path": "/spec/schedulerName", "value": "hami-scheduler"}


def verdict(document: dict[str, Any], *, settings: SchedulerSettings = SETTINGS, **more: Any) -> Admission:
    config = more.pop("config", NvidiaConfig())
    given: dict[str, Any] = {"namespace": "ns", "username": "alice", **more}
    return admit(document, registry=registry(DeviceConfig(nvidia=config)), settings=settings, **given)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"gpu": 0}, "nvidia.com/gpu"),
        ({"gpu": "1.5"}, "nvidia.com/gpu"),
        ({"gpu": 1, "mem": "16Gi"}, "nvidia.com/gpumem"),
        ({"gpu": 1, "mem": "-1"}, "nvidia.com/gpumem"),
        ({"mem": "0.5"}, "nvidia.com/gpumem"),
        ({"gpu": 1, "cores": -1}, "nvidia.com/gpucores"),
        ({"gpu": 1, "mem": 1, "priority": "-1"}, "nvidia.com/priority"),
        ({"gpu": 1, "mem": 1, "priority": "0.5"}, "nvidia.com/priority"),
    ],
)
def test_what_no_node_could_serve_is_refused_by_name(asked: dict[str, Any], name: str) -> None:
    got = verdict(pod(container("plain"), container("c", **asked)))
    assert not got.allowed
    assert got.code == 403
    assert f"spec.containers[1].resources.limits[{name}]: expected a whole number from" in got.message
    assert got.patch == []


def test_an_init_container_is_named_by_its_own_path() -> None:
    got = verdict(pod(container(gpu=1), inits=[container("i", gpu=1, cores="x")]))
    assert got.code == 400
    assert got.message.startswith("spec.initContainers[0].resources.limits[nvidia.com/gpucores]: expected a Kubernetes")


def test_values_of_pods_that_go_elsewhere_are_not_judged() -> None:
    assert verdict(pod(container(gpu=0), schedulerName="volcano")).allowed
    assert verdict(pod(container(mem="0.5")), config=NvidiaConfig(default_gpu_num=0)).allowed


@pytest.mark.parametrize(
    "key",
    [
        "hami.io/vgpu-node",
        "hami.io/vgpu-time",
        "hami.io/bind-time",
        "hami.io/bind-phase",
        "hami.io/vgpu-devices-allocated",
        "hami.io/vgpu-devices-to-allocate",
        "hami.io/vgpu-mig-allocations",
    ],
)
@pytest.mark.parametrize("scheduler", ["default-scheduler", "volcano"])
def test_only_the_scheduler_writes_what_a_pod_was_given(key: str, scheduler: str) -> None:
    forged = pod(container(gpu=1), notes={key: "x"}, schedulerName=scheduler)
    got = verdict(forged)
    assert not got.allowed
    assert got.code == 403
    assert got.message.startswith(f"metadata.annotations[{key}]: expected absent")
    scheduler_user = "system:serviceaccount:hami:scheduler"
    assert verdict(forged, username=scheduler_user, scheduler_usernames=frozenset({scheduler_user})).allowed


def test_user_annotations_pass() -> None:
    assert verdict(pod(container(gpu=1), notes={"nvidia.com/use-gputype": "T4", "hami.io/x": "y"})).allowed


PRIVILEGED = {"securityContext": {"privileged": True}}


@pytest.mark.parametrize(
    ("switch", "allowed", "patched"),
    [("deny", False, 0), ("allow", True, 3), ("skip", True, 2)],
)
def test_privileged_switch(switch: Any, allowed: bool, patched: int) -> None:
    settings = SchedulerSettings(scheduler_name="hami-scheduler", privileged=switch)
    got = verdict(pod(container("a", gpu=1), container("b", mem=5, **PRIVILEGED)), settings=settings)
    assert got.allowed is allowed
    assert len(got.patch) == patched
    assert [op["path"] for op in got.patch if "/containers/1/" in op["path"]] == (
        ["/spec/containers/1/resources/limits/nvidia.com~1gpu"] if switch == "allow" else []
    )


def test_a_pod_of_privileged_containers_only_is_left_alone_by_skip() -> None:
    settings = SchedulerSettings(scheduler_name="hami-scheduler", privileged="skip")
    got = verdict(pod(container(gpu=1, **PRIVILEGED)), settings=settings)
    assert (got.allowed, got.patch) == (True, [])


def test_patch_on_a_container_without_limits() -> None:
    """A count that stands in requests only still means a whole card; the limit's parents are made first."""
    bare = {"name": "c", "resources": {"requests": {"nvidia.com/gpu": "1"}}}
    got = verdict(pod(bare))
    cores = {"nvidia.com/gpucores": "100"}
    assert got.patch == [{"op": "add", "path": "/spec/containers/0/resources/limits", "value": cores}, TAKE_OVER]


def test_limit_and_request_change_together() -> None:
    """An API server fills in a missing request from its limit, but refuses one that differs."""
    document = container(mem=5, requests={"mem": 5})
    got = verdict(pod(document))
    limit = "/spec/containers/0/resources/limits/nvidia.com~1gpu"
    assert got.patch == [{"op": "add", "path": limit, "value": "1"}, TAKE_OVER]


def test_environment_is_appended_where_there_is_one() -> None:
    config = NvidiaConfig(gpu_core_policy="force", overwrite_env=True)
    got = verdict(
        pod(container("a", env=[{"name": "A"}]), container("b", env=[]), container("c", gpu=1)), config=config
    )
    policy = {"name": "GPU_CORE_UTILIZATION_POLICY", "value": "force"}
    hidden = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "none"}
    assert [op for op in got.patch if "/env" in op["path"]] == [
        {"op": "add", "path": "/spec/containers/0/env/-", "value": policy},
        {"op": "add", "path": "/spec/containers/0/env/-", "value": hidden},
        {"op": "add", "path": "/spec/containers/1/env", "value": [policy, hidden]},
        {"op": "add", "path": "/spec/containers/2/env", "value": [policy]},
    ]


def test_a_null_runtime_class_counts_as_unset() -> None:
    config = NvidiaConfig(runtime_class_name="nvidia")
    got = verdict(pod(container(gpu=1, mem=1), runtimeClassName=None), config=config)
    assert {"op": "add", "path": "/spec/runtimeClassName", "value": "nvidia"} in got.patch


def test_words_without_effect_are_warned_of() -> None:
    got = verdict(pod(container(gpu=1), notes={"hami.io/gpu-scheduler-policy": "tight"}))
    assert got.allowed
    assert len(got.warnings) == 1
    assert "'tight'" in got.warnings[0]
    assert verdict(pod(container(), notes={"hami.io/gpu-scheduler-policy": "tight"})).warnings == ()


def quotas(**hard: str) -> Quotas:
    found = Quotas(registry())
    found.put(
        {
            "metadata": {"namespace": "ns", "name": "q"},
            "spec": {"hard": {f"limits.nvidia.com/{k}": v for k, v in hard.items()}},
        }
    )
    return found


def test_quota_counts_sidecars_beside_apps() -> None:
    sidecar = container("s", gpu=1, mem=3000, restartPolicy="Always")
    shape = pod(container(gpu=1, mem=3000), inits=[sidecar, container("i", gpu=1, mem=2000)])
    assert verdict(shape, quotas=quotas(gpumem="6000")).allowed
    got = verdict(shape, quotas=quotas(gpumem="5999"))
    assert (got.allowed, got.code, got.message) == (False, 403, "exceeding resource quota")


def test_quota_of_another_namespace_and_of_cores() -> None:
    whole = pod(container(gpu=1))
    assert not verdict(whole, quotas=quotas(gpucores="99")).allowed
    assert verdict(whole, quotas=quotas(gpucores="100")).allowed
    assert verdict(whole, quotas=quotas(gpucores="99"), namespace="other").allowed
    assert not verdict(whole, quotas=quotas(gpucores="150"), used={VendorWord("NVIDIA"): (0, 51)}).allowed


def test_percentages_are_judged_early_where_the_cards_are_known() -> None:
    half = pod(container(gpu=2, pct=50))
    known = {VendorWord("NVIDIA"): 16000}
    assert verdict(half, quotas=quotas(gpumem="15999")).allowed
    assert not verdict(half, quotas=quotas(gpumem="15999"), smallest_mib=known).allowed
    assert verdict(half, quotas=quotas(gpumem="16000"), smallest_mib=known).allowed


@pytest.mark.parametrize(
    "document",
    [
        {"spec": {"containers": [{"name": "c", "env": "x", "resources": {}}]}},
        {"spec": {"containers": [{"name": "c", "env": [1]}]}},
        {"spec": {"containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": []}}}]}},
        {"spec": {"containers": [{"name": "c", "resources": {"requests": {"nvidia.com/gpumem": "3 k"}}}]}},
        {"spec": 1},
        {"metadata": {"annotations": {"a": {}}}, "spec": {"containers": [{}]}},
    ],
)
def test_no_pod_at_all(document: dict[str, Any]) -> None:
    got = verdict(document)
    assert (got.allowed, got.code) == (False, 400)
    assert ": expected " in got.message


CONTAINER = st.fixed_dictionaries(
    {"name": st.just("c") | JSON},
    optional={
        "resources": st.fixed_dictionaries(
            {},
            optional={
                kind: st.dictionaries(
                    st.sampled_from([*sorted(registry()[VendorWord("NVIDIA")].resources.names()), "cpu"]),
                    st.sampled_from(["1", 2, "0", "50", "100", "3k", "-1", "1.5", "x"]) | JSON,
                )
                | JSON
                for kind in ("limits", "requests")
            },
        ),
        "env": st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=3)), max_size=2) | JSON,
        "securityContext": st.just({"privileged": True}) | JSON,
        "restartPolicy": st.just("Always") | JSON,
    },
)


@given(
    apps=st.lists(CONTAINER, max_size=3),
    inits=st.lists(CONTAINER, max_size=2) | st.none(),
    spec=st.dictionaries(
        st.sampled_from(["schedulerName", "nodeName", "runtimeClassName"]), st.text(max_size=3) | JSON
    ),
    settings=st.sampled_from(["deny", "skip", "allow"]),
)
def test_any_document_gets_a_verdict_and_a_patch_that_applies(
    apps: list[Any], inits: list[Any] | None, spec: dict[str, Any], settings: Any
) -> None:
    document = {"metadata": {}, "spec": {**spec, "containers": apps, "initContainers": inits}}
    before = copy.deepcopy(document)
    chosen = SchedulerSettings(scheduler_name="hami-scheduler", privileged=settings)
    config = NvidiaConfig(gpu_core_policy="force", overwrite_env=True, runtime_class_name="nvidia")
    got = verdict(document, settings=chosen, config=config, quotas=quotas(gpumem="5000"))
    assert document == before
    if not got.allowed:
        assert got.code in (400, 403, 500)
        assert got.message
        assert not got.patch
        return
    patched = apply_patch(document, got.patch)
    again = verdict(patched, settings=chosen, config=config, quotas=quotas(gpumem="5000"))
    assert again.allowed, again.message
    assert [op for op in again.patch if "/env" not in op["path"]] == []
