"""Device configuration, per-node overrides, durations and selectors: every key, its spellings, its limits."""

from typing import Any

import pytest

from hami.model.names import WireError
from hami.model.settings import (
    DEFAULT_DEVICE_CONFIG,
    DEFAULT_MIG_ALLOWLIST,
    MigAllow,
    NodeOverrides,
    NvidiaConfig,
    apply_node_overrides,
    parse_go_duration,
    read_device_config,
    read_label_selector,
    read_node_config,
)

CHART = {
    "resourceCountName": "nvidia.com/gpu",
    "resourceMemoryName": "nvidia.com/gpumem",
    "resourceMemoryPercentageName": "nvidia.com/gpumem-percentage",
    "resourceCoreName": "nvidia.com/gpucores",
    "resourcePriorityName": "nvidia.com/priority",
    "overwriteEnv": False,
    "defaultMemory": 0,
    "defaultCores": 0,
    "defaultGPUNum": 1,
    "preConfiguredDeviceMemory": 0,
    "memoryFactor": 1,
    "deviceSplitCount": 10,
    "deviceMemoryScaling": 1,
    "deviceCoreScaling": 1,
    "enableNumaTopology": False,
    "gpuCorePolicy": "default",
    "libCudaLogLevel": 1,
    "runtimeClassName": "",
    "migProfileAllowlist": [
        {"models": list(entry.models), "profiles": list(entry.profiles)} for entry in DEFAULT_MIG_ALLOWLIST
    ],
}
"""What the reference's chart renders by default."""


def nvidia(**keys: Any) -> NvidiaConfig:
    return read_device_config({"nvidia": {"resourceCountName": "nvidia.com/gpu"} | keys}).nvidia


def test_the_chart_s_defaults_are_ours() -> None:
    config = read_device_config({"nvidia": CHART, "hygon": {"memoryFactor": 2}, "enflame": None, "biren": {}})
    assert config.nvidia == DEFAULT_DEVICE_CONFIG.nvidia == NvidiaConfig()
    assert config.other == {"hygon": {"memoryFactor": 2}}
    assert config.sections == {"nvidia", "hygon"}
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("key", "value", "attribute", "expected"),
    [
        ("resourceCountName", "example.com/vgpu", "resource_count_name", "example.com/vgpu"),
        ("resourceMemoryName", "", "resource_memory_name", ""),
        ("overwriteEnv", True, "overwrite_env", True),
        ("overwriteEnv", "true", "overwrite_env", True),
        ("defaultMemory", 5000, "default_memory_mib", 5000),
        ("defaultMemory", "5000", "default_memory_mib", 5000),
        ("defaultMemory", None, "default_memory_mib", 0),
        ("defaultCores", 100, "default_cores", 100),
        ("defaultGPUNum", 0, "default_gpu_num", 0),
        ("memoryFactor", 256, "memory_factor", 256),
        ("memoryFactor", 0, "memory_factor", 1),
        ("memoryFactor", -3, "memory_factor", 1),
        ("disableCoreLimit", True, "disable_core_limit", True),
        ("gpuCorePolicy", "force", "gpu_core_policy", "force"),
        ("gpuCorePolicy", "", "gpu_core_policy", "default"),
        ("memoryAccounting", "strict", "memory_accounting", "strict"),
        ("memoryAccounting", "", "memory_accounting", ""),
        ("runtimeClassName", "nvidia", "runtime_class_name", "nvidia"),
        ("deviceSplitCount", 4, "device_split_count", 4),
        ("deviceMemoryScaling", 1.5, "device_memory_scaling", 1.5),
        ("deviceCoreScaling", 0.5, "device_core_scaling", 0.5),
        ("preConfiguredDeviceMemory", 24576, "preconfigured_device_memory_mib", 24576),
        ("libCudaLogLevel", 3, "libcuda_log_level", "3"),
        ("libCudaLogLevel", "4", "libcuda_log_level", "4"),
        ("enableNumaTopology", True, "enable_numa_topology", True),
        (
            "migProfileAllowlist",
            [{"models": ["A30"], "profiles": ["1g.6gb"]}],
            "mig_profile_allowlist",
            (MigAllow(models=("A30",), profiles=("1g.6gb",)),),
        ),
    ],
)
def test_every_key(key: str, value: object, attribute: str, expected: object) -> None:
    assert getattr(nvidia(**{key: value}), attribute) == expected


@pytest.mark.parametrize(
    ("key", "value", "path"),
    [
        ("resourceCountName", "", "nvidia.resourceCountName"),
        ("resourceCountName", ["x"], "nvidia.resourceCountName"),
        ("resourceCoreName", "nvidia.com/gpu", "nvidia.resourceCoreName"),
        ("resourceMemoryName", "a b", "nvidia.resourceMemoryName"),
        ("resourceMemoryName", "x" * 1000, "nvidia.resourceMemoryName"),
        ("overwriteEnv", "yes", "nvidia.overwriteEnv"),
        ("overwriteEnv", 1, "nvidia.overwriteEnv"),
        ("defaultMemory", -1, "nvidia.defaultMemory"),
        ("defaultMemory", 1.5, "nvidia.defaultMemory"),
        ("defaultMemory", "16Gi", "nvidia.defaultMemory"),
        ("defaultMemory", 2**31, "nvidia.defaultMemory"),
        ("defaultMemory", True, "nvidia.defaultMemory"),
        ("defaultMemory", [1], "nvidia.defaultMemory"),
        ("defaultCores", 101, "nvidia.defaultCores"),
        ("defaultGPUNum", -1, "nvidia.defaultGPUNum"),
        ("memoryFactor", "much", "nvidia.memoryFactor"),
        ("gpuCorePolicy", "sometimes", "nvidia.gpuCorePolicy"),
        ("memoryAccounting", "often", "nvidia.memoryAccounting"),
        ("runtimeClassName", {}, "nvidia.runtimeClassName"),
        ("deviceSplitCount", 0, "nvidia.deviceSplitCount"),
        ("deviceMemoryScaling", 0, "nvidia.deviceMemoryScaling"),
        ("deviceMemoryScaling", float("nan"), "nvidia.deviceMemoryScaling"),
        ("deviceMemoryScaling", float("inf"), "nvidia.deviceMemoryScaling"),
        ("deviceMemoryScaling", 1e300, "nvidia.deviceMemoryScaling"),
        ("deviceCoreScaling", "double", "nvidia.deviceCoreScaling"),
        ("libCudaLogLevel", True, "nvidia.libCudaLogLevel"),
        ("migProfileAllowlist", {}, "nvidia.migProfileAllowlist"),
        ("migProfileAllowlist", ["A30"], "nvidia.migProfileAllowlist[0]"),
        ("migProfileAllowlist", [{"models": [], "profiles": ["1g.6gb"]}], "nvidia.migProfileAllowlist[0].models"),
        ("migProfileAllowlist", [{"models": ["A30"]}], "nvidia.migProfileAllowlist[0].profiles"),
        ("migProfileAllowlist", [{"models": ["A30"], "profiles": ["6gb"]}], "nvidia.migProfileAllowlist[0].profiles"),
    ],
)
def test_unusable_values_name_the_key(key: str, value: object, path: str) -> None:
    with pytest.raises(WireError) as caught:
        nvidia(**{key: value})
    assert caught.value.field == path
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("key", ["defaultMemory", "libCudaLogLevel", "deviceMemoryScaling", "resourceCountName"])
def test_an_integer_too_long_to_print_names_the_key(key: str) -> None:
    with pytest.raises(WireError, match=f"nvidia.{key}: expected .*giant number"):
        nvidia(**{key: 16**5000})


@pytest.mark.parametrize("document", [None, [], "nvidia", {}, {"nvidia": None, "hygon": {}}, {"later": {"a": 1}}])
def test_nothing_configured_is_refused(document: object) -> None:
    with pytest.raises(WireError, match="device configuration: expected"):
        read_device_config(document)


def test_a_section_must_be_a_mapping() -> None:
    with pytest.raises(WireError, match="nvidia: expected keys and values"):
        read_device_config({"nvidia": ["resourceCountName"]})


@pytest.mark.parametrize(
    ("keys", "attribute", "expected", "warning"),
    [
        ({"defaultMem": 500}, "default_memory_mib", 500, "nvidia.defaultMem: the key is spelled defaultMemory"),
        ({"disablecorelimit": "true"}, "disable_core_limit", True, "the key is spelled disableCoreLimit"),
        ({"DefaultCores": 30}, "default_cores", 30, "the key is spelled defaultCores"),
        ({"migstrategy": "none"}, "default_cores", 0, "nvidia.migstrategy has no effect here"),
        ({"knownMigGeometries": []}, "default_cores", 0, "migProfileAllowlist"),
        ({"defaultCore": 30}, "default_cores", 0, "unknown key, ignored; did you mean defaultCores?"),
        ({"x" * 10**6: 1}, "default_cores", 0, "unknown key, ignored"),
        ({"DefaultCores": 30, "defaultCores": 20}, "default_cores", 20, None),
    ],
    ids=["other name", "capitals", "more capitals", "no effect", "old key", "typo", "giant", "right key wins"],
)
def test_other_spellings(keys: dict[str, object], attribute: str, expected: object, warning: str | None) -> None:
    config = read_device_config({"nvidia": keys})
    assert getattr(config.nvidia, attribute) == expected
    assert len(config.warnings) == 1
    assert len(config.warnings[0]) < 200
    assert warning is None or warning in config.warnings[0]


def test_a_section_in_other_capitals() -> None:
    config = read_device_config({"Nvidia": {"defaultCores": 5}})
    assert config.nvidia.default_cores == 5
    assert config.warnings == ("Nvidia: the key is spelled nvidia",)


NODE = {
    "name": "n1",
    "operatingmode": "mig",
    "devicememoryscaling": 1.5,
    "DeviceCoreScaling": 2,
    "devicesplitcount": 4,
    "preconfigureddevicememory": 1000,
    "libcudaloglevel": "3",
    "enablenumatopology": True,
    "migstrategy": "none",
    "filterdevices": {"UUID": ["GPU-a"], "index": [0, 2]},
    "enablegetpreferredallocation": True,
    "sharing": "mps",
}


def test_node_overrides() -> None:
    overrides = read_node_config({"NodeConfig": [NODE, {"name": "n2", "devicesplitcount": "?"}]}, "n1")
    assert overrides == NodeOverrides(
        operating_mode="mig",
        mig_strategy="none",
        device_memory_scaling=1.5,
        device_core_scaling=2.0,
        device_split_count=4,
        preconfigured_device_memory_mib=1000,
        libcuda_log_level="3",
        enable_numa_topology=True,
        hidden_uuids=frozenset({"GPU-a"}),  # type: ignore[arg-type]
        hidden_indices=frozenset({0, 2}),
        preferred_allocation=True,
        sharing="mps",
    )
    assert apply_node_overrides(NvidiaConfig(default_cores=7), overrides) == NvidiaConfig(
        default_cores=7,
        device_memory_scaling=1.5,
        device_core_scaling=2.0,
        device_split_count=4,
        preconfigured_device_memory_mib=1000,
        libcuda_log_level="3",
        enable_numa_topology=True,
    )


@pytest.mark.parametrize("document", [None, {}, {"nodeconfig": None}, {"nodeconfig": []}, {"nodeconfig": [{}]}])
def test_no_overrides(document: object) -> None:
    overrides = read_node_config(document, "n1")
    assert overrides == NodeOverrides()
    assert apply_node_overrides(NvidiaConfig(), overrides) == NvidiaConfig()


def test_later_entries_override_key_by_key_and_zero_says_nothing() -> None:
    first = {"name": "n1", "devicesplitcount": 4, "devicememoryscaling": 2, "enablenumatopology": True}
    second = {
        "name": "n1",
        "devicesplitcount": 5,
        "devicememoryscaling": 0,
        "operatingmode": "",
        "libcudaloglevel": None,
    }
    third = {"name": "n1", "enablenumatopology": False, "filterdevices": {"uuid": [], "index": None}}
    overrides = read_node_config({"nodeconfig": [first, second, third]}, "n1")
    assert overrides == NodeOverrides(device_split_count=5, device_memory_scaling=2.0, enable_numa_topology=False)


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ([], "node configuration"),
        ({"nodeconfig": {}}, "nodeconfig"),
        ({"nodeconfig": "n1"}, "nodeconfig"),
        ({"nodeconfig": ["n1"]}, "nodeconfig[0]"),
        ({"nodeconfig": [{"name": "n1", "operatingmode": "fast"}]}, "nodeconfig[0].operatingmode"),
        ({"nodeconfig": [{"name": "n1", "devicesplitcount": -1}]}, "nodeconfig[0].devicesplitcount"),
        ({"nodeconfig": [{"name": "n1", "enablenumatopology": "on"}]}, "nodeconfig[0].enablenumatopology"),
        ({"nodeconfig": [{"name": "n1", "sharing": "mig"}]}, "nodeconfig[0].sharing"),
        ({"nodeconfig": [{"name": "n1", "filterdevices": []}]}, "nodeconfig[0].filterdevices"),
        ({"nodeconfig": [{"name": "n1", "filterdevices": {"uuid": "GPU-a"}}]}, "nodeconfig[0].filterdevices.uuid"),
        ({"nodeconfig": [{"name": "n1", "filterdevices": {"index": 1}}]}, "nodeconfig[0].filterdevices.index"),
        ({"nodeconfig": [{"name": "n1", "filterdevices": {"index": [-1]}}]}, "nodeconfig[0].filterdevices.index[0]"),
    ],
)
def test_broken_node_configuration_names_the_key(document: object, path: str) -> None:
    with pytest.raises(WireError) as caught:
        read_node_config(document, "n1")
    assert caught.value.field == path


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m0s", 300.0),
        ("28s", 28.0),
        ("1.5h", 5400.0),
        ("1h2m3s", 3723.0),
        ("300ms", 0.3),
        (".5s", 0.5),
        ("2.s", 2.0),
        ("1µs", 1e-6),
        ("1us", 1e-6),
        ("5ns", 5e-9),
        ("-2s", -2.0),
        ("+2s", 2.0),
        ("0", 0.0),
    ],
)
def test_go_duration(text: str, seconds: float) -> None:
    assert parse_go_duration(text) == pytest.approx(seconds)


MALFORMED = ["", "5", "1x", "s", "--1s", "1s ", " 1s", "1s1", "١s", ".s", "1" * 10**6 + "s", "1s" * 40]


@pytest.mark.parametrize("text", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_duration(text: str) -> None:
    with pytest.raises(WireError, match="--node-lock-timeout: expected a duration"):
        parse_go_duration(text, "--node-lock-timeout")


@pytest.mark.parametrize(
    ("text", "labels"),
    [("", {}), ("gpu=on", {"gpu": "on"}), ("gpu=on, zone = a,", {"gpu": "on", "zone": "a"}), ("gpu=", {"gpu": ""})],
)
def test_label_selector(text: str, labels: dict[str, str]) -> None:
    assert read_label_selector(text) == labels


@pytest.mark.parametrize("text", ["gpu", "=on", "gpu=on,zone", " =on"])
def test_malformed_label_selector(text: str) -> None:
    with pytest.raises(WireError, match="node-label-selector: expected key=value"):
        read_label_selector(text)
