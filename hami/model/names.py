"""Names of things as distinct types, and the one error every reader of foreign text raises.

A `NodeName` is never a `DeviceUuid`; mixing them up is a type error instead of a wrong answer.
"""

from typing import NamedTuple, NewType

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
        shown = "" if got is None else f", got {clip(repr(got))}"
        super().__init__(f"{field}: expected {expected}{shown}")


def clip(text: str, limit: int = 120) -> str:
    """`text` cut to `limit` characters, so that a giant value never floods an event or a log."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
