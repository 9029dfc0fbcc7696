"""Names of things as distinct types, and the one error every reader of foreign text raises.

A `NodeName` is never a `DeviceUuid`; mixing them up is a type error instead of a wrong answer.
"""

import reprlib
from typing import Final, NamedTuple, NewType

NodeName = NewType("NodeName", str)
DeviceUuid = NewType("DeviceUuid", str)
PodUid = NewType("PodUid", str)
VendorWord = NewType("VendorWord", str)
"""A family's fixed identifier on the wire: `NVIDIA`, `DCU`, `MLU` (spec: vendor word)."""

INT32_MAX = 2**31 - 1
"""Every integer on the wire fits signed 32 bit, because the reference reads it so."""


class PodKey(NamedTuple):
    """A pod as people write it."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class WireError(ValueError):
    """Text from outside does not say what its format asks for.

    `field` is the path of the offending part as its author would look for it
    (`metadata.annotations[hami.io/node-nvidia-register][2].devmem`), `expected` what should stand there.
    """

    def __init__(self, field: str, expected: str, got: object = None) -> None:
        self.field = field
        self.expected = expected
        self.got = got
        shown = "" if got is None else f", got {clip(_SHORT.repr(got))}"
        super().__init__(f"{field}: expected {expected}{shown}")


class _Short(reprlib.Repr):
    """A repr whose cost does not grow with its value: what is shown may be a whole request body."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxlong = self.maxother = 120

    def repr_str(self, x: str, level: int) -> str:
        return repr(x[: self.maxstring])

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to print integers of more than 4,300 digits.
        return repr(x) if x.bit_length() <= 256 else "a giant number"


_SHORT: Final = _Short()


def clip(text: str, limit: int = 120) -> str:
    """`text` cut to `limit` characters, so that a giant value never floods an event or a log."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
