"""Policy words into what the engine sorts by.

The list of a node's cards is sorted ascending and tried from its end, as HAMi does. Words are trimmed; a blank policy
is absent. Words nobody knows act as `spread` for cards and as `binpack` for nodes; who wrote them is told elsewhere.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class SortKey(IntEnum):
    """The engine's sort keys (`Key` in `_ask.pxd`, held in step by a test)."""

    SCORE_UP = 1
    SCORE_DOWN = 2
    NUMA_UP = 3
    NUMA_DOWN = 4
    USED_DOWN = 5
    TAKEN_UP = 6
    PULL_UP = 7


FRAGMENTATION: Final = "fragmentation"
"""Our own policy, for nodes and cards: take where the least is lost of what the rest could still be used for."""

_CHAIN: Final = {
    "binpack": SortKey.SCORE_UP,
    "spread": SortKey.SCORE_DOWN,
    FRAGMENTATION: SortKey.SCORE_DOWN,
    "numa": SortKey.NUMA_UP,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CardPolicy:
    """How the cards of one node are ordered and filtered."""

    keys: tuple[SortKey, ...]
    """Most significant first, ascending; complete ties stand in order of driver index, then UUID."""
    ranked: tuple[SortKey, ...]
    """Those of the keys that count before the links between cards; the others only order what is still equal."""
    mutex: bool = False
    """Only cards nobody uses."""
    by_loss: bool = False
    """A card's score is what its node loses by a share of it, instead of its use."""
    linked: bool = False
    """The best connected cards among all that fit, whatever their use; nodes rank by their links first."""


def card_policy(text: str, *, numa_bind: bool) -> CardPolicy:
    """The order for a card policy: one word, or a comma list whose words are applied as written.

    In a list `mutex` filters and `topology-aware` selects, without being sort keys. `numa_bind` puts the NUMA node
    first, so that the cards of one NUMA node are tried together; which node is best is then decided by the other keys.
    """
    words = tuple(word for piece in text.split(",") if (word := piece.strip()))
    mutex, linked = "mutex" in words, "topology-aware" in words
    # One score is kept a card, so of several words about it the first one says which.
    by_loss = next((word for word in words if word in ("binpack", "spread", FRAGMENTATION)), "") == FRAGMENTATION
    if "," in text or words == ("numa",):
        written = tuple(dict.fromkeys(_CHAIN[word] for word in words if word in _CHAIN))
        chain = written or (SortKey.SCORE_DOWN, SortKey.NUMA_UP)
        keys = tuple(dict.fromkeys((SortKey.NUMA_UP, *chain))) if numa_bind else chain
        ranked = written or (SortKey.SCORE_DOWN,)
        return CardPolicy(keys=keys, ranked=() if linked else ranked, mutex=mutex, by_loss=by_loss, linked=linked)
    if mutex:
        return CardPolicy(keys=(SortKey.USED_DOWN, SortKey.NUMA_UP), ranked=(SortKey.USED_DOWN,), mutex=True)
    score, numa = SortKey.SCORE_DOWN, SortKey.NUMA_UP
    if words == ("binpack",):
        score, numa = SortKey.SCORE_UP, SortKey.NUMA_DOWN if numa_bind else SortKey.NUMA_UP
    keys = (numa, score) if numa_bind else (score, numa)
    return CardPolicy(keys=keys, ranked=() if linked else (score,), by_loss=by_loss, linked=linked)


def spreads_nodes(text: str) -> bool:
    """Whether the node policy prefers the emptiest node; every other word prefers the fullest."""
    return text.strip() == "spread"


def names_direction(text: str) -> bool:
    """Whether the node policy is one of the two words by which families with scores of their own rank nodes."""
    return text.strip() in ("binpack", "spread")


def weighs_nodes(text: str) -> bool:
    """Whether the node policy prefers the node that loses least of its worth."""
    return text.strip() == FRAGMENTATION
