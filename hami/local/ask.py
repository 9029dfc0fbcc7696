"""What the command line of `hami run` asks for, as a value, in the directory's files and in words."""

from dataclasses import dataclass
from typing import Any, Final

from hami.model.claim import Memory, Mib, Percent
from hami.model.names import INT32_MAX, WireError

POLICIES: Final = ("binpack", "spread")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """So many devices, and this much of each."""

    gpus: int
    memory: Memory
    cores: int
    """Percent of each device's compute; 0 = no limit."""
    policy: str

    @property
    def text(self) -> str:
        """For people: `2 devices, 3,000 MiB and 30 % of compute each`."""
        amount = f"{self.memory.amount:,} MiB" if isinstance(self.memory, Mib) else f"{self.memory.amount} % of memory"
        compute = f" and {self.cores} % of compute" if self.cores else ""
        return f"{self.gpus} {'device' if self.gpus == 1 else 'devices'}, {amount}{compute}{' each' * (self.gpus > 1)}"


def read_ask(*, gpus: int, gpumem: int | None, gpumem_percentage: int | None, gpucores: int | None, policy: str) -> Ask:
    """The options as a request; WireError names the option that cannot be met by any machine.

    As in a pod: no memory asked means the whole device, and a whole device without a core limit means alone on it.
    """
    if gpus < 1:
        raise WireError("--gpus", "an integer of at least 1", gpus)
    if gpumem is not None and gpumem_percentage is not None:
        raise WireError("--gpumem-percentage", "absent when --gpumem is given", gpumem_percentage)
    if gpumem is not None and not 1 <= gpumem <= INT32_MAX:
        raise WireError("--gpumem", f"MiB, an integer from 1 to {INT32_MAX}", gpumem)
    if gpumem_percentage is not None and not 1 <= gpumem_percentage <= 100:
        raise WireError("--gpumem-percentage", "an integer from 1 to 100", gpumem_percentage)
    if gpucores is not None and not 0 <= gpucores <= 100:
        raise WireError("--gpucores", "a percentage from 0 to 100", gpucores)
    if policy not in POLICIES:
        raise WireError("--policy", " or ".join(POLICIES), policy)
    memory: Memory = Mib(gpumem) if gpumem is not None else Percent(gpumem_percentage or 100)
    whole = memory == Percent(100)
    return Ask(gpus=gpus, memory=memory, cores=gpucores if gpucores is not None else 100 if whole else 0, policy=policy)


def ask_document(ask: Ask) -> dict[str, Any]:
    """The request as JSON values; `ask_of` reads it back."""
    unit = "memory_mib" if isinstance(ask.memory, Mib) else "memory_percent"
    return {"gpus": ask.gpus, unit: ask.memory.amount, "cores": ask.cores, "policy": ask.policy}


def ask_of(document: object, field: str) -> Ask:
    """The request in a file of the directory; WireError names the key that is wrong."""
    if not isinstance(document, dict):
        raise WireError(field, "an object", document)
    unit = "memory_mib" if "memory_mib" in document else "memory_percent"
    amount = _whole(document, unit, field, 1, INT32_MAX if unit == "memory_mib" else 100)
    policy = document.get("policy")
    if policy not in POLICIES:
        raise WireError(f"{field}.policy", " or ".join(POLICIES), policy)
    return Ask(
        gpus=_whole(document, "gpus", field, 1, INT32_MAX),
        memory=Mib(amount) if unit == "memory_mib" else Percent(amount),
        cores=_whole(document, "cores", field, 0, 100),
        policy=str(policy),
    )


def _whole(document: dict[str, Any], key: str, field: str, low: int, high: int) -> int:
    value = document.get(key)
    if type(value) is not int or not low <= value <= high:
        raise WireError(f"{field}.{key}", f"an integer from {low} to {high}", value)
    return value
