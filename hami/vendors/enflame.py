"""Enflame GCU: whole cards; slices are `enflame_drs`'s."""

from collections.abc import Mapping
from typing import Final

from hami.model.claim import Why
from hami.model.device import Device
from hami.model.names import DeviceUuid, VendorWord
from hami.model.registration import cards_of_capacity
from hami.model.section import named
from hami.model.vendor import NodeFacts, Resources, Rule, SelectKeys, Terms, Vendor
from hami.vendors import enflame_drs


def card(facts: NodeFacts, index: int, count: int) -> Device:
    """A card that is given out whole: 100 of each."""
    uuid = DeviceUuid(f"{facts.name}-GCU-{index}")
    return Device(uuid=uuid, index=index, slots=1, memory_mib=100, cores=100, model="GCU")


def alone(counts: Mapping[Why, int]) -> Mapping[Why, int]:
    """A card's only slot is taken: the family calls that a conflict with exclusive use."""
    return {Why.EXCLUSIVE_CONFLICT if why is Why.SLOTS_EXHAUSTED else why: count for why, count in counts.items()}


GCU: Final = Vendor(
    name=VendorWord("GCU"),
    config_section="enflame",
    resources=Resources(count="enflame.com/gcu"),
    node_key="",
    read=cards_of_capacity(card),
    pending_key="hami.io/enflame-gcu-devices-to-allocate",
    done_key="hami.io/enflame-gcu-devices-allocated",
    select=SelectKeys(uuid_in="enflame.com/use-gpuuuid", uuid_out="enflame.com/nouse-gpuuuid"),
    rules=Rule.CORES_AS_ASKED,
    lock_key="",
    default_count=0,
    default_cores=100,
    reasons=alone,
    terms=Terms(memory_known=False),
)


def configured(section: object) -> tuple[Vendor, ...]:
    """The declarations with a cluster's names."""
    return named(GCU, section, {"count": "resourceNameGCU"}), enflame_drs.configured(section)
