"""The declaration of a device family, and the registry a configuration makes of several.

A declaration says what differs between families and nothing else. Most families are words and rules only. Where the
hardware has its own geometry or its plug-in its own language, the declaration names a pure function: `read` (what a
node has), `shape` (what admission fills in), `refine` (what a request means), `choose` (which devices go together),
`recall` (what a bound pod's shares cost), `dress` (what the plug-in reads). Importing a declaration changes nothing.
"""

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hami.model.claim import Need, Role, Segments, Share, Why
from hami.model.container import Container
from hami.model.device import Device
from hami.model.names import DeviceUuid, NodeName, VendorWord, WireError


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The resource names a pod writes; configurable by the cluster's device configuration."""

    count: str
    memory: str = ""
    memory_percentage: str = ""
    cores: str = ""
    priority: str = ""
    also: tuple[str, ...] = ()
    """Others that ask for devices without the count, in limits or requests; the family's `ask` reads them."""

    def names(self) -> tuple[str, ...]:
        """Every configured name, in declaration order."""
        own = (self.count, self.memory, self.memory_percentage, self.cores, self.priority)
        return tuple(dict.fromkeys(name for name in (*own, *self.also) if name))


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectKeys:
    """Pod annotation keys by which people choose devices; empty = the family has no such key."""

    type_in: str = ""
    type_out: str = ""
    uuid_in: str = ""
    uuid_out: str = ""
    also_in: str = ""
    """A second pair of the same; a device must agree with both."""
    also_out: str = ""
    mode: str = ""
    mode_words: frozenset[str] = frozenset()
    """The only words of `mode` that are looked at; empty = every text."""
    numa_bind: str = "nvidia.com/numa-bind"
    """All of a container's devices on one NUMA node; the first family's key serves all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Env:
    """Names of the environment variables that tell a family's containers; empty = the family has no such variable."""

    priority: str = ""
    """Task priority: 0 high, 1 low."""
    core_policy: str = ""
    """When the compute limit acts: `default`, `force`, `disable`."""
    visible: str = ""
    """Which devices the container sees."""
    hidden: str = "none"
    """The value of `visible` for a container that is to see no device."""
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
    CORES_AS_ASKED = enum.auto()
    """A request for 100 needs a device that has 100; without it, 100 is all that the device has."""
    CORES_IN_UNITS = enum.auto()
    """Cores are asked in units of the device: more than 100 of them may be meant."""
    CORES_OF_DEVICE = enum.auto()
    """Cores are asked in percent and booked in the units that the device is registered with, at least one."""
    KIND_IS_MODEL = enum.auto()
    """The allocation text names the device's model instead of the family."""
    LIMITS_ONLY = enum.auto()
    """Requests without limits ask for nothing."""
    MEMORY_MAY_BE_UNKNOWN = enum.auto()
    """A device registered without memory is not one without room: its share of the memory is 0."""
    COUNT_IMPLIED = enum.auto()
    """Memory or cores without a count mean one device, also where admission was not asked."""
    NEAR = enum.auto()
    """A device that a container of the pod has already is preferred for the next one."""
    CHOOSES_FOR_SEVERAL = enum.auto()
    """`choose` is about containers of one pod: a single one may have any device."""
    MODE_OF_NODE = enum.auto()
    """A device's mode is its node's: a pod that needs another one is told so once a node."""


Notes = Mapping[str, str]
"""Annotations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a node says about itself, as far as families read it."""

    name: NodeName
    annotations: Notes
    labels: Mapping[str, str]
    capacity: Mapping[str, Any]
    """`status.capacity`: quantities by resource name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaped:
    """What admission fills in for one container that asks for a family."""

    limits: Mapping[str, int] = field(default_factory=dict)
    """Amounts by resource; a request that is there follows its limit."""
    requests_too: frozenset[str] = frozenset()
    """Those of them that also become requests where there are none."""
    env: Mapping[str, str] = field(default_factory=dict)
    annotations: Notes = field(default_factory=dict)
    """On the pod."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """One device of a family on one node while devices are chosen: what its place in the node depends on."""

    index: int
    """The driver's."""
    facts: Mapping[str, str | int | float | bool]
    """What the plug-in says of it beside the common fields (`Device.custom`)."""
    idle: bool
    """Nobody holds it."""
    own: bool = False
    """A container of the pod has it, or an init container had it; then it is idle again, unless others hold it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One need for which devices are chosen, and the policies that bear on the choice."""

    need: Need
    of_pod: int = 1
    """Devices of the family that all containers of the pod want together."""
    first: bool = True
    """No container of the pod before this one wants any: what is to count once a pod counts here."""
    later: tuple[int, ...] = ()
    """Devices that each container after this one wants which runs beside it: what is left should serve them, too."""
    most: int = 1
    """Devices of the family that the container of the pod wants which wants most."""
    mutex: bool = False
    """Only devices nobody uses."""
    spread: bool | None = False
    """Nodes are ranked emptiest first; None = by another word than `binpack` or `spread`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Devices for one need: positions among the spots, in the order in which the allocation names them."""

    places: tuple[int, ...]
    rank: float = 0.0
    """What the choice adds to its node's rank, in points of the node score; more is better under every policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A decision, for what a family's plug-in is told of it."""

    node: NodeName
    segments: Segments
    containers: tuple[str, ...]
    """Names, one a segment."""
    devices: Mapping[DeviceUuid, Device]
    """Those of the family on the node."""
    notes: Notes
    """The pod's annotations."""
    now_unix: int


Read = Callable[[NodeFacts, "Vendor", list[WireError]], tuple[Device, ...] | None]
"""A node's devices, None when it has none of the family; `WireError` for what cannot be read at all, and the list is
told of single devices that cannot."""
Shape = Callable[[Container, Notes, "Vendor"], Shaped]
"""The container names the family's count. Raises `ShapeError` for what the family never serves."""
Ask = Callable[[Container, Notes, "Vendor"], Need | None]
"""What a container that names the count, or one of `Resources.also`, asks; instead of the common reading."""
Refine = Callable[[Need, Container, Notes, "Vendor"], Need]
"""What a request means on this family's devices; `RequestError` for what it never serves."""
Measure = Callable[[Need, str], Need | None]
"""What a need comes to on devices of a mode (`Device.mode`), of families whose nodes differ in what a request means.
None where such nodes never serve it. All devices of a node are of one mode."""
Together = Callable[[Sequence[tuple[Container, Need]], "Vendor"], None]
"""Refuses (`RequestError`) what containers of one pod may not ask beside each other."""
Choose = Callable[[Sequence[Spot], Sequence[int], Wanted], Chosen | None]
"""Devices for a need: all spots of the node by index, the positions of those that pass every check in the order in
which the card policy prefers them, and what is wanted. None where the passing ones cannot go together."""
Recall = Callable[[Segments, Notes, "Vendor"], Segments]
"""A bound pod's shares, completed by what the allocation text does not say."""
Stand = Callable[[Device, Sequence[Share]], tuple[int, int]]
"""How a device stands with the shares on it: the marks they leave, and how far it is preferred (`Need.pulled`)."""
Settle = Callable[
    [Segments, Sequence[Role], Mapping[DeviceUuid, Device], Mapping[DeviceUuid, Sequence[Share]]], Segments
]
"""A decision, completed by which units of a device it takes: its segments, what each container is, the devices, and the
shares that are on them already."""
Reasons = Callable[[Mapping[Why, int]], Mapping[Why, int]]
"""A node's refusal in the family's own words: counts by reason."""
Dress = Callable[[Outcome, "Vendor"], Mapping[str, str]]
"""Annotations for the family's plug-in, beside the allocation text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What people read about a family; no plug-in does."""

    parts: tuple[str, str] = ("", "")
    """What `Device.parts` count, in the plural; empty = the family has no such budget."""
    apart: str = ""
    """What is the matter with a node where `choose` finds nothing: `without linked devices`."""
    memory_known: bool = True
    """False: a device is registered with a figure that is no amount of memory."""
    asked: Callable[[Need], str] | None = None
    """What a need asks, where its node says what the figures mean (`Vendor.measure`); empty = as it is."""


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
    lock_key: str = "hami.io/mutex.lock"
    """Node annotation of the lock that foreign plug-ins of this family rely on; empty = none."""
    read: Read | None = None
    """None: the inventory annotation in one of its two forms."""
    shape: Shape | None = None
    ask: Ask | None = None
    refine: Refine | None = None
    measure: Measure | None = None
    together: Together | None = None
    choose: Choose | None = None
    """None: the first devices in the order of the card policy."""
    misfit: Why = Why.NUMA_NOT_FIT
    """The reason where `choose` finds nothing among enough devices: `NUMA_NOT_FIT` counts once a node, another one by
    device."""
    misfit_alone: Why | None = None
    """The same where only devices are wanted that nobody uses, if it is another."""
    stand: Stand | None = None
    settle: Settle | None = None
    recall: Recall | None = None
    reasons: Reasons | None = None
    dress: Dress | None = None
    terms: Terms = field(default_factory=Terms)
    dress_keys: tuple[str, ...] = ()
    """Every key that `dress` may write: nobody else writes them, and an earlier attempt's are removed."""
    # Defaults below come from the family's configuration section.
    default_memory_mib: int = 0
    """Memory when none is asked; 0 = the whole card."""
    default_cores: int = 0
    default_count: int = 1
    """Count added at admission when only memory or cores are asked; 0 = never."""
    memory_factor: int = 1
    """MiB that one unit of requested memory means."""
    bytes_from: int = 0
    """An amount of memory from here on is one of bytes; 0 = none is."""
    takes_factor: bool = False
    """The configuration may set the factor."""
    core_policy: str = "default"
    runtime_class: str = ""
    hide_unrequested: bool = False
    """`overwriteEnv`: containers that ask for no device see none."""

    def written_keys(self) -> tuple[str, ...]:
        """Every annotation that a binding may carry for this family."""
        return tuple(key for key in (self.pending_key, self.done_key, *self.dress_keys) if key)


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


class ShapeError(Exception):
    """Admission refuses a container; the text is the family's own, `field` the place."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{text} ({field})")
        self.field = field
