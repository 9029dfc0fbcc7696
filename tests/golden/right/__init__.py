"""What is right where the reference is wrong, and where ours differs by a rule: one table a family."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """The pod is allowed, with exactly this patch beside the scheduler's name."""

    patch: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Denied:
    """The pod is refused; the message contains this text, which names the field."""

    naming: str
    code: int = 403


@dataclass(frozen=True, kw_only=True)
class Nowhere:
    """No candidate fits; every one gives this reason."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A candidate fits; `written` are among its annotations, `absent` are not."""

    node: str
    written: dict[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cards:
    """As recorded, but on other devices by a rule: the UUIDs in the order of the allocation text."""

    rule: str
    uuids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Reasons:
    """Refused as recorded, for other reasons by a rule."""

    rule: str
    failed: dict[str, str] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Untouched:
    """The pod is allowed and nothing of it changes, by a rule."""

    rule: str


@dataclass(frozen=True, kw_only=True)
class Booked:
    """Fits as recorded, but books other amounts or devices by a rule: the allocation text."""

    rule: str
    text: str


@dataclass(frozen=True, kw_only=True)
class OnlyAsked:
    """As recorded, without the empty annotations for families that the pod did not ask for."""


@dataclass(frozen=True, kw_only=True)
class Amended:
    """As recorded, but for these annotations: other texts, or none."""

    rule: str
    texts: dict[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Scored:
    """As recorded, but for the scores of nodes by a rule."""

    rule: str
    scores: dict[str, str]


Right = Admitted | Amended | Denied | Untouched | Nowhere | Placed | Cards | Booked | OnlyAsked | Reasons | Scored


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family's records: the file, the keys of its allocation, and what differs."""

    file: str
    right: dict[str, Right]
    """By record id: every record marked as defect, and every deviation."""
    steps: dict[str, dict[int, Right]] = field(default_factory=dict)
    """The same for single steps of sequences."""


INVALID = Nowhere(reason="InvalidDeviceRequest")
