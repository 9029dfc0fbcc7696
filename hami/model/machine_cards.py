"""Simulated devices of families other than NVIDIA's: what a description says of them.

No driver stands behind them: they are registered, handed out and accounted, and nothing computes on them. An entry of
`devices` with the key `family` is read here; its other keys have defaults, so that `{family: DCU, count: 2}` is enough.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hami.model.document import Read, integer_between, read_flag, read_text
from hami.model.names import INT32_MAX, DeviceUuid, VendorWord, WireError

MAX_CARDS: Final = 64
"""Of one family: more than that on one node the engine does not choose among."""
Facts = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineCard:
    """One simulated device of a family; amounts in the family's own units."""

    family: VendorWord
    """The word of its declaration: `DCU`, `Ascend910B3`."""
    uuid: DeviceUuid
    index: int
    """Among the machine's devices of the family."""
    slots: int
    memory_mib: int
    cores: int
    model: str
    numa: int = 0
    healthy: bool = True
    facts: Facts = field(default_factory=dict)
    """What else its plug-in says of it: `{NetworkID: 1}`."""


def read_card(values: Mapping[str, Any], path: str, machine: str, index: int) -> MachineCard:
    """A device from the values of its entry; `index` counts its family's. WireError names the key."""
    for key in values:
        if key not in _KEYS:
            raise WireError(f"{path}.{key}", f"one of the keys {', '.join(_KEYS)} of a device with a family")
    family = _word(values.get("family"), f"{path}.family")
    given = {key: _KEYS[key](value, f"{path}.{key}") for key, value in values.items() if value is not None}
    found = {**_USUAL.get(family, {}), **given}
    uuid = found.get("uuid") or f"{family}-{hashlib.sha256(f'{machine}/{family}/{index}'.encode()).hexdigest()[:12]}"
    return MachineCard(
        family=VendorWord(family),
        uuid=DeviceUuid(uuid),
        index=index,
        slots=found.get("slots", 10),
        memory_mib=found.get("memory_mib", 65536),
        cores=found.get("cores", 100),
        # Plug-ins of families that tell models apart register one whose name begins so.
        model=found.get("model") or family,
        numa=found.get("numa", 0),
        healthy=found.get("healthy", True),
        facts=found.get("facts", {}),
    )


def _word(value: object, path: str) -> str:
    """A text that has a place in every form of an inventory."""
    text = read_text(value, path)
    if not text or any(mark in text for mark in ",:;\0"):
        raise WireError(path, "a text without , : ;", text)
    return text


def _facts(value: object, path: str) -> Facts:
    if not isinstance(value, dict) or not all(
        isinstance(key, str) and isinstance(entry, str | int | float) for key, entry in value.items()
    ):
        raise WireError(path, "single values by name", value)
    return value


_USUAL: Final[Mapping[str, Mapping[str, int]]] = {
    "Mthreads": {"memory_mib": 49152, "cores": 16},
    "AWSNeuron": {"memory_mib": 0, "cores": 2, "slots": 2},
    "AMD": {"memory_mib": 196608, "cores": 304},
    "XPU": {"memory_mib": 98304},
    "Enflame": {"memory_mib": 49152, "slots": 6},
}
"""What a family counts otherwise: 16 units of compute, cores, compute units, slices."""
_amount: Final = integer_between(0, INT32_MAX)
_KEYS: Final[Mapping[str, Read]] = {
    "family": _word,
    "count": integer_between(1, MAX_CARDS),
    "model": _word,
    "uuid": _word,
    "numa": integer_between(0, 1023),
    "memory_mib": _amount,
    "cores": _amount,
    "slots": integer_between(1, 1024),
    "healthy": read_flag,
    "facts": _facts,
}
