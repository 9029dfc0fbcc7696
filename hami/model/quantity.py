"""Kubernetes quantities (`3k`, `1Gi`, `500m`, `1e3`, `.5`) as exact fractions.

Kubernetes itself rounds up to nano units and caps at 64 bit; here a value stays exact, and whoever uses it says which
range it may have. The hard thing is hostile input: `1e999999999` must cost nothing, so length and exponent are bounded
before any arithmetic.
"""

import re
from fractions import Fraction
from typing import Final

from hami.model.names import WireError, clip

MAX_LENGTH: Final = 64
"""Characters of one quantity. The longest that Kubernetes itself writes has 21."""
MAX_EXPONENT: Final = 40
"""Largest decimal exponent either way; `1E` (10**18) is the largest suffix."""

_SHAPE: Final = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]?|[eE][+-]?[0-9]+)", re.ASCII)

_SUFFIXES: Final = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    **{suffix: Fraction(10 ** (3 * power)) for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Fraction(1024**power) for power, suffix in enumerate("KMGTPE", start=1)},
}


def parse_quantity(value: object, field: str) -> Fraction:
    """The exact value of a quantity as YAML or JSON carry it: text, or a bare number.

    Raises `WireError` for anything else, `true` and `null` included, and for text or exponents beyond the bounds above.
    """
    match value:
        case bool():
            raise _unusable(field, value)
        case str():
            text = value
        case int():
            if abs(value) >= 10**MAX_EXPONENT:
                raise WireError(field, f"a quantity below 1e{MAX_EXPONENT}", "a longer number")
            return Fraction(value)
        case float():
            # The shortest text of a float is what its author wrote; Fraction(0.1) would be the binary neighbour.
            text = repr(value)
        case _:
            raise _unusable(field, value)
    if len(text) > MAX_LENGTH:
        raise WireError(field, f"a quantity of at most {MAX_LENGTH} characters", clip(text, 40))
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        raise _unusable(field, value)
    sign, whole_part, fraction_part, suffix = shape[1], shape[2], shape[3] or "", shape[4]
    if not whole_part and not fraction_part:
        raise _unusable(field, value)
    amount = Fraction(int(whole_part + fraction_part), 10 ** len(fraction_part)) * _scale(suffix, field, text)
    return -amount if sign == "-" else amount


def whole(value: Fraction) -> int | None:
    """`value` as an integer, or None when it has a fractional part."""
    return value.numerator if value.denominator == 1 else None


def _scale(suffix: str, field: str, text: str) -> Fraction:
    known = _SUFFIXES.get(suffix)
    if known is not None:
        return known
    exponent = int(suffix[1:])
    if abs(exponent) > MAX_EXPONENT:
        raise WireError(field, f"an exponent of at most {MAX_EXPONENT}", text)
    return Fraction(10) ** exponent


def _unusable(field: str, value: object) -> WireError:
    shown = "null" if value is None else value
    return WireError(field, "a Kubernetes quantity such as 3000, 3k or 1Gi", shown)
