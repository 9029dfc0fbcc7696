"""Devices as a node reports them: one card a `Device`, one family on one node a `NodeInventory`."""

from dataclasses import dataclass
from typing import Final

from hami.model.host import Host
from hami.model.names import DeviceUuid, NodeName, VendorWord

HAMI_CORE: Final = "hami-core"
"""Operating mode in which a card is shared by software limits; also what an absent mode means."""
MIG: Final = "mig"


@dataclass(frozen=True, slots=True, kw_only=True)
class MigPlacement:
    """A contiguous run of memory slices: `[start, start + size)`."""

    start: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MigProfile:
    """One MIG profile a card offers, with every placement its hardware allows."""

    name: str
    memory_mib: int
    cores: int
    """Percent of the whole card."""
    slice_count: int
    placements: tuple[MigPlacement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One physical card, as registered on its node."""

    uuid: DeviceUuid
    index: int
    """The driver's index."""
    slots: int
    """How many sharers may join."""
    memory_mib: int
    """MiB after the node's memory scaling."""
    cores: int
    """Percent, 100 times the node's core scaling."""
    model: str
    """The product name on the wire (`type`)."""
    numa: int = 0
    mode: str = HAMI_CORE
    healthy: bool = True
    mig_profiles: tuple[MigProfile, ...] = ()
    custom: tuple[tuple[str, str | int | float | bool], ...] = ()
    """What else the plug-in says of it (`custominfo`), sorted by key: groups and links of families that have them."""
    parts: tuple[int, int] = (0, 0)
    """Two further budgets of families that split more than memory and cores (AI cores and AI CPUs)."""

    def fact(self, key: str) -> str | int | float | bool | None:
        """One entry of `custom`."""
        return next((value for name, value in self.custom if name == key), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Pair scores between the cards of one node; higher is closer. Missing pairs score 0."""

    scores: tuple[tuple[DeviceUuid, tuple[tuple[DeviceUuid, int], ...]], ...]

    def score(self, a: DeviceUuid, b: DeviceUuid) -> int:
        for uuid, row in self.scores:
            if uuid == a:
                return dict(row).get(b, 0)
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInventory:
    """The cards of one family on one node, sorted by index then UUID."""

    vendor: VendorWord
    devices: tuple[Device, ...]
    links: Links | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """All that placement needs to know about a node, read from one Node object."""

    name: NodeName
    inventories: tuple[NodeInventory, ...]
    cordoned: frozenset[DeviceUuid] = frozenset()
    """Cards that take no new allocation (`hami.io/device-cordon`)."""
    own_agent: frozenset[VendorWord] = frozenset()
    """Families served by our own agent there (`hami.io/agent-protocol`): no node lock for these."""
    host: Host | None = None
    """What the node offers beside devices; None where it does not say."""
