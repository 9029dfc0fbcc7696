"""Policy words into what the engine sorts by.

The list of a node's cards is sorted ascending and tried from its end, as HAMi does. Words are trimmed; a blank policy
is absent. Words nobody knows act as `spread` for cards and as `binpack` for nodes; who wrote them is told elsewhere.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class SortKey(IntEnum):
    """The engine's sort keys (`Key` in `_fit.pxd`, held in step by a test)."""

    SCORE_UP = 1
    SCORE_DOWN = 2
    NUMA_UP = 3
    NUMA_DOWN = 4
    USED_DOWN = 5


_CHAIN: Final = {"binpack": SortKey.SCORE_UP, "spread": SortKey.SCORE_DOWN, "numa": SortKey.NUMA_UP}


@dataclass(frozen=True, slots=True, kw_only=True)
class CardPolicy:
    """How the cards of one node are ordered and filtered."""

    keys: tuple[SortKey, ...]
    """Most significant first, ascending; complete ties stand in order of driver index, then UUID."""
    mutex: bool = False
    """Only cards nobody uses."""
    linked: bool = False
    """The best connected cards among all that fit; the order decides between equal sets."""


def card_policy(text: str, *, numa_bind: bool) -> CardPolicy:
    """The order for a card policy: one word, or a comma list whose words are applied as written.

    In a list `mutex` filters and `topology-aware` selects, without being sort keys. `numa_bind` puts the NUMA node
    first, so that the cards of one NUMA node are tried together.
    """
    words = tuple(word for piece in text.split(",") if (word := piece.strip()))
    mutex, linked = "mutex" in words, "topology-aware" in words
    if "," in text or words == ("numa",):
        chain = tuple(_CHAIN[word] for word in words if word in _CHAIN) or (SortKey.SCORE_DOWN, SortKey.NUMA_UP)
        if numa_bind:
            chain = (SortKey.NUMA_UP, *chain)
        return CardPolicy(keys=tuple(dict.fromkeys(chain)), mutex=mutex, linked=linked)
    if mutex:
        return CardPolicy(keys=(SortKey.USED_DOWN, SortKey.NUMA_UP), mutex=True)
    if words == ("binpack",):
        keys = (SortKey.NUMA_DOWN, SortKey.SCORE_UP) if numa_bind else (SortKey.SCORE_UP, SortKey.NUMA_UP)
    else:
        keys = (SortKey.NUMA_UP, SortKey.SCORE_DOWN) if numa_bind else (SortKey.SCORE_DOWN, SortKey.NUMA_UP)
    return CardPolicy(keys=keys, linked=linked)


def spreads_nodes(text: str) -> bool:
    """Whether the node policy prefers the emptiest node; every other word prefers the fullest."""
    return text.strip() == "spread"
