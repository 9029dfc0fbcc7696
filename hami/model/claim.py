"""What is asked, what is given, and why not.

`PodRequest` is read from a pod once; the engine answers `Placed` or `Refused`; a bound pod becomes a `PodRecord` in the
ledger. Refusals are values, never exceptions.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hami.model.device import MigPlacement
from hami.model.host import NO_HOST, Host
from hami.model.names import DeviceUuid, NodeName, PodKey, PodUid, VendorWord


@dataclass(frozen=True, slots=True)
class Mib:
    """An amount of device memory in MiB, per device."""

    amount: int

    def of(self, device_mib: int) -> int:
        """MiB on a device of `device_mib`: the amount itself."""
        return self.amount


@dataclass(frozen=True, slots=True)
class Percent:
    """A share of a device's memory, resolved against the device it lands on."""

    amount: int

    def of(self, device_mib: int) -> int:
        """MiB on a device of `device_mib`, rounded down, but never 0: the library reads 0 as *no limit*."""
        return max(1, device_mib * self.amount // 100)


Memory = Mib | Percent


class Role(enum.Enum):
    """How a container's share counts while its pod runs (spec: scheduling 3.4)."""

    INIT = "init"
    SIDECAR = "sidecar"
    APP = "app"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One family's request of one container: `count` distinct devices with the same share of each."""

    vendor: VendorWord
    count: int
    memory: Memory
    cores: int
    """Of one device, in the family's unit: percent, 0..100, unless it says otherwise. 0 reserves none."""
    slots: int = 1
    """Sharers that each device is taken by."""
    parts: tuple[int, int] = (0, 0)
    """Of each device's two further budgets (`Device.parts`)."""
    full_cores: int = 0
    """What counts as all cores of a device; 0 = what it is registered with."""
    leaves: int = 0
    """Marks that a share leaves on its device: the family's own bits for classes of work and ways of sharing."""
    no_class: int = 0
    """Not beside shares with one of these marks: classes of work that do not go together."""
    no_qos: int = 0
    """Nor with these: ways of sharing that do not go together."""
    pulled: bool = False
    """Devices, and by them nodes, rank by the family's own preference first (`Vendor.stand`)."""
    apart: bool = False
    """Any devices serve: the family is not asked which ones go together (`Vendor.choose`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerNeed:
    """One container, whether it asks for devices or not: its position is its segment on the wire."""

    name: str
    role: Role
    needs: tuple[Need, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which of a family's devices a pod accepts, from its annotations. Empty means no constraint."""

    type_in: tuple[str, ...] = ()
    """Case-insensitive substrings of the model."""
    type_out: tuple[str, ...] = ()
    uuid_in: frozenset[DeviceUuid] = frozenset()
    uuid_out: frozenset[DeviceUuid] = frozenset()
    mode: str | None = None
    """`nvidia.com/vgpu-mode` as written; a card fits when its mode is contained in it."""
    numa_bind: bool = False
    """All cards of a container on one NUMA node."""
    link_bind: bool = False
    """All cards of a container joined to each other by fast links."""


ANY_DEVICE = Selection()


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRequest:
    """A pod's request, read once; `containers` are init containers first, then app containers, in spec order."""

    uid: PodUid
    key: PodKey
    containers: tuple[ContainerNeed, ...]
    selections: Mapping[VendorWord, Selection] = field(default_factory=dict)
    node_policy: str | None = None
    """As the annotation says, trimmed; None = use the scheduler's flag."""
    card_policy: str | None = None
    weights: tuple[int, int, int] = (1, 1, 1)
    """Card score weights: slot, core, memory."""
    host: Host = NO_HOST
    """What the pod takes of its node beside devices."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """The pod's annotations, for what a family's plug-in is told."""

    @property
    def vendors(self) -> frozenset[VendorWord]:
        return frozenset(need.vendor for container in self.containers for need in container.needs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One container's part of one device."""

    uuid: DeviceUuid
    kind: str
    """The wire's type field: the vendor word, for AMD the model."""
    memory_mib: int
    cores: int
    slots: int = 1
    """Not in the text, like what follows: as the need said, or as the family recalls it."""
    parts: tuple[int, int] = (0, 0)
    leaves: int = 0
    units: int = 0
    """Which single units of the device, one bit each; 0 = the family does not say. The text names them instead of their
    number."""


Segments = tuple[tuple[Share, ...], ...]
"""One tuple a container (init first, then app), empty where the container has none of this family."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MigInstance:
    """The ids of an instance that exists."""

    uuid: str
    gpu_instance: int
    compute_instance: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MigReservation:
    """One instance of one container on a card in MIG mode, decided, and perhaps already made."""

    container: int
    """Position in the pod, init containers first."""
    device: int
    """Position among the container's devices."""
    uuid: DeviceUuid
    """The card's."""
    profile: str
    placement: MigPlacement
    instance: MigInstance | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Everything one pod got on one node: by family, exactly one segment a container."""

    node: NodeName
    segments: Mapping[VendorWord, Segments]
    reservations: tuple[MigReservation, ...] = ()
    """One for every share that lies on a card in MIG mode."""


class Why(enum.IntEnum):
    """Why a device (or a node) does not serve a request; `word` is the wire's reason word.

    The numbers are the engine's counter indices (`_ask.pxd` repeats them, a test compares).
    """

    UNHEALTHY = 0
    CORDONED = 1
    TYPE_MISMATCH = 2
    NUMA_NOT_FIT = 3
    LINKS_NOT_FIT = 4
    UUID_MISMATCH = 5
    SLOTS_EXHAUSTED = 6
    EXCLUSIVE_CONFLICT = 7
    QUOTA = 8
    NO_MEMORY = 9
    NO_CORES = 10
    CORES_EXHAUSTED = 11
    MIG_INFEASIBLE = 12
    TOO_FEW_PICKED = 13
    TOO_FEW_DEVICES = 14
    UNREGISTERED = 15
    INVALID_REQUEST = 16
    MODE_NOT_FIT = 17
    CARD_UNHEALTHY = 18
    """What one family calls `UNHEALTHY`."""
    CLASS_MISMATCH = 19
    QOS_MISMATCH = 20

    @property
    def word(self) -> str:
        return _WORDS[self]


_WORDS: Mapping[Why, str] = {
    Why.UNHEALTHY: "CardNotHealth",
    Why.CORDONED: "CardCordoned",
    Why.TYPE_MISMATCH: "CardTypeMismatch",
    Why.NUMA_NOT_FIT: "NumaNotFit",
    Why.LINKS_NOT_FIT: "LinksNotFit",
    Why.UUID_MISMATCH: "CardUuidMismatch",
    Why.SLOTS_EXHAUSTED: "CardTimeSlicingExhausted",
    Why.EXCLUSIVE_CONFLICT: "ExclusiveDeviceAllocateConflict",
    Why.QUOTA: "ResourceQuotaNotFit",
    Why.NO_MEMORY: "CardInsufficientMemory",
    Why.NO_CORES: "CardInsufficientCore",
    Why.CORES_EXHAUSTED: "CardComputeUnitsExhausted",
    Why.MIG_INFEASIBLE: "CardMigTopologyInfeasible",
    Why.TOO_FEW_PICKED: "AllocatedCardsInsufficientRequest",
    Why.TOO_FEW_DEVICES: "NodeInsufficientDevice",
    Why.UNREGISTERED: "node unregistered",
    Why.INVALID_REQUEST: "InvalidDeviceRequest",
    Why.MODE_NOT_FIT: "ModeNotFit",
    Why.CARD_UNHEALTHY: "CardUnhealthy",
    Why.CLASS_MISMATCH: "CardAppClassMismatch",
    Why.QOS_MISMATCH: "CardQosPolicyMismatch",
}


_OF_NODES = frozenset({Why.TOO_FEW_DEVICES, Why.UNREGISTERED, Why.INVALID_REQUEST})
"""Reasons that are not counted by device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRefusal:
    """Why one node does not serve a pod: device counts by reason, out of `devices` cards of the family."""

    counts: Mapping[Why, int]
    devices: int = 0
    largest_free_mib: int = 0
    """Free memory of the emptiest usable card, for people."""
    largest_free_cores: int | None = None
    """The most compute that a card has left which is short of it, in the family's unit; None = no card is."""
    largest_free_parts: tuple[int | None, int | None] = (None, None)
    """The same of its two further budgets."""
    vendor: VendorWord | None = None
    """The family that was asked for what is not there; None = the node has none."""

    @property
    def text(self) -> str:
        """The wire's reason text: `1/2 CardInsufficientMemory, 1/2 CardTypeMismatch`, or the bare word."""
        if not self.devices or not _OF_NODES.isdisjoint(self.counts):
            return ", ".join(sorted(why.word for why in self.counts))
        return ", ".join(sorted(f"{count}/{self.devices} {why.word}" for why, count in self.counts.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The pod fits: the assignment, and every fitting node's score in the order the policy ranks them, best first."""

    assignment: Assignment
    scores: Sequence[tuple[NodeName, float]]
    refusals: Mapping[NodeName, NodeRefusal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """No candidate serves the pod; one entry a candidate."""

    refusals: Mapping[NodeName, NodeRefusal]


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRecord:
    """What a pod holds, as its done annotations say, and how it counts now (spec: scheduling 3.4)."""

    uid: PodUid
    key: PodKey
    node: NodeName
    roles: tuple[Role, ...]
    """One a segment: init containers first, then app containers."""
    segments: Mapping[VendorWord, Segments]
    reservations: tuple[MigReservation, ...] = ()
    """What it holds of cards in MIG mode; `container` counts as `segments` do."""
    old_instances: frozenset[DeviceUuid] = frozenset()
    """Cards on which it holds an instance of a release that named no slices."""
    inits_done: bool = False
    """Every plain init container ended with code 0: only sidecars and app containers count."""
    deleting: bool = False
    movable: bool = False
    """Its author allows that it is ended to make room (`hami.io/allow-move`)."""
    host: Host = NO_HOST
    """What the pod takes of its node beside devices."""
