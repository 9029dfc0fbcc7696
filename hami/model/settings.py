"""Settings as values: the cluster's device configuration, one node's overrides, the scheduler's own.

The shell reads files, flags and environment; here a parsed document becomes a frozen value or a `WireError` that names
the key. Reading is lenient the way HAMi is (unknown keys cost nothing) and kinder: a key in other capitals or under a
name people often write is taken, and one warning says how it is spelled.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal

from hami.model.document import (
    Read,
    integer_between,
    one_of,
    read_flag,
    read_folded,
    read_name,
    read_scaling,
    read_text,
    read_texts,
)
from hami.model.document import parse_go_duration as parse_go_duration
from hami.model.document import read_label_selector as read_label_selector
from hami.model.names import INT32_MAX, DeviceUuid, WireError

SECTIONS: Final = (
    "nvidia",
    "cambricon",
    "hygon",
    "metax",
    "mthreads",
    "iluvatars",
    "enflame",
    "kunlun",
    "awsneuron",
    "amd",
    "vastai",
    "biren",
    "vnpus",
)
"""Top-level keys of the device configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MigAllow:
    """MIG profiles that may be made on models whose name contains one of `models`."""

    models: tuple[str, ...]
    profiles: tuple[str, ...]


def _allow(models: str, profiles: str) -> MigAllow:
    return MigAllow(models=tuple(models.split(", ")), profiles=tuple(profiles.split()))


DEFAULT_MIG_ALLOWLIST: Final = (
    _allow("A30", "1g.6gb 2g.12gb 4g.24gb"),
    _allow("A100-SXM4-40GB, A100-40GB-PCIe, A100-PCIE-40GB", "1g.5gb 2g.10gb 3g.20gb 7g.40gb"),
    _allow("A100-SXM4-80GB, A100-80GB-PCIe, A100-PCIE-80GB", "1g.10gb 2g.20gb 3g.40gb 7g.79gb"),
    _allow("H100-PCIE-80GB, H100-SXM5-80GB", "1g.10gb 2g.20gb 3g.40gb 7g.80gb"),
    _allow("H100-PCIE-94GB, H100-SXM5-94GB", "1g.12gb 2g.24gb 3g.47gb 7g.94gb"),
    _allow("H20, H100 on GH200", "1g.12gb 2g.24gb 3g.48gb 7g.96gb"),
    _allow("H200 NVL, H200-SXM5", "1g.18gb 2g.35gb 3g.71gb 7g.141gb"),
    _allow("B200", "1g.23gb 2g.45gb 3g.90gb 7g.180gb"),
    _allow("RTX PRO 6000 Blackwell Server Edition", "1g.24gb 2g.48gb 4g.96gb"),
)
"""HAMi 2.10's list; the first entry that matches a model counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NvidiaConfig:
    """Section `nvidia`. Defaults are the chart's."""

    resource_count_name: str = "nvidia.com/gpu"
    resource_memory_name: str = "nvidia.com/gpumem"
    resource_memory_percentage_name: str = "nvidia.com/gpumem-percentage"
    resource_core_name: str = "nvidia.com/gpucores"
    resource_priority_name: str = "nvidia.com/priority"
    overwrite_env: bool = False
    """Containers that ask for no device see none."""
    default_memory_mib: int = 0
    """Memory when none is asked, not multiplied by the factor; 0 = the whole card."""
    default_cores: int = 0
    default_gpu_num: int = 1
    """Count added when only memory or cores are asked; 0 = never."""
    memory_factor: int = 1
    """MiB that one unit of requested memory means; at least 1."""
    disable_core_limit: bool = False
    """The node sets core policy `disable`, whatever `gpu_core_policy` says."""
    gpu_core_policy: str = "default"
    """`default`, `force` or `disable`."""
    memory_accounting: str = ""
    """What becomes of contexts and loaded code: `with-overhead`, `requested` or `strict`; empty = containers may
    choose, and those that do not have `with-overhead`."""
    runtime_class_name: str = ""
    """Given to pods that ask for devices and name no runtime class; empty = none."""
    mig_profile_allowlist: tuple[MigAllow, ...] = DEFAULT_MIG_ALLOWLIST
    device_split_count: int = 10
    """Sharers a card."""
    device_memory_scaling: float = 1.0
    device_core_scaling: float = 1.0
    preconfigured_device_memory_mib: int = 0
    """Used only where the driver cannot tell a card's memory."""
    libcuda_log_level: str = "1"
    """Passed to the library as it is."""
    enable_numa_topology: bool = False
    """Whether the kubelet is told each card's NUMA node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceConfig:
    """The whole device configuration."""

    nvidia: NvidiaConfig
    other: Mapping[str, Any] = field(default_factory=dict)
    """Every other family's section, as parsed."""
    sections: frozenset[str] = frozenset()
    """The sections that are there and not empty."""
    warnings: tuple[str, ...] = ()
    """One sentence a key that was read although it is spelled otherwise, or that does nothing here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOverrides:
    """What the per-node configuration says about one node; None keeps the global value."""

    operating_mode: str = ""
    """`hami-core`, `mig`, `mps`; empty = not said."""
    mig_strategy: str = ""
    """What becomes of instances that somebody else made: `none`, `single`, `mixed`; empty = not said."""
    device_memory_scaling: float | None = None
    device_core_scaling: float | None = None
    device_split_count: int | None = None
    preconfigured_device_memory_mib: int | None = None
    libcuda_log_level: str | None = None
    enable_numa_topology: bool | None = None
    hidden_uuids: frozenset[DeviceUuid] = frozenset()
    hidden_indices: frozenset[int] = frozenset()
    """Cards that are not registered, by UUID or by the driver's index."""
    preferred_allocation: bool = False
    sharing: str = "time-slice"
    """`time-slice` or `mps`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerSettings:
    """What the scheduler service is told by flags and environment."""

    scheduler_name: str = ""
    node_policy: str = "binpack"
    card_policy: str = "spread"
    force_overwrite_default_scheduler: bool = True
    node_lock_timeout_s: float = 300.0
    node_lock_retry_timeout_s: float = 28.0
    """How long a gang member waits for a locked node; 0 = not at all."""
    node_label_selector: Mapping[str, str] = field(default_factory=dict)
    """Only nodes with these labels are registered; empty = all."""
    filter_answer: Literal["single", "ranked"] = "single"
    score_request: bool = False
    """Devices rank by their use with the request; False: without it where a model is registered, as HAMi does."""
    hold_timeout_s: float = 300.0
    """How long a decision that is not bound keeps its devices."""
    privileged: Literal["deny", "skip", "allow"] = "deny"
    """What admission does with a privileged container in a pod that asks for devices."""


DEFAULT_DEVICE_CONFIG: Final = DeviceConfig(nvidia=NvidiaConfig(), sections=frozenset(SECTIONS))


def read_device_config(document: object) -> DeviceConfig:
    """The parsed `device-config.yaml`. Raises `WireError` naming the key, also when every section is empty."""
    if not isinstance(document, dict):
        raise WireError("device configuration", "sections by family", document)
    warnings: list[str] = []
    found = _match_keys(document, SECTIONS, "", warnings)
    sections = {name: section for name, section in found.items() if section}
    if not sections:
        raise WireError("device configuration", f"at least one of {', '.join(SECTIONS)}; all configurations are empty")
    return DeviceConfig(
        nvidia=_read_nvidia(sections.get("nvidia", {}), warnings),
        other={name: section for name, section in sections.items() if name != "nvidia"},
        sections=frozenset(sections),
        warnings=tuple(warnings),
    )


def read_node_config(document: object, node_name: str) -> NodeOverrides:
    """The entries of `config.json` for one node, later ones over earlier ones, key by key.

    Keys match in any capitals. A zero number or empty text says nothing, an explicit `false` does. Other nodes' entries
    are not looked at, so that a mistake there stays there. No document, no overrides.
    """
    if document is None:
        return NodeOverrides()
    entries = read_folded(document, "node configuration").get("nodeconfig")
    if entries is None:
        return NodeOverrides()
    if not isinstance(entries, list):
        raise WireError("nodeconfig", "a list", entries)
    values: dict[str, Any] = {}
    for i, raw in enumerate(entries):
        path = f"nodeconfig[{i}]"
        entry = read_folded(raw, path)
        if entry.get("name") != node_name:
            continue
        for key, (attribute, read) in _NODE_KEYS.items():
            if (value := entry.get(key)) in (None, "") or (value == 0 and value is not False):
                continue
            values[attribute] = read(value, f"{path}.{key}")
        if (hidden := entry.get("filterdevices")) is not None:
            values.update(_read_hidden(read_folded(hidden, f"{path}.filterdevices"), f"{path}.filterdevices"))
    return NodeOverrides(**values)


def apply_node_overrides(nvidia: NvidiaConfig, overrides: NodeOverrides) -> NvidiaConfig:
    """The configuration as it holds on one node."""
    shared = {entry.name for entry in fields(NvidiaConfig)} & {entry.name for entry in fields(NodeOverrides)}
    values = {name: value for name in shared if (value := getattr(overrides, name)) is not None}
    return replace(nvidia, **values)


def _core_policy(value: object, path: str) -> str:
    # HAMi writes an empty text where nothing is set.
    return str(one_of("default", "force", "disable")(value or "default", path))


def _accounting(value: object, path: str) -> str:
    # Empty says nothing: the container may choose.
    return str(one_of("with-overhead", "requested", "strict")(value, path)) if value not in (None, "") else ""


def _factor(value: object, path: str) -> int:
    return max(1, int(integer_between(-INT32_MAX, INT32_MAX)(value, path)))


def _allowlist(value: object, path: str) -> tuple[MigAllow, ...]:
    if not isinstance(value, list):
        raise WireError(path, "a list of models and profiles", value)
    return tuple(_read_allow(read_folded(entry, f"{path}[{i}]"), f"{path}[{i}]") for i, entry in enumerate(value))


def _read_allow(entry: Mapping[str, Any], path: str) -> MigAllow:
    profiles = read_texts(entry.get("profiles"), f"{path}.profiles")
    for profile in profiles:
        if "g." not in profile:
            raise WireError(f"{path}.profiles", "profiles such as 1g.10gb", profile)
    return MigAllow(models=read_texts(entry.get("models"), f"{path}.models"), profiles=profiles)


_NVIDIA_KEYS: Final[Mapping[str, tuple[str, Read]]] = {
    "resourceCountName": ("resource_count_name", read_name),
    "resourceMemoryName": ("resource_memory_name", read_name),
    "resourceMemoryPercentageName": ("resource_memory_percentage_name", read_name),
    "resourceCoreName": ("resource_core_name", read_name),
    "resourcePriorityName": ("resource_priority_name", read_name),
    "overwriteEnv": ("overwrite_env", read_flag),
    "defaultMemory": ("default_memory_mib", integer_between(0, INT32_MAX)),
    "defaultCores": ("default_cores", integer_between(0, 100)),
    "defaultGPUNum": ("default_gpu_num", integer_between(0, INT32_MAX)),
    "memoryFactor": ("memory_factor", _factor),
    "disableCoreLimit": ("disable_core_limit", read_flag),
    "gpuCorePolicy": ("gpu_core_policy", _core_policy),
    "memoryAccounting": ("memory_accounting", _accounting),
    "runtimeClassName": ("runtime_class_name", read_text),
    "migProfileAllowlist": ("mig_profile_allowlist", _allowlist),
    "deviceSplitCount": ("device_split_count", integer_between(1, INT32_MAX)),
    "deviceMemoryScaling": ("device_memory_scaling", read_scaling),
    "deviceCoreScaling": ("device_core_scaling", read_scaling),
    "preConfiguredDeviceMemory": ("preconfigured_device_memory_mib", integer_between(0, INT32_MAX)),
    "libCudaLogLevel": ("libcuda_log_level", read_text),
    "enableNumaTopology": ("enable_numa_topology", read_flag),
}

_OTHER_NAMES: Final = {"defaultmem": "defaultMemory"}
"""Names that people write for a key, in lower case."""

_WITHOUT_EFFECT: Final = {
    "migstrategy": "it is the node plug-in's flag --mig-strategy",
    "knownmiggeometries": "the key since 2.10 is migProfileAllowlist",
}

_NODE_KEYS: Final[Mapping[str, tuple[str, Read]]] = {
    "operatingmode": ("operating_mode", one_of("hami-core", "mig", "mps")),
    "migstrategy": ("mig_strategy", one_of("none", "single", "mixed")),
    "devicememoryscaling": ("device_memory_scaling", read_scaling),
    "devicecorescaling": ("device_core_scaling", read_scaling),
    "devicesplitcount": ("device_split_count", integer_between(1, INT32_MAX)),
    "preconfigureddevicememory": ("preconfigured_device_memory_mib", integer_between(1, INT32_MAX)),
    "libcudaloglevel": ("libcuda_log_level", read_text),
    "enablenumatopology": ("enable_numa_topology", read_flag),
    "enablegetpreferredallocation": ("preferred_allocation", read_flag),
    "sharing": ("sharing", one_of("time-slice", "mps")),
}


def _match_keys(section: Mapping[Any, Any], known: Iterable[str], path: str, warnings: list[str]) -> dict[str, Any]:
    """The section's values under the right spelling of their keys; a rightly spelled key wins over its variants."""
    by_folded = {key.lower(): key for key in known} | (_OTHER_NAMES if path else {})
    right = {key: section[key] for key in by_folded.values() if key in section}
    for written in section:
        if written in right:
            continue
        folded = str(written).lower()
        shown = f"{path}{str(written)[:80]}"
        if (key := by_folded.get(folded)) is not None:
            warnings.append(f"{shown}: the key is spelled {key}")
            right.setdefault(key, section[written])
        elif path and folded in _WITHOUT_EFFECT:
            warnings.append(f"{shown} has no effect here: {_WITHOUT_EFFECT[folded]}")
        else:
            close = difflib.get_close_matches(folded[:80], by_folded, n=1)
            meant = f"; did you mean {by_folded[close[0]]}?" if close else ""
            warnings.append(f"{shown}: unknown key, ignored{meant}")
    return right


def _read_nvidia(section: object, warnings: list[str]) -> NvidiaConfig:
    if not isinstance(section, dict):
        raise WireError("nvidia", "keys and values", section)
    values: dict[str, Any] = {}
    for key, value in _match_keys(section, _NVIDIA_KEYS, "nvidia.", warnings).items():
        if value is not None:
            attribute, read = _NVIDIA_KEYS[key]
            values[attribute] = read(value, f"nvidia.{key}")
    config = NvidiaConfig(**values)
    _check_names(config)
    return config


def _check_names(config: NvidiaConfig) -> None:
    if not config.resource_count_name:
        raise WireError("nvidia.resourceCountName", "a resource name", "")
    seen: set[str] = set()
    for key, (attribute, read) in _NVIDIA_KEYS.items():
        if read is not read_name or not (name := getattr(config, attribute)):
            continue
        if name in seen:
            raise WireError(f"nvidia.{key}", "a name that no other resource has", name)
        seen.add(name)


def _read_hidden(entry: Mapping[str, Any], path: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if uuids := entry.get("uuid"):
        values["hidden_uuids"] = frozenset(map(DeviceUuid, read_texts(uuids, f"{path}.uuid")))
    if indices := entry.get("index"):
        if not isinstance(indices, list):
            raise WireError(f"{path}.index", "a list of the driver's indices", indices)
        read = integer_between(0, INT32_MAX)
        values["hidden_indices"] = frozenset(read(index, f"{path}.index[{i}]") for i, index in enumerate(indices))
    return values
