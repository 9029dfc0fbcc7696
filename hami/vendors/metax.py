"""MetaX: whole GPUs, where the node says what it loses by giving some away; sGPUs have a module of their own."""

from collections.abc import Sequence
from typing import Final

from hami.model.device import Device
from hami.model.names import DeviceUuid, VendorWord, WireError
from hami.model.registration import cards_of_capacity
from hami.model.section import named
from hami.model.vendor import Chosen, NodeFacts, Resources, Rule, Spot, Vendor, Wanted
from hami.model.wire import gojson
from hami.vendors import metax_sgpu

LOSSES: Final = "metax-tech.com/gpu.topology.losses"
SCORES: Final = "metax-tech.com/gpu.topology.scores"
MOST: Final = 2000
"""Points of the node score, less what the node's table says."""


def card(facts: NodeFacts, index: int, count: int) -> Device:
    """A card that is given out whole; it carries its node's tables as they are written."""
    tables = tuple((key, facts.annotations[key]) for key in (LOSSES, SCORES) if key in facts.annotations)
    uuid = DeviceUuid(f"{facts.name}-metax-{index}")
    return Device(uuid=uuid, index=index, slots=1, memory_mib=65536, cores=100, model="Metax-GPU", custom=tables)


def choose(spots: Sequence[Spot], order: Sequence[int], wanted: Wanted) -> Chosen:
    """The first cards, because the plug-in takes others anyway; the node ranks by what it says of so many."""
    places = tuple(order[: wanted.need.count])
    text = spots[0].facts.get(SCORES if wanted.spread else LOSSES)
    if text is None or wanted.spread is None or not wanted.first:
        return Chosen(places=places)
    points = float(MOST - _entry(str(text), wanted.of_pod))
    return Chosen(places=places, rank=-points if wanted.spread else points)


def _entry(text: str, count: int) -> int:
    """What a table says of a number of cards; 0 where it says nothing, or cannot be read."""
    try:
        table = {
            key: gojson.integer(value, key, low=-MOST)
            for key, value in gojson.folded(gojson.decode(text, ""), "").items()
        }
    except WireError:
        return 0
    return table.get(str(count), 0)


GPU: Final = Vendor(
    name=VendorWord("Metax-GPU"),
    config_section="metax",
    resources=Resources(count="metax-tech.com/gpu"),
    node_key="",
    read=cards_of_capacity(card),
    pending_key="hami.io/metax-gpu-devices-to-allocate",
    done_key="hami.io/metax-gpu-devices-allocated",
    rules=Rule.SHARED | Rule.CORES_AS_ASKED,
    lock_key="",
    default_count=0,
    default_cores=100,
    choose=choose,
)


def configured(section: object) -> tuple[Vendor, ...]:
    """Both declarations with a cluster's names."""
    return named(GPU, section, {"count": "resourceCountName"}), metax_sgpu.configured(section)
