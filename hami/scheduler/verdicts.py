"""What a person reads about a decision: the texts of events.

HAMi's sentences come first and unchanged, because dashboards and scripts look for them; then what helps: counts by
reason, the largest free amount, a few names. The events API takes 1,024 bytes.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from hami.alloc.explain import in_words
from hami.model.claim import NodeRefusal, Placed
from hami.model.names import NodeName
from hami.model.vendor import Registry

LONGEST: Final = 1024
"""Bytes of an event's message."""
NAMES: Final = 5
"""Node names told for one reason."""
SCORES: Final = 20
"""Fitting nodes told with their scores."""


def found(placed: Placed) -> str:
    """`find fit node(n2), 1 nodes not fit, 2 nodes fit(n1:0.00,n2:2.98)`: the winner is the last of the list."""
    shown = [f"{node}:{score:.2f}" for node, score in reversed(placed.scores[:SCORES])]
    if len(placed.scores) > SCORES:
        shown.insert(0, f"{len(placed.scores) - SCORES} more ...")
    unfit, fit = len(placed.refusals), len(placed.scores)
    return cut(f"find fit node({placed.assignment.node}), {unfit} nodes not fit, {fit} nodes fit({','.join(shown)})")


def refused(
    refusals: Mapping[NodeName, NodeRefusal], hint: str = "", registry: Registry | None = None, asked: str = ""
) -> str:
    """`no available node, 3 nodes do not meet: 12 devices short of memory; 2 nodes CardInsufficientMemory(n1,n2)`.

    `asked` is what the pod asks for, and `hint` what would help; both stand before the names, which may be cut off.
    Amounts are in the units of their family where the registry is given.
    """
    by_word: dict[str, list[NodeName]] = {}
    for name, refusal in refusals.items():
        for why in refusal.counts:
            by_word.setdefault(why.word, []).append(name)
    _, _, reasons = in_words(refusals.values(), registry).partition(": ")
    words = [
        f"{len(names)} nodes {word}({_few(names)})"
        for word, names in sorted(by_word.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    ]
    told = [f"no available node, {len(refusals)} nodes do not meet: {reasons}", asked and f"asked: {asked}", hint]
    return cut("; ".join([*filter(None, told), *words]))


def texts(refusals: Mapping[NodeName, NodeRefusal]) -> dict[NodeName, str]:
    """The wire's reason text by node; nodes refuse for few different reasons, so each text is made once."""
    made: dict[object, str] = {}
    found: dict[NodeName, str] = {}
    for name, refusal in refusals.items():
        key = refusal.devices, tuple(refusal.counts.items())
        text = made.get(key)
        if text is None:
            text = made[key] = refusal.text
        found[name] = text
    return found


def cut(text: str, limit: int = LONGEST) -> str:
    """`text` in at most `limit` bytes of UTF-8."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= limit:
        return text
    return raw[: limit - 3].decode("utf-8", "ignore") + "..."


def _few(names: Sequence[NodeName]) -> str:
    shown = ",".join(sorted(names)[:NAMES])
    return f"{shown}... and {len(names) - NAMES} more" if len(names) > NAMES else shown
