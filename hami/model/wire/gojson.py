"""JSON as the programs on the other side write and read it.

They decode into typed structs: keys match in any capitals, unknown keys are ignored, `null` leaves a field at its zero
value, integers are written without fraction or exponent and fit 32 bit. They encode strings so that the text may stand
inside HTML. Everything here raises `WireError` with the path of the offending part.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from hami.model.names import INT32_MAX, WireError, clip

Object = Mapping[str, Any]
"""One JSON object, its keys folded to lower case."""

MAX_ANNOTATION: Final = 256 * 1024
"""Characters. Kubernetes allows so much for all annotations of an object together."""

_HTML: Final = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def encode(value: object) -> str:
    """Compact JSON in the given key order, with `<`, `>`, `&` and the two line separators escaped."""
    # All five can occur only inside strings, so the finished text may be translated as a whole.
    return orjson.dumps(value).decode().translate(_HTML)


def decode(text: str | bytes, field: str) -> Any:
    """Any JSON value; `WireError` when the text is none."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        shown = text if isinstance(text, str) else text[:200].decode(errors="replace")
        raise WireError(field, f"JSON ({clip(str(error))})", shown) from error


def annotation(text: object, field: str) -> str:
    """An annotation's text, refused when it is longer than any API server stores."""
    if not isinstance(text, str):
        raise WireError(field, "text", _shown(text))
    if len(text) > MAX_ANNOTATION:
        raise WireError(field, f"at most {MAX_ANNOTATION} characters", f"{len(text)} characters")
    return text


def folded(value: object, field: str) -> Object:
    """An object with its keys in lower case; of two keys that differ in capitals only, the later one counts."""
    if not isinstance(value, dict):
        raise WireError(field, "an object", _shown(value))
    return {key.lower(): entry for key, entry in value.items()}


def items(value: object, field: str) -> list[Any]:
    """A list; `null` is an empty one."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise WireError(field, "a list", _shown(value))
    return value


def text_of(value: object, field: str) -> str:
    """A string; `null` is an empty one."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise WireError(field, "text", _shown(value))
    return value


def integer(value: object, field: str, *, low: int = 0) -> int:
    """An integer from `low` to the largest of 32 bit; `null` is 0."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= INT32_MAX:
        raise WireError(field, f"an integer from {low} to {INT32_MAX}", _shown(value))
    return value


def boolean(value: object, field: str) -> bool:
    """`true` or `false`; `null` is false."""
    if value is None:
        return False
    if not isinstance(value, bool):
        raise WireError(field, "true or false", _shown(value))
    return value


def decimal(text: str, field: str, *, low: int = 0) -> int:
    """A decimal integer as text, from `low` to the largest of 32 bit."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    # The length is checked first: converting a megabyte of digits takes time that grows with its square.
    if not (0 < len(digits) <= 20 and digits.isascii() and digits.isdigit()) or not low <= int(text) <= INT32_MAX:
        raise WireError(field, f"an integer from {low} to {INT32_MAX}", text)
    return int(text)


def _shown(value: object) -> object:
    """`value` for an error text, never the whole of a giant one."""
    return value if value is None or isinstance(value, str | int | float) else type(value).__name__
