"""Biren: slots of cards; neither memory nor compute is split by the scheduler."""

from dataclasses import replace
from typing import Final

from hami.model.claim import Mib, Need
from hami.model.container import Container
from hami.model.device import Device
from hami.model.names import VendorWord, WireError
from hami.model.registration import registered
from hami.model.section import USUAL, named
from hami.model.vendor import NodeFacts, Notes, Resources, SelectKeys, Vendor


def slot_only(need: Need, container: Container, notes: Notes, vendor: Vendor) -> Need:
    """A slot of each card, and nothing of its memory or cores."""
    return replace(need, memory=Mib(0), cores=0)


def read(facts: NodeFacts, vendor: Vendor, problems: list[WireError]) -> tuple[Device, ...] | None:
    """The registered cards; whatever cores they name, all of a card is 100."""
    devices = registered(facts, vendor, problems)
    return devices and tuple(replace(device, cores=100) for device in devices)


BIREN: Final = Vendor(
    name=VendorWord("Biren"),
    config_section="biren",
    resources=Resources(count="birentech.com/gpu"),
    node_key="hami.io/node-biren-register",
    pending_key="hami.io/Biren-devices-to-allocate",
    done_key="hami.io/Biren-devices-allocated",
    handshake_key="hami.io/node-handshake-biren",
    select=SelectKeys(uuid_in="birentech.com/use-gpuuuid", uuid_out="birentech.com/nouse-gpuuuid"),
    default_count=0,
    read=read,
    refine=slot_only,
)


def configured(section: object) -> tuple[Vendor, ...]:
    """The declaration with a cluster's names."""
    return (named(BIREN, section, {"count": USUAL["count"]}),)
