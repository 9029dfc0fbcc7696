"""One program that runs or waits, as the text of its file in the directory of running programs."""

from dataclasses import dataclass
from typing import Any

import orjson

from hami.local.ask import Ask, ask_document, ask_of
from hami.model.claim import Share
from hami.model.names import INT32_MAX, DeviceUuid, WireError


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One program, what it asked for and what it was granted."""

    pid: int
    start_ticks: int
    """Field 22 of `/proc/<pid>/stat`: start time in clock ticks since boot."""
    boot: str
    """The boot that process id and start time belong to."""
    uid: int
    command: str
    ask: Ask
    devices: tuple[DeviceUuid, ...]
    """All devices of the machine it asks: programs for another (simulated) machine do not wait for each other."""
    simulated: bool = False
    """Whether those devices are simulated."""
    shares: tuple[Share, ...] = ()
    """Empty while it waits."""

    @property
    def name(self) -> str:
        """What its files are called, without their ending."""
        return f"{self.pid}-{self.start_ticks}"


def write_entry(entry: Entry) -> bytes:
    """The entry as JSON, its fields by their names."""
    return orjson.dumps(entry_document(entry))


def entry_document(entry: Entry) -> dict[str, Any]:
    """The entry as JSON values."""
    shares = [{"uuid": s.uuid, "kind": s.kind, "memory_mib": s.memory_mib, "cores": s.cores} for s in entry.shares]
    return {
        "pid": entry.pid,
        "start_ticks": entry.start_ticks,
        "boot": entry.boot,
        "uid": entry.uid,
        "command": entry.command,
        "ask": ask_document(entry.ask),
        "devices": list(entry.devices),
        "simulated": entry.simulated,
        "shares": shares,
    }


def read_entry(text: bytes, field: str) -> Entry:
    """The entry in `text`; WireError names the key that is wrong."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise WireError(field, "a JSON object", str(error)) from None
    if not isinstance(document, dict):
        raise WireError(field, "a JSON object", document)
    shares = _list(document, "shares", field)
    devices = _list(document, "devices", field)
    simulated = document.get("simulated")
    if type(simulated) is not bool:
        raise WireError(f"{field}.simulated", "true or false", simulated)
    if not all(isinstance(device, str) for device in devices):
        raise WireError(f"{field}.devices", "a list of UUIDs", devices)
    return Entry(
        pid=_whole(document, "pid", field),
        start_ticks=_whole(document, "start_ticks", field),
        boot=_text(document, "boot", field),
        uid=_whole(document, "uid", field),
        command=_text(document, "command", field),
        ask=ask_of(document.get("ask"), f"{field}.ask"),
        devices=tuple(DeviceUuid(device) for device in devices),
        simulated=simulated,
        shares=tuple(_share(share, f"{field}.shares[{i}]") for i, share in enumerate(shares)),
    )


def _share(document: Any, field: str) -> Share:
    if not isinstance(document, dict):
        raise WireError(field, "an object", document)
    return Share(
        uuid=DeviceUuid(_text(document, "uuid", field)),
        kind=_text(document, "kind", field),
        memory_mib=_whole(document, "memory_mib", field, INT32_MAX),
        cores=_whole(document, "cores", field, INT32_MAX),
    )


def _list(document: dict[str, Any], key: str, field: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise WireError(f"{field}.{key}", "a list", value)
    return value


def _whole(document: dict[str, Any], key: str, field: str, most: int = 2**63 - 1) -> int:
    value = document.get(key)
    if type(value) is not int or not 0 <= value <= most:
        raise WireError(f"{field}.{key}", f"an integer from 0 to {most}", value)
    return value


def _text(document: dict[str, Any], key: str, field: str) -> str:
    value = document.get(key)
    if not isinstance(value, str):
        raise WireError(f"{field}.{key}", "text", value)
    return value
