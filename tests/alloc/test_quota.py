"""ResourceQuota objects: which keys count, several at once, and the peak of a pod's containers."""

from typing import Any

import pytest

from hami.alloc.quota import Limits, Quotas, peak, read_quota
from hami.model.claim import Role
from hami.model.names import VendorWord
from hami.model.settings import DeviceConfig, NvidiaConfig
from hami.vendors import registry

NVIDIA = VendorWord("NVIDIA")
MEMORY = "limits.nvidia.com/gpumem"
CORES = "limits.nvidia.com/gpucores"


def quota(name: str, hard: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "ns", "name": name}, "spec": {"hard": hard, **spec}}


@pytest.mark.parametrize(
    ("limits", "used", "asked", "fits"),
    [
        (Limits(), (10**12, 10**6), (1, 1), True),
        (Limits(memory_mib=6000), (4000, 0), (2000, 0), True),
        (Limits(memory_mib=6000), (4000, 0), (2001, 0), False),
        (Limits(memory_mib=0), (0, 0), (1, 0), False),
        (Limits(cores=0), (0, 0), (5000, 0), True),
        (Limits(cores=0), (0, 0), (5000, 1), False),
        # The limit was lowered below the use: what asks for none of it is not blocked.
        (Limits(memory_mib=10, cores=50), (0, 60), (10, 0), True),
    ],
)
def test_fit(limits: Limits, used: tuple[int, int], asked: tuple[int, int], fits: bool) -> None:
    assert limits.fit(used, asked) is fits


@pytest.mark.parametrize(
    ("hard", "want"),
    [
        ({MEMORY: "3Ki", CORES: 150}, Limits(memory_mib=3072, cores=150)),
        ({MEMORY: "0"}, Limits(memory_mib=0)),
        ({MEMORY: "1500m"}, Limits(memory_mib=1)),
        ({CORES: "-5"}, Limits(cores=0)),
        ({"requests.nvidia.com/gpumem": "1", "limits.nvidia.com/gpu": "1", "limits.cpu": "1"}, None),
    ],
)
def test_keys_that_limit(hard: dict[str, Any], want: Limits | None) -> None:
    assert read_quota(quota("q", hard), registry()) == ({NVIDIA: want} if want else {}, ())


def test_memory_is_limited_in_the_unit_that_pods_ask_in() -> None:
    families = registry(DeviceConfig(nvidia=NvidiaConfig(memory_factor=256)))
    assert read_quota(quota("q", {MEMORY: "20", CORES: "20"}), families)[0] == {
        NVIDIA: Limits(memory_mib=5120, cores=20)
    }


def test_unusable_values_limit_nothing_and_are_told() -> None:
    found, problems = read_quota(quota("q", {MEMORY: "much", CORES: "10"}), registry())
    assert found == {NVIDIA: Limits(cores=10)}
    assert [problem.field for problem in problems] == [f"ResourceQuota ns/q spec.hard[{MEMORY}]"]


@pytest.mark.parametrize(
    ("spec", "named"), [("x", "spec"), ([1], "spec"), ({"hard": "x"}, "spec.hard"), ({"hard": [MEMORY]}, "spec.hard")]
)
def test_a_shapeless_quota_limits_nothing_and_is_told(spec: object, named: str) -> None:
    limits, (problem,) = read_quota({"metadata": {"namespace": "ns", "name": "q"}, "spec": spec}, registry())
    assert limits == {}
    assert problem.field == f"ResourceQuota ns/q {named}"


@pytest.mark.parametrize("scope", [{"scopes": ["NotTerminating"]}, {"scopeSelector": {"matchExpressions": [{}]}}])
def test_a_quota_with_scopes_is_told_not_enforced(scope: dict[str, Any]) -> None:
    found, problems = read_quota(quota("q", {MEMORY: "1"}, **scope), registry())
    assert found == {}
    assert [problem.field for problem in problems] == ["ResourceQuota ns/q spec.scopes"]
    assert read_quota(quota("q", {"limits.cpu": "1"}, **scope), registry()) == ({}, ())


def test_every_quota_of_a_namespace_holds() -> None:
    quotas = Quotas(registry())
    quotas.put(quota("a", {MEMORY: "4000"}))
    quotas.put(quota("b", {MEMORY: "6000", CORES: "50"}))
    assert quotas.limits("ns", NVIDIA) == Limits(memory_mib=4000, cores=50)
    assert not quotas.fit("ns", NVIDIA, (0, 0), (4001, 0))
    assert quotas.fit("other", NVIDIA, (0, 0), (4001, 0))
    quotas.drop("ns", "a")
    assert quotas.limits("ns", NVIDIA) == Limits(memory_mib=6000, cores=50)
    quotas.put(quota("b", {MEMORY: "7000"}))
    assert quotas.limits("ns", NVIDIA) == Limits(memory_mib=7000)
    quotas.put(quota("b", {}))
    quotas.drop("ns", "never there")
    assert quotas.limits("ns", NVIDIA) == Limits()
    assert quotas.fit("ns", NVIDIA, (10**9, 0), (10**9, 0))


@pytest.mark.parametrize(
    ("parts", "want"),
    [
        ([], 0),
        ([(Role.APP, 3), (Role.APP, 4)], 7),
        ([(Role.INIT, 9), (Role.INIT, 2), (Role.APP, 4)], 9),
        ([(Role.INIT, 6), (Role.APP, 4), (Role.APP, 4)], 8),
        ([(Role.SIDECAR, 8), (Role.APP, 8)], 16),
        # An init container runs beside the sidecars declared before it only.
        ([(Role.SIDECAR, 3), (Role.INIT, 9), (Role.APP, 1)], 12),
        ([(Role.INIT, 9), (Role.SIDECAR, 3), (Role.APP, 1)], 9),
    ],
)
def test_peak(parts: list[tuple[Role, int]], want: int) -> None:
    assert peak(parts) == want
