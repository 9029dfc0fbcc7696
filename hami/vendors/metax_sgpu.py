"""MetaX sGPU: shares with a class of work and a way of sharing, and whole cards that stay in one zone of links."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from hami.model.claim import Memory, Mib, Need, Percent, Role, Segments, Share, Why
from hami.model.container import Container, RequestError, amount, integer
from hami.model.device import Device
from hami.model.document import read_flag
from hami.model.groups import dealt
from hami.model.names import INT32_MAX, DeviceUuid, VendorWord, WireError
from hami.model.section import named, read_keys
from hami.model.vendor import (
    Chosen,
    NodeFacts,
    Notes,
    Outcome,
    Resources,
    Rule,
    SelectKeys,
    Shaped,
    ShapeError,
    Spot,
    Vendor,
    Wanted,
)
from hami.model.wire import gojson
from hami.model.wire.node import LOWEST_NUMA, read_listed, read_uuid

NODE: Final = "metax-tech.com/node-gpu-devices"
QOS: Final = "metax-tech.com/sgpu-qos-policy"
CLASS: Final = "metax-tech.com/sgpu-app-class"
AWARE: Final = "metax-tech.com/sgpu-topology-aware"
ALLOCATED: Final = "metax-tech.com/gpu-devices-allocated"
TIME: Final = "metax-tech.com/predicate-time"
KEYS: Final = {"count": "resourceVCountName", "memory": "resourceVMemoryName", "cores": "resourceVCoreName"}

ONLINE, OFFLINE, UNCLASSED = 1, 2, 4
"""Marks: classes of work."""
WAYS: Final = {"best-effort": 8, "fixed-share": 16, "burst-share": 32}
"""Marks: ways of sharing."""
AGAIN: Final = 64
"""Mark: the pod has the card already, and counts once."""
RANKED: Final = 128
"""Mark: nodes rank by the links that a choice keeps."""
YES: Final = ("1", "t", "T", "true", "TRUE", "True")
NO: Final = ("0", "f", "F", "false", "FALSE", "False")
LIMITS: Final = ("limits",)
GIB, MIB = 1024, 1 << 20


def read(facts: NodeFacts, vendor: Vendor, problems: list[WireError]) -> tuple[Device, ...] | None:
    """The cards as the plug-in lists them; a card's index is its place in the list."""
    text = facts.annotations.get(NODE)
    return None if text is None else read_listed(text, f"metadata.annotations[{NODE}]", card, problems)


def card(said: gojson.Object, field: str, index: int) -> Device:
    """One entry of the list."""

    def number(key: str, low: int = 0) -> int:
        return gojson.integer(said.get(key.lower()), f"{field}.{key}", low=low)

    custom = (
        ("LinkZone", number("linkZone", -1)),
        ("Model", gojson.text_of(said.get("model"), f"{field}.model")),
        ("QosPolicy", gojson.text_of(said.get("qospolicy"), f"{field}.qosPolicy")),
    )
    return Device(
        uuid=read_uuid(said.get("uuid"), f"{field}.uuid"),
        index=index,
        slots=number("totalDevCount"),
        memory_mib=number("totalVRam"),
        cores=number("totalCompute"),
        model="Metax-SGPU",
        numa=number("numa", LOWEST_NUMA),
        healthy=gojson.boolean(said.get("healthy"), f"{field}.healthy"),
        custom=custom,
    )


def agree(container: Container, notes: Notes, vendor: Vendor) -> Shaped:
    """The pod's class and way of sharing; who names no way takes what is left."""
    kind, way = notes.get(CLASS), notes.get(QOS)
    if kind and kind not in ("online", "offline"):
        raise ShapeError(f"metadata.annotations[{CLASS}]", f"{CLASS} must be set one of [online, offline]")
    if kind and integer(container, vendor.resources.count, low=1, kinds=LIMITS) != 1:
        field = f"{container.path}.resources.limits[{vendor.resources.count}]"
        raise ShapeError(field, f"{vendor.resources.count} must be 1 where {CLASS} is set")
    if kind == "online" or way in WAYS:
        return Shaped()
    if way:
        raise ShapeError(f"metadata.annotations[{QOS}]", f"{QOS} must be set one of [{', '.join(WAYS)}]")
    return Shaped(annotations={QOS: "best-effort"})


def ask(container: Container, notes: Notes, vendor: Vendor, *, aware: bool = False) -> Need | None:
    """A share of each card. Work online takes no cores and stands beside work of a class only; work offline beside its
    own; other work beside none with a class, and beside its own way of sharing."""
    names = vendor.resources
    count = integer(container, names.count, low=1, high=INT32_MAX, kinds=LIMITS)
    if count is None:
        return None
    cores = integer(container, names.cores, low=0, high=INT32_MAX, kinds=LIMITS)
    whole = cores is None or cores == 100
    need = Need(
        vendor=vendor.name,
        count=count,
        memory=_memory(container, vendor),
        cores=100 if cores is None else cores,
        leaves=_marks(notes, whole),
    )
    if need.leaves & ONLINE:
        # Nor do cores that are all given away keep it out.
        return replace(need, cores=0, full_cores=INT32_MAX, no_class=UNCLASSED, pulled=True, apart=True)
    word = notes.get(AWARE, "")
    ranked = word in YES or (aware and word not in NO)
    return replace(
        need,
        leaves=need.leaves | RANKED * (ranked and whole),
        no_class=UNCLASSED | ONLINE if need.leaves & OFFLINE else ONLINE | OFFLINE,
        no_qos=0 if whole else sum(WAYS.values()) & ~need.leaves,
        apart=not whole,
    )


def _memory(container: Container, vendor: Vendor) -> Memory:
    """GiB where it is a bare number, else by its unit; nothing is all of a card. `1k` is how 1000 is stored."""
    found = amount(container, vendor.resources.memory, LIMITS)
    if found is None or found[0] == 0:
        return Percent(100)
    value, path = found
    text = str(container.document["resources"]["limits"][vendor.resources.memory])
    in_bytes = text[-1:].isalpha() and value >= vendor.bytes_from
    mib = int(value / MIB) if in_bytes else int(value * GIB)
    if not 0 < mib <= INT32_MAX or (text.endswith("i") and not in_bytes):
        raise RequestError(path, f"GiB, or at least 1Mi with a unit; at most {INT32_MAX} MiB", text)
    return Mib(mib)


def _marks(notes: Notes, whole: bool) -> int:
    """What a share leaves on its card. Alone on a card, its way of sharing does not matter."""
    kind = {"online": ONLINE, "offline": OFFLINE}.get(notes.get(CLASS, ""), UNCLASSED)
    return kind if whole or kind == ONLINE else kind | WAYS.get(notes.get(QOS, ""), 0)


def stand(device: Device, shares: Sequence[Share]) -> tuple[int, int]:
    """The marks on a card, and what online work thinks of it: idle is best, offline work alone is worst."""
    marks = 0
    for share in shares:
        marks |= share.leaves
    if shares and not marks & sum(WAYS.values()):
        marks |= WAYS.get(str(device.fact("QosPolicy")), 0)
    online, offline = (sum(share.leaves & (kind | AGAIN) == kind for share in shares) for kind in (ONLINE, OFFLINE))
    return marks, -100 * offline if offline and not online else -20 * online - 2 * offline


def recall(segments: Segments, notes: Notes, vendor: Vendor) -> Segments:
    """A bound pod's marks, from its annotations."""
    marked = tuple(
        tuple(replace(share, leaves=_marks(notes, share.cores == 100)) for share in segment) for segment in segments
    )
    return once(marked)


def once(segments: Segments) -> Segments:
    """Of a pod's shares of one card only the first counts as a pod."""
    seen: set[DeviceUuid] = set()
    found: list[tuple[Share, ...]] = []
    for segment in segments:
        counted: list[Share] = []
        for share in segment:
            counted.append(replace(share, leaves=share.leaves | AGAIN * (share.uuid in seen)))
            seen.add(share.uuid)
        found.append(tuple(counted))
    return tuple(found)


def settle(
    segments: Segments,
    roles: Sequence[Role],
    devices: Mapping[DeviceUuid, Device],
    shares: Mapping[DeviceUuid, Sequence[Share]],
) -> Segments:
    """The marks of a decision count as those of the bound pod will."""
    return once(segments)


def choose(spots: Sequence[Spot], order: Sequence[int], wanted: Wanted) -> Chosen:
    """Whole cards that keep most links; those of a class as the card policy says."""
    need, places = wanted.need, tuple(order[: wanted.need.count])
    zones = [int(spot.facts.get("LinkZone") or 0) for spot in spots]
    idle = [zone for zone, spot in zip(zones, spots, strict=True) if spot.idle and zone > 0]
    own = [zone for zone, spot in zip(zones, spots, strict=True) if spot.own and not spot.idle]
    if need.leaves & UNCLASSED and len(order) > need.count:
        wants = (need.count, *wanted.later)
        wants = wants if sum(wants) <= len(order) else wants[:1]
        # First the cards of all containers together, then the ones of this container among them.
        places = _linked(zones, idle, own, order, sum(wants))
        if len(wants) > 1:
            inside = [i for i in order if i in places]
            mine = dealt(len(spots), inside, wants, lambda i: zones[i] if zones[i] > 0 else -i, ())
            places = tuple(i for i in places if mine and i in mine)
    taken = [zones[i] for i in places]
    rank = sum(_kept(taken.count(zone), idle.count(zone), own.count(zone)) for zone in set(taken) if zone > 0)
    return Chosen(places=places, rank=10_000.0 * rank if need.leaves & RANKED else 0.0)


def _kept(taken: int, idle: int, own: int) -> int:
    """Points of so many cards more out of a zone's idle ones, where the pod has some already: links among them, less
    those to the rest, which are cut. One by one they add up to the points of all."""
    return 50 * taken * (taken - 1) - 10 * taken * (idle - taken) + 110 * own * taken


def _linked(
    zones: Sequence[int], idle: Sequence[int], own: Sequence[int], order: Sequence[int], want: int
) -> tuple[int, ...]:
    """The set with most points; of equal ones the earliest in `order`. Zones add up, so the best set of each size, zone
    by zone, is enough. The zone with fewest idle cards is named first, cards without links last."""
    passing: dict[int, list[int]] = {}
    for position, spot in enumerate(order):
        passing.setdefault(max(0, zones[spot]), []).append(position)
    best: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    for zone, positions in passing.items():
        for size, (points, before) in list(best.items())[::-1]:
            for taken in range(1, min(len(positions), want - size) + 1):
                more = _kept(taken, idle.count(zone), own.count(zone)) if zone else 0
                found = -points - more, tuple(sorted((*before, *positions[:taken])))
                known = best.get(size + taken)
                if known is None or found < (-known[0], known[1]):
                    best[size + taken] = -found[0], found[1]
    chosen = [order[position] for position in best[want][1]]
    return tuple(sorted(chosen, key=lambda spot: (zones[spot] <= 0, idle.count(zones[spot]))))


def tell(outcome: Outcome, vendor: Vendor) -> Mapping[str, str]:
    """Each container's shares, as the plug-in reads them."""
    listed = [
        [
            {"uuid": share.uuid}
            | {key: value for key, value in (("compute", share.cores), ("vRam", share.memory_mib)) if value}
            for share in segment
        ]
        for segment in outcome.segments
    ]
    return {ALLOCATED: gojson.encode(listed), TIME: str(outcome.now_unix * 10**9)}


def renamed(counts: Mapping[Why, int]) -> Mapping[Why, int]:
    """The family has its own word for a card that is not healthy."""
    return {Why.CARD_UNHEALTHY if why is Why.UNHEALTHY else why: count for why, count in counts.items()}


SGPU: Final = Vendor(
    name=VendorWord("Metax-SGPU"),
    config_section="metax",
    resources=Resources(count="metax-tech.com/sgpu", memory="metax-tech.com/vmemory", cores="metax-tech.com/vcore"),
    node_key=NODE,
    read=read,
    pending_key="hami.io/metax-sgpu-devices-to-allocate",
    done_key="hami.io/metax-sgpu-devices-allocated",
    select=SelectKeys(uuid_in="metax-tech.com/use-gpuuuid", uuid_out="metax-tech.com/nouse-gpuuuid"),
    rules=Rule.SHARED | Rule.FULL_CORES_IS_EXCLUSIVE | Rule.CORES_AS_ASKED | Rule.LIMITS_ONLY,
    default_count=0,
    memory_factor=GIB,
    bytes_from=MIB,
    shape=agree,
    ask=ask,
    choose=choose,
    stand=stand,
    settle=settle,
    recall=recall,
    reasons=renamed,
    dress=tell,
    dress_keys=(ALLOCATED, TIME),
)


def configured(section: object) -> Vendor:
    """The declaration with a cluster's names, and whether nodes rank by links where pods do not say."""
    vendor = named(SGPU, section, KEYS)
    found = read_keys(section, vendor.config_section, {"sgpuTopologyAware": read_flag})
    return replace(vendor, ask=partial(ask, aware=True)) if found.get("sgpuTopologyAware") else vendor
