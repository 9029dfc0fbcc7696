"""The declaration of a device family, and the registry a configuration makes of several.

A declaration says what differs between families and nothing else (spec: devices 19). Importing one changes nothing.
"""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hami.model.names import VendorWord


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The resource names a pod writes; configurable by the cluster's device configuration."""

    count: str
    memory: str = ""
    memory_percentage: str = ""
    cores: str = ""
    priority: str = ""

    def names(self) -> tuple[str, ...]:
        """Every configured name, in declaration order."""
        return tuple(n for n in (self.count, self.memory, self.memory_percentage, self.cores, self.priority) if n)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectKeys:
    """Pod annotation keys by which people choose devices; empty = the family has no such key."""

    type_in: str = ""
    type_out: str = ""
    uuid_in: str = ""
    uuid_out: str = ""
    mode: str = ""
    numa_bind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Env:
    """Names of the environment variables that tell a family's containers; empty = the family has no such variable."""

    priority: str = ""
    """Task priority: 0 high, 1 low."""
    core_policy: str = ""
    """When the compute limit acts: `default`, `force`, `disable`."""
    visible: str = ""
    """Which devices the container sees."""
    memory_limit: str = ""
    """With `{i}` for the device's position in the container; the value is `<MiB>m`."""
    core_limit: str = ""
    """Percent of the first device; with `_<i>` appended, of the others."""


class Rule(enum.Flag):
    """How the engine treats a family's devices."""

    NONE = 0
    SHARED = enum.auto()
    """Several containers may hold one device."""
    FULL_CORES_IS_EXCLUSIVE = enum.auto()
    """A request for all of a device's cores means alone on it."""
    MIG = enum.auto()
    """Devices may be cut into hardware instances."""
    WHOLE_IS_EXCLUSIVE = enum.auto()
    """A container that asks for whole devices and names no cores gets all cores, and so each device alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """One device family."""

    name: VendorWord
    config_section: str
    resources: Resources
    node_key: str
    """Node annotation of the inventory."""
    pending_key: str
    """Pod annotation a foreign plug-in consumes (`...-to-allocate`); empty = none is written."""
    done_key: str
    """Pod annotation of the final allocation."""
    handshake_key: str = ""
    link_key: str = ""
    """Node annotation of pair scores."""
    select: SelectKeys = field(default_factory=SelectKeys)
    env: Env = field(default_factory=Env)
    rules: Rule = Rule.SHARED
    node_lock: bool = True
    """Foreign plug-ins of this family rely on the node lock."""
    # Defaults below come from the family's configuration section.
    default_memory_mib: int = 0
    """Memory when none is asked; 0 = the whole card."""
    default_cores: int = 0
    default_count: int = 1
    """Count added at admission when only memory or cores are asked; 0 = never."""
    memory_factor: int = 1
    core_policy: str = "default"
    runtime_class: str = ""
    hide_unrequested: bool = False
    """`overwriteEnv`: containers that ask for no device see none."""


class Registry:
    """The families a cluster uses, by vendor word, in declaration order."""

    __slots__ = ("_by_name",)

    def __init__(self, vendors: tuple[Vendor, ...]) -> None:
        self._by_name: Mapping[VendorWord, Vendor] = {vendor.name: vendor for vendor in vendors}
        if len(self._by_name) != len(vendors):
            raise ValueError("vendor words repeat")

    def __iter__(self) -> Iterator[Vendor]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __getitem__(self, name: VendorWord) -> Vendor:
        return self._by_name[name]

    def get(self, name: str) -> Vendor | None:
        return self._by_name.get(VendorWord(name))
