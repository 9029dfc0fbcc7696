"""The grant file: what one container may use, as the agent writes it and the interposer reads it.

Text, one `key=value` a line, the first one `hami-grant=1`. It fails closed: a malformed or repeated key makes the whole
file invalid, so a reader never enforces half a grant. Unknown keys belong to later releases and are ignored.
"""

import re
from dataclasses import dataclass
from typing import Final

from hami.model.names import INT32_MAX, DeviceUuid, WireError
from hami.model.wire import gojson

HEADER: Final = "hami-grant=1"
MAX_SIZE: Final = 16 * 1024
"""Bytes of a whole file; the interposer reads no more."""

ENFORCERS: Final = ("library", "driver", "mps")
POLICIES: Final = ("default", "force", "disable")
ACCOUNTINGS: Final = ("with-overhead", "requested", "strict")


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantDevice:
    """One device as the container sees it, in the order of its visible devices."""

    uuid: DeviceUuid
    memory_mib: int
    """0 = no limit."""
    cores: int
    """Percent; 0 or 100 = no limit."""
    enforced_by: str = "library"
    """`driver` and `mps` hold the cap themselves, the library then only shows the view."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantFile:
    """One container's grant."""

    devices: tuple[GrantDevice, ...]
    policy: str = "default"
    """When a core limit holds: `default` (while others want the device), `force`, `disable`."""
    priority: int = 0
    """0 high, 1 low."""
    oversubscribe: bool = False
    accounting: str = ""
    """What becomes of contexts and loaded code: shown as used (`with-overhead`), not shown (`requested`), or part of
    the limit (`strict`). Empty: not said, and the container may choose; else the library does, `with-overhead`."""
    region: str
    """Path of the shared region inside the container."""


def write_grant(grant: GrantFile) -> str:
    """The file's text. Raises `WireError` for what `read_grant` would refuse."""
    lines = [HEADER]
    for i, device in enumerate(grant.devices):
        lines += [
            f"device.{i}.uuid={device.uuid}",
            f"device.{i}.memory_mib={device.memory_mib}",
            f"device.{i}.cores={device.cores}",
            f"device.{i}.enforced_by={device.enforced_by}",
        ]
    lines += [
        f"policy={grant.policy}",
        f"priority={grant.priority}",
        f"oversubscribe={'true' if grant.oversubscribe else 'false'}",
        *([f"accounting={grant.accounting}"] if grant.accounting else []),
        f"region={grant.region}",
    ]
    text = "".join(f"{line}\n" for line in lines)
    if read_grant(text) != grant:
        raise WireError("grant", "values on one line each", grant)
    return text


def read_grant(text: str) -> GrantFile:
    """The grant of a file's text. Raises `WireError` naming the key."""
    if len(text.encode(errors="replace")) > MAX_SIZE:
        raise WireError("grant", f"at most {MAX_SIZE} bytes", f"{len(text)} characters")
    header, *lines = text.split("\n")
    if header != HEADER:
        raise WireError("grant", f"the first line {HEADER}", header)
    values: dict[str, str] = {}
    for number, line in enumerate(lines, start=2):
        if not line:
            continue
        key, equals, value = line.partition("=")
        if not equals or not key or not value:
            raise WireError(f"grant line {number}", "key=value", line)
        if key in values:
            raise WireError(key, "each key once", value)
        values[key] = value
    if "region" not in values:
        raise WireError("region", "a path")
    return GrantFile(
        devices=_read_devices(values),
        policy=_word(values, "policy", POLICIES),
        priority=_number(values, "priority", high=1),
        oversubscribe=_word(values, "oversubscribe", ("false", "true")) == "true",
        accounting=_word(values, "accounting", ACCOUNTINGS) if "accounting" in values else "",
        region=_path(values["region"]),
    )


_DEVICE_KEY: Final = re.compile(r"device\.(0|[1-9][0-9]{0,3})\.(?:uuid|memory_mib|cores|enforced_by)")


def _read_devices(values: dict[str, str]) -> tuple[GrantDevice, ...]:
    indices = sorted({int(shape[1]) for key in values if (shape := _DEVICE_KEY.fullmatch(key))})
    if indices != list(range(len(indices))):
        raise WireError("device", "devices numbered from 0 without a gap", indices)
    devices = []
    for i in indices:
        if f"device.{i}.uuid" not in values:
            raise WireError(f"device.{i}.uuid", "a UUID")
        devices.append(
            GrantDevice(
                uuid=DeviceUuid(values[f"device.{i}.uuid"]),
                memory_mib=_number(values, f"device.{i}.memory_mib", high=INT32_MAX),
                cores=_number(values, f"device.{i}.cores", high=INT32_MAX),
                enforced_by=_word(values, f"device.{i}.enforced_by", ENFORCERS),
            )
        )
    return tuple(devices)


def _number(values: dict[str, str], key: str, *, high: int) -> int:
    number = gojson.decimal(values.get(key, "0"), key)
    if number > high:
        raise WireError(key, f"an integer from 0 to {high}", number)
    return number


def _word(values: dict[str, str], key: str, words: tuple[str, ...]) -> str:
    word = values.get(key, words[0])
    if word not in words:
        raise WireError(key, f"one of {', '.join(words)}", word)
    return word


def _path(text: str) -> str:
    if not text.startswith("/"):
        raise WireError("region", "an absolute path", text)
    return text
