"""Enflame DRS: slices of a card in the sizes that its node offers, asked by size or by what they must hold."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hami.model.claim import Mib, Need, Role, Segments, Share, Why
from hami.model.container import Container, amount, integer
from hami.model.device import Device
from hami.model.document import read_name
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
    Terms,
    Vendor,
    Wanted,
)
from hami.model.wire import gojson

CONTAINERS: Final = "assigned-containers"
PREFIX: Final = "enflame.com/gcu-"
MARKS: Final = ("assigned", "assigned-time", "assigned-index", "assigned-id", "assigned-minor", "request-size")
NEW: Final = "resourceNameDRSGCU"
OLD: Final = "resourceNameVGCU"
UNBOUNDED: Final = INT32_MAX
"""Slices say what fits: percentages are rounded up each, and may come to more than a card."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Profile:
    """One size in which cards of a node are cut: slices first, then GiB."""

    slices: int
    gib: int
    id: str = ""

    @property
    def name(self) -> str:
        """`3g.20gb`."""
        return f"{self.slices}g.{self.gib}gb"


def profiles(mode: str) -> list[Profile]:
    """The profiles of a node's cards, smallest first: `1g.6gb=0,3g.20gb=1`; `WireError` for another text."""
    found = []
    for item in mode.split(","):
        name, _, number = item.partition("=")
        shape = re.fullmatch(r"([1-9][0-9]{0,3})g\.([1-9][0-9]{0,5})gb", name, re.ASCII)
        if shape is None:
            raise WireError("profiles", "<slices>g.<memory>gb", name)
        found.append(Profile(slices=int(shape[1]), gib=int(shape[2]), id=number))
    return sorted(found)


def read(facts: NodeFacts, vendor: Vendor, problems: list[WireError]) -> tuple[Device, ...] | None:
    """The node's cards; one without slices makes all of them unusable, as for the plug-in."""
    text = facts.annotations.get(vendor.node_key)
    if text is None:
        return None
    where = f"metadata.annotations[{vendor.node_key}]"
    said = gojson.folded(gojson.decode(gojson.annotation(text, where), where), where)
    sizes = said.get("profiles") or {}
    if not isinstance(sizes, dict):
        raise WireError(f"{where}.profiles", "an object", str(sizes))
    mode = ",".join(f"{name}={number}" for name, number in sorted(sizes.items()))
    largest = max(profiles(mode), key=lambda one: one.gib)
    found = []
    for i, item in enumerate(gojson.items(said.get("devices"), f"{where}.devices")):
        card, place = gojson.folded(item, f"{where}.devices[{i}]"), f"{where}.devices[{i}].capacity"
        slices = gojson.decimal(str(card.get("capacity", "")).strip(), place, low=1)
        index = str(card.get("index", "")).strip()
        number = int(index) if index.isascii() and index.isdigit() and len(index) < 10 else i
        found.append(
            Device(
                uuid=DeviceUuid(f"{facts.name}-enflame-drs-{number}"),
                index=number,
                slots=slices,
                memory_mib=largest.gib * 1024,
                cores=100,
                model=vendor.name,
                mode=mode,
                custom=(("minor", str(card.get("minor", "")).strip() or str(number)),),
                parts=(slices, 0),
            )
        )
    if len({device.uuid for device in found}) < len(found):
        raise WireError(f"{where}.devices", "an index of its own for each card", text)
    return tuple(found)


def fill_in(container: Container, notes: Notes, vendor: Vendor) -> Shaped:
    """Amounts in their range, and each in limits and in requests."""
    names, limits = vendor.resources, {}
    for name, top in ((names.count, None), (names.memory, None), (names.cores, 100)):
        limit, request = (amount(container, name, (kind,)) for kind in ("limits", "requests"))
        one = limit or request
        if one is not None and (one[0] <= 0 or (top is not None and one[0] > top)):
            raise ShapeError(one[1], f"{name} must be " + ("greater than 0" if top is None else f"in range (0,{top}]"))
        whole = integer(container, name, low=1, high=INT32_MAX)
        if whole is not None and (limit is None or request is None):
            limits[name] = whole
    return Shaped(limits=limits, requests_too=frozenset(limits))


def ask(container: Container, notes: Notes, vendor: Vendor) -> Need | None:
    """Slices, or the memory as written and percent that a profile must have: which one it is, its node says."""
    names = vendor.resources
    slices, memory, cores = (
        integer(container, name, low=1, high=INT32_MAX) for name in (names.count, names.memory, names.cores)
    )
    if slices is None and memory is None and cores is None:
        return None
    if slices is not None:
        return Need(vendor=vendor.name, count=1, memory=Mib(0), cores=0, parts=(slices, 0), full_cores=UNBOUNDED)
    return Need(vendor=vendor.name, count=1, memory=Mib(memory or 0), cores=cores or 0, full_cores=UNBOUNDED)


def asked(need: Need) -> str:
    """For people: slices, or memory as written and percent."""
    if need.parts[0]:
        return f"{need.parts[0]} slice{'s' * (need.parts[0] > 1)}"
    memory = [f"{need.memory.amount} GiB (MiB where that is above twice a card's)"] if need.memory.amount else []
    return ", ".join([*memory, *([f"{need.cores} % cores"] if need.cores else [])])


def measure(need: Need, mode: str) -> Need | None:
    """The smallest profile that serves a need. Memory above twice the largest is in MiB, else in GiB."""
    offered, asked = profiles(mode), need.memory.amount
    most, top = offered[-1].slices, max(one.gib for one in offered)
    gib = -(-asked // 1024) if asked > 2 * top else asked
    for one in offered:
        percent = -(-one.slices * 100 // most)
        if one.slices == need.parts[0] if need.parts[0] else one.gib >= gib and percent >= need.cores:
            return replace(need, memory=Mib(one.gib * 1024), cores=percent, parts=(one.slices, 0))
    return None


def choose(spots: Sequence[Spot], order: Sequence[int], wanted: Wanted) -> Chosen | None:
    """One card for all containers of a pod, because the plug-in is told of one."""
    bound = any(spot.own for spot in spots)
    place = next((i for i in order if spots[i].own or not bound), None)
    return None if place is None else Chosen(places=(place,))


def settle(
    segments: Segments,
    roles: Sequence[Role],
    devices: Mapping[DeviceUuid, Device],
    on: Mapping[DeviceUuid, Sequence[Share]],
) -> Segments:
    """Percentages such that a full card comes to 100: what is left over by rounding is the last one's loss."""
    beside = {uuid: list(shares) for uuid, shares in on.items()}
    found = []
    for segment, role in zip(segments, roles, strict=True):
        own = []
        for share in segment:
            others = beside.setdefault(share.uuid, [])
            most = profiles(devices[share.uuid].mode)[-1].slices
            # What a pod does not say of itself is near enough in its percentage.
            slices = share.parts[0] + sum(one.parts[0] or round(one.cores * most / 100) for one in others)
            left = -(-slices * 100 // most) - sum(one.cores for one in others)
            own.append(replace(share, cores=max(1, min(share.cores, left))))
            # An init container has ended when the others start.
            others += own[-1:] if role is not Role.INIT else ()
        found.append(tuple(own))
    return tuple(found)


def recall(segments: Segments, notes: Notes, vendor: Vendor) -> Segments:
    """The slices of a bound pod: its containers' profiles, told apart by their memory, and where that is equal by their
    percent, which grows with the slices."""
    try:
        said = gojson.decode(notes.get(CONTAINERS, "{}"), CONTAINERS)
        named = ",".join(str(entry["profileName"]) for entry in said.values())
        known = profiles(named) if named else []
    except (WireError, AttributeError, KeyError, TypeError):
        # Without them a share is known by its memory, its percent and its place only.
        return segments
    sizes: dict[int, dict[int, int]] = {}
    for mib in {one.gib * 1024 for one in known}:
        slices = [one.slices for one in known if one.gib * 1024 == mib]
        # Both ascend. Where the list has fewer profiles than there are shares, these are of the last one.
        cores = sorted(share.cores for segment in segments for share in segment if share.memory_mib == mib)
        sizes[mib] = dict(zip(cores, [*slices, *slices[-1:] * len(cores)], strict=False))
    return tuple(
        tuple(replace(share, parts=(sizes.get(share.memory_mib, {}).get(share.cores, 0), 0)) for share in segment)
        for segment in segments
    )


def tell(outcome: Outcome, vendor: Vendor) -> Mapping[str, str]:
    """The first card, and every container's profile."""
    told = {}
    for name, segment in zip(outcome.containers, outcome.segments, strict=True):
        for share in segment:
            mib, slices = share.memory_mib, share.parts[0]
            offered = profiles(outcome.devices[share.uuid].mode)
            one = next(one for one in offered if (one.slices, one.gib * 1024) == (slices, mib))
            told[name] = {"allocated": False, "request": slices, "profileID": one.id, "profileName": one.name}
    first = next(share for segment in outcome.segments for share in segment)
    card = outcome.devices[first.uuid]
    index = str(card.index)
    said = ("false", str(outcome.now_unix * 10**9), index, index, str(card.fact("minor")), str(first.parts[0]))
    marks = dict(zip(MARKS, said, strict=True))
    return {PREFIX + key: text for key, text in marks.items()} | {CONTAINERS: gojson.encode(dict(sorted(told.items())))}


DRS: Final = Vendor(
    name=VendorWord("Enflame"),
    config_section="enflame",
    resources=Resources(
        count="enflame.com/drs-gcu",
        memory="enflame.com/gcu-memory",
        cores="enflame.com/gcu-core",
        also=("enflame.com/drs-gcu", "enflame.com/gcu-memory", "enflame.com/gcu-core"),
    ),
    node_key="enflame.com/gcu-drs-capacity",
    pending_key="",
    done_key="hami.io/enflame-vgpu-devices-allocated",
    select=SelectKeys(uuid_in="enflame.com/use-gpuuuid", uuid_out="enflame.com/nouse-gpuuuid"),
    rules=Rule.SHARED | Rule.CHOOSES_FOR_SEVERAL,
    lock_key="",
    default_count=0,
    memory_factor=1024,
    read=read,
    shape=fill_in,
    ask=ask,
    measure=measure,
    choose=choose,
    misfit=Why.TOO_FEW_PICKED,
    settle=settle,
    recall=recall,
    dress=tell,
    terms=Terms(parts=("slices", ""), asked=asked),
    dress_keys=(*(PREFIX + key for key in MARKS), CONTAINERS),
)


def configured(section: object) -> Vendor:
    """The declaration with a cluster's names; `resourceNameVGCU` is the count's older key."""
    older = read_keys(section, DRS.config_section, {NEW: read_name, OLD: read_name})
    count = OLD if older.get(OLD) and not older.get(NEW) else NEW
    return named(DRS, section, {"count": count, "memory": "resourceNameGCUMemory", "cores": "resourceNameGCUCore"})
