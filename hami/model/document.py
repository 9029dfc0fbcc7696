"""Single values of a parsed configuration document or flag.

Each reader takes what a YAML, JSON or flag parser made of a value and the path of its key, and gives the typed value or
a `WireError` with that path. Numbers in quotes and texts without are taken, because charts render both.
"""

import math
import re
from collections.abc import Callable
from typing import Any, Final

from hami.model.names import WireError

MAX_SCALING: Final = 1000.0
"""Largest memory or core scaling; more would leave the 32 bits that amounts have on the wire."""
MAX_NAME: Final = 317
"""Characters of a resource name: a DNS name, a slash, 63 characters."""

Read = Callable[[object, str], Any]
"""From a parsed value and its path to the typed value, or `WireError`."""


def read_folded(value: object, path: str) -> dict[str, Any]:
    """A mapping with its keys in lower case."""
    if not isinstance(value, dict):
        raise WireError(path, "keys and values", value)
    return {str(key).lower(): entry for key, entry in value.items()}


def read_text(value: object, path: str) -> str:
    """Text; a whole number is the text of its digits, because `libCudaLogLevel: 1` is a number to YAML."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise WireError(path, "text", value)
    if isinstance(value, int) and value.bit_length() > 64:
        raise WireError(path, "text", "a giant number")
    return str(value)


def read_texts(value: object, path: str) -> tuple[str, ...]:
    """A list of texts, neither it nor any of them empty."""
    if not isinstance(value, list) or not value or not all(isinstance(entry, str) and entry for entry in value):
        raise WireError(path, "a list of texts, not empty", value)
    return tuple(value)


def read_name(value: object, path: str) -> str:
    """A resource name; empty means that there is no such resource."""
    name = read_text(value, path)
    if len(name) > MAX_NAME or any(character.isspace() for character in name):
        raise WireError(path, "a resource name", name)
    return name


def read_flag(value: object, path: str) -> bool:
    """`true` or `false`, in quotes or not."""
    match value:
        case bool():
            return value
        case str() if value.lower() in ("true", "false"):
            return value.lower() == "true"
        case _:
            raise WireError(path, "true or false", value)


def read_scaling(value: object, path: str) -> float:
    """A factor above 0."""
    number = _finite(value)
    if number is None or not 0 < number <= MAX_SCALING:
        raise WireError(path, f"a number above 0, at most {MAX_SCALING:g}", value)
    return number


def integer_between(low: int, high: int) -> Read:
    """A reader of integers from `low` to `high`, which fit 53 bits."""

    def read(value: object, path: str) -> int:
        number = _finite(value)
        if number is None or not number.is_integer() or not low <= number <= high:
            raise WireError(path, f"an integer from {low} to {high}", value)
        return int(number)

    return read


def one_of(*words: str) -> Read:
    """A reader of one of a few words."""

    def read(value: object, path: str) -> str:
        if not isinstance(value, str) or value not in words:
            raise WireError(path, f"one of {', '.join(words)}", value)
        return value

    return read


def parse_go_duration(text: str, field: str = "duration") -> float:
    """Seconds of `5m0s`, `1.5h`, `300ms`, `-2s`, `0`."""
    shape = _DURATION.fullmatch(text) if len(text) <= 64 else None
    if shape is None:
        raise WireError(field, "a duration such as 5m0s or 300ms", text)
    seconds = math.fsum(float(amount) * _UNITS[unit] for amount, unit in _DURATION_PART.findall(shape[2]))
    return -seconds if shape[1] == "-" else seconds


def read_label_selector(text: str, field: str = "node-label-selector") -> dict[str, str]:
    """Labels of `k=v,k2=v2`; empty text selects everything."""
    labels = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not key.strip() or not equals:
            raise WireError(field, "key=value pairs between commas", part)
        labels[key.strip()] = value.strip()
    return labels


_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART: Final = r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)"
_DURATION: Final = re.compile(rf"([+-]?)((?:{_PART})+|0)")
_DURATION_PART: Final = re.compile(_PART)


def _finite(value: object) -> float | None:
    """A finite number, also one in quotes; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and len(value) > 32:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
