"""What a node carries: its inventory in both forms, link scores, cordons, the handshake, and our agent's protocol.

JSON form: one array, zero values left out, so that index 0, NUMA 0 and *unhealthy* are told by absence. Colon form:
`id,count,devmem,devcore,type,numa,health[,index,mode]:` a card, still written by some families and by old plug-ins.
"""

import enum
import re
from calendar import timegm
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from hami.model.device import HAMI_CORE, Device, Links, MigPlacement, MigProfile
from hami.model.names import INT32_MAX, DeviceUuid, VendorWord, WireError
from hami.model.wire import gojson

LOWEST_NUMA: Final = -1
"""A driver that knows no NUMA node says -1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentProtocol:
    """What our own agent says about itself on its node: the families it serves and how it hands devices out."""

    families: frozenset[VendorWord]
    devices: Literal["cdi", "env"]


class HandshakeState(enum.Enum):
    """What the last writer of the handshake annotation wanted to say."""

    REQUESTING = "Requesting"
    """The scheduler asks whether the plug-in lives."""
    REPORTED = "Reported"
    """The plug-in says that it does."""
    DELETED = "Deleted"
    """The scheduler has given the node's devices up."""
    UNKNOWN = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """One handshake value.

    `wall` is the written time in Unix seconds *as if it were UTC*: most writers give their local time without a zone,
    so it may be off by the writer's zone and is evidence at best. None when there is no readable time.
    """

    state: HandshakeState
    wall: int | None = None


def read_inventory(text: str, field: str, problems: list[WireError] | None = None) -> tuple[Device, ...]:
    """The cards of one family, from either form, sorted by index, then UUID. An empty JSON list is an empty tuple.

    With `problems`, a card that cannot be used is told there and costs only itself; without, it is an error. Of two
    cards with one UUID the first by index stays: what pods hold is told by UUID, so there is no telling them apart.
    A text that is no list of cards is an error in either case.
    """
    trimmed = gojson.annotation(text, field).strip()
    found: list[WireError] = []
    devices: list[Device] = []
    if trimmed.startswith("[") or trimmed == "null":
        entries = gojson.items(gojson.decode(trimmed, field), field)
        _read_each(_read_json, entries, field, devices, found)
    else:
        _read_each(_read_card, _pieces(trimmed, field), field, devices, found)
    unique = _each_once(devices, field, found)
    if problems is not None:
        problems += found
    elif found:
        raise found[0]
    return unique


def read_listed(
    text: str, field: str, read: Callable[[gojson.Object, str, int], Device], problems: list[WireError]
) -> tuple[Device, ...]:
    """As `read_inventory` with `problems`, for plug-ins whose JSON list has a form of its own.

    `read` makes a card of one entry, whose keys are folded, its path and its position.
    """
    devices: list[Device] = []
    for i, entry in enumerate(gojson.items(gojson.decode(gojson.annotation(text, field), field), field)):
        try:
            devices.append(read(gojson.folded(entry, f"{field}[{i}]"), f"{field}[{i}]", i))
        except WireError as error:
            problems.append(error)
    return _each_once(devices, field, problems)


def write_inventory(devices: Sequence[Device], form: Literal["json", "colon"]) -> str:
    """The annotation's text, cards sorted by index, then UUID, so that an equal inventory is an equal text.

    The colon form cannot express MIG profiles, nor a UUID or model with `,` or `:` (`WireError`).
    """
    ordered = sorted(devices, key=_by_index)
    if form == "json":
        return gojson.encode([_write_json(device) for device in ordered])
    return "".join(map(_write_colon, ordered))


def read_links(text: str, field: str) -> Links:
    """Pair scores between the cards of a node; a `WireError` costs the scores, not the inventory."""
    rows = []
    for i, entry in enumerate(gojson.items(gojson.decode(gojson.annotation(text, field), field), field)):
        here = f"{field}[{i}]"
        row = gojson.folded(entry, here)
        scores = row.get("score") or {}
        if not isinstance(scores, dict):
            raise WireError(f"{here}.score", "an object", scores)
        pairs = sorted(
            (DeviceUuid(uuid), gojson.integer(score, f"{here}.score[{uuid}]", low=-INT32_MAX))
            for uuid, score in scores.items()
        )
        rows.append((read_uuid(row.get("uuid"), f"{here}.uuid"), tuple(pairs)))
    return Links(scores=tuple(rows))


def write_links(links: Links) -> str:
    """The score annotation's text: rows in the given order, each row's cards sorted by UUID."""
    return gojson.encode([{"uuid": uuid, "score": dict(sorted(row))} for uuid, row in links.scores])


def read_cordon(text: str) -> frozenset[DeviceUuid]:
    """The cards that take no new allocation: UUIDs between commas, blanks around them ignored."""
    return frozenset(DeviceUuid(uuid) for part in text.split(",") if (uuid := part.strip()))


def read_agent_protocol(text: str, field: str = "metadata.annotations[hami.io/agent-protocol]") -> AgentProtocol:
    """`1;families=NVIDIA;devices=cdi`; keys of a later release are ignored, another version is refused."""
    version, *pairs = gojson.annotation(text, field).strip().split(";")
    if version.strip() != "1":
        raise WireError(field, "protocol version 1", version)
    values = {key.strip(): value.strip() for key, _, value in (pair.partition("=") for pair in pairs)}
    families = frozenset(VendorWord(word) for part in values.get("families", "").split(",") if (word := part.strip()))
    match values.get("devices", "env"):
        case "cdi":
            return AgentProtocol(families=families, devices="cdi")
        case "env":
            return AgentProtocol(families=families, devices="env")
        case other:
            raise WireError(f"{field}.devices", "cdi or env", other)


def write_agent_protocol(protocol: AgentProtocol) -> str:
    """The annotation our agent puts on its node; families in alphabetical order."""
    return f"1;families={','.join(sorted(protocol.families))};devices={protocol.devices}"


def read_handshake(text: str) -> Handshake:
    """Any value a release wrote, or something else entirely; never raises."""
    shape = _HANDSHAKE.match(text)
    if shape is None:
        return Handshake(state=HandshakeState.UNKNOWN)
    state = HandshakeState(shape["state"])
    if shape["year"] is None:
        return Handshake(state=state)
    try:
        moment = datetime(*(int(shape[i]) for i in range(2, 8)))  # type: ignore[arg-type]
    except ValueError:
        return Handshake(state=state)
    return Handshake(state=state, wall=timegm(moment.timetuple()))


def write_handshake(state: HandshakeState, unix: float) -> str:
    """`Requesting_2026-08-21 08:00:00`, in UTC."""
    return f"{state.value}_{datetime.fromtimestamp(int(unix), UTC):%Y-%m-%d %H:%M:%S}"


# Dashes since 2.5, dots in 2.4; a space instead of the underscore where a plug-in printed its time with the language's
# default format, which also has fraction, zone and clock reading behind the seconds.
_HANDSHAKE: Final = re.compile(
    r"\s*(?P<state>Requesting|Reported|Deleted)"
    r"(?:[_ ](?P<year>\d{4})[-.](\d\d)[-.](\d\d) (\d\d):(\d\d):(\d\d))?",
    re.ASCII,
)

_TRUE: Final = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE: Final = frozenset(("0", "f", "F", "false", "FALSE", "False"))


def _by_index(device: Device) -> tuple[int, DeviceUuid]:
    return device.index, device.uuid


def _each_once(devices: list[Device], field: str, found: list[WireError]) -> tuple[Device, ...]:
    devices.sort(key=_by_index)
    seen: dict[DeviceUuid, Device] = {}
    found.extend(
        WireError(field, "every UUID once", device.uuid)
        for device in devices
        if seen.setdefault(device.uuid, device) is not device
    )
    return tuple(seen.values())


def read_uuid(value: object, field: str) -> DeviceUuid:
    """A card's name, which is never empty."""
    text = gojson.text_of(value, field)
    if not text:
        raise WireError(field, "a UUID", text)
    return DeviceUuid(text)


def _read_each(
    read: Callable[[Any, str], Device],
    entries: Sequence[Any],
    field: str,
    devices: list[Device],
    found: list[WireError],
) -> None:
    for i, entry in enumerate(entries):
        try:
            devices.append(read(entry, f"{field}[{i}]"))
        except WireError as error:
            found.append(error)


def _read_json(entry: object, field: str) -> Device:
    card = gojson.folded(entry, field)

    def number(key: str, low: int = 0) -> int:
        return gojson.integer(card.get(key.lower()), f"{field}.{key}", low=low)

    profiles = gojson.items(card.get("migprofiles"), f"{field}.migProfiles")
    return Device(
        uuid=read_uuid(card.get("id"), f"{field}.id"),
        index=number("index"),
        slots=number("count"),
        memory_mib=number("devmem"),
        cores=number("devcore"),
        model=gojson.text_of(card.get("type"), f"{field}.type"),
        numa=number("numa", LOWEST_NUMA),
        mode=gojson.text_of(card.get("mode"), f"{field}.mode") or HAMI_CORE,
        healthy=gojson.boolean(card.get("health"), f"{field}.health"),
        mig_profiles=tuple(_read_profile(entry, f"{field}.migProfiles[{i}]") for i, entry in enumerate(profiles)),
        custom=_read_custom(card.get("custominfo"), f"{field}.custominfo"),
    )


def _read_custom(value: object, field: str) -> tuple[tuple[str, str | int | float | bool], ...]:
    """The plug-in's own words on a card. Only single values say something here; they come in any order."""
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise WireError(field, "an object", value)
    return tuple(sorted((key, entry) for key, entry in value.items() if isinstance(entry, str | int | float | bool)))


def _read_profile(entry: object, field: str) -> MigProfile:
    profile = gojson.folded(entry, field)
    name = gojson.text_of(profile.get("name"), f"{field}.name")
    if not name:
        raise WireError(f"{field}.name", "a profile name", name)
    placements = gojson.items(profile.get("placements"), f"{field}.placements")
    return MigProfile(
        name=name,
        memory_mib=gojson.integer(profile.get("memorymb"), f"{field}.memoryMB"),
        cores=gojson.integer(profile.get("core"), f"{field}.core"),
        slice_count=gojson.integer(profile.get("slicecount"), f"{field}.sliceCount"),
        placements=tuple(_read_placement(entry, f"{field}.placements[{i}]") for i, entry in enumerate(placements)),
    )


def _read_placement(entry: object, field: str) -> MigPlacement:
    placement = gojson.folded(entry, field)
    size = gojson.integer(placement.get("size"), f"{field}.size")
    if not size:
        raise WireError(f"{field}.size", "at least one slice", size)
    return MigPlacement(
        start=gojson.integer(placement.get("start"), f"{field}.start"),
        size=size,
    )


def _write_json(device: Device) -> dict[str, Any]:
    card: dict[str, Any] = {
        "id": device.uuid,
        "index": device.index,
        "count": device.slots,
        "devmem": device.memory_mib,
        "devcore": device.cores,
        "type": device.model,
        "numa": device.numa,
        "mode": device.mode,
        "migProfiles": [_write_profile(profile) for profile in device.mig_profiles],
        "health": device.healthy,
        "custominfo": dict(device.custom),
    }
    return {key: value for key, value in card.items() if value}


def _write_profile(profile: MigProfile) -> dict[str, Any]:
    # Unlike a card's, none of these keys is left out when zero.
    return {
        "name": profile.name,
        "memoryMB": profile.memory_mib,
        "core": profile.cores,
        "sliceCount": profile.slice_count,
        "placements": [{"start": placement.start, "size": placement.size} for placement in profile.placements],
    }


def _pieces(text: str, field: str) -> list[str]:
    if ":" not in text:
        raise WireError(field, "a JSON list, or cards that end with a colon", text)
    return [piece for piece in text.split(":") if piece]


def _read_card(piece: str, field: str) -> Device:
    parts = piece.split(",")
    if len(parts) not in (7, 9):
        raise WireError(field, "7 or 9 values between commas", piece)
    # Seven values are releases up to 2.4, which knew neither index nor mode.
    uuid, count, memory, cores, model, numa, health, index, mode = (*parts, "0", HAMI_CORE)[:9]
    if health not in _TRUE and health not in _FALSE:
        raise WireError(f"{field}.health", "true or false", health)
    return Device(
        uuid=read_uuid(uuid, f"{field}.id"),
        index=gojson.decimal(index, f"{field}.index"),
        slots=gojson.decimal(count, f"{field}.count"),
        memory_mib=gojson.decimal(memory, f"{field}.devmem"),
        cores=gojson.decimal(cores, f"{field}.devcore"),
        model=model,
        numa=gojson.decimal(numa, f"{field}.numa", low=LOWEST_NUMA),
        mode=mode or HAMI_CORE,
        healthy=health in _TRUE,
    )


def _write_colon(device: Device) -> str:
    for word in (device.uuid, device.model, device.mode):
        if "," in word or ":" in word:
            raise WireError("device", "a UUID, model and mode without , and : in the colon form", word)
    health = "true" if device.healthy else "false"
    return (
        f"{device.uuid},{device.slots},{device.memory_mib},{device.cores},{device.model},{device.numa},{health},"
        f"{device.index},{device.mode}:"
    )
