"""Kunlunxin: whole XPUs, and quarters, halves and wholes of them (vXPU), on boards of two wings of four."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Final

from hami.model.claim import Mib, Need, Share, Why
from hami.model.container import Container, RequestError, amount, integer
from hami.model.device import Device
from hami.model.names import DeviceUuid, VendorWord
from hami.model.registration import cards_of_capacity
from hami.model.section import named
from hami.model.vendor import (
    Chosen,
    NodeFacts,
    Notes,
    Outcome,
    Resources,
    Rule,
    SelectKeys,
    Shaped,
    Spot,
    Terms,
    Vendor,
    Wanted,
)

CARD_MIB: Final = 98304
PARTS: Final = {CARD_MIB // 4: 1, CARD_MIB // 2: 2, CARD_MIB: 4}
"""What a card is cut into, in MiB, and the mark by which its shares are known: all shares of a card are alike."""
TAKES_NONE: Final = 8
"""The mark of a card that is cut in another way, or wholly taken."""
ALL_MARKS: Final = 15
WING: Final = 4
BOARD: Final = 2 * WING
LEGAL: Final[Mapping[int, Sequence[tuple[int, ...]]]] = {
    1: [(card,) for card in range(BOARD)],
    2: [
        *combinations(range(WING), 2),
        *combinations(range(WING, BOARD), 2),
        *((card, card + WING) for card in range(WING)),
    ],
    4: [(0, 1, 2, 3), (4, 5, 6, 7), (0, 1, 4, 5), (2, 3, 6, 7), (0, 2, 4, 6), (1, 3, 5, 7), (0, 3, 4, 7), (1, 2, 5, 6)],
    8: [tuple(range(BOARD))],
}
"""The sets of cards that a board links, by their number: within wings first, then across."""
RANKS: Final = {-1: 3000.0, 0: 2000.0, 1: 1000.0, 2: 0.0}
"""Points of a node by how much more broken its board is after a choice; 1000 for any other difference."""
INDICES: Final = "BAIDU_COM_DEVICE_IDX"


def card(facts: NodeFacts, index: int, count: int) -> Device:
    """A card that is given out whole."""
    uuid, numa = DeviceUuid(f"{facts.name}-kunlun-{index}"), int(2 * index >= count)
    return Device(uuid=uuid, index=index, slots=100, memory_mib=CARD_MIB, cores=100, model="kunlun", numa=numa)


def choose(spots: Sequence[Spot], order: Sequence[int], wanted: Wanted) -> Chosen | None:
    """Linked cards of one board: within a wing if any, as the card policy prefers; then what damages least."""
    passing = {spots[i].index: i for i in order}
    # Idle cards are equal to each other, also where the order of the policy has to put one before the other.
    idle = min((place for place, i in enumerate(order) if spots[i].idle), default=0)
    level = {spots[i].index: idle if spots[i].idle else place for place, i in enumerate(order)}
    sets = []
    for first in sorted({index - index % BOARD for index in passing}):
        there = {index - first for index in passing if first <= index < first + BOARD}
        intact = len(there) == sum(first <= spot.index < first + BOARD for spot in spots)
        for place, cards in enumerate(LEGAL.get(wanted.need.count, ())):
            if there.issuperset(cards):
                disliked = sum(level[first + one] for one in cards)
                crossing, damage = len({one // WING for one in cards}) > 1, _damage(cards, there)
                sets.append((crossing, disliked, intact and len(there) > len(cards), first, damage, place, cards))
    if not sets:
        return None
    *_, first, _, _, cards = min(sets)
    return Chosen(places=tuple(passing[first + one] for one in cards))


def _damage(cards: Sequence[int], there: set[int]) -> tuple[int, bool, bool]:
    """How bad it is to take these: a lone card first, then of the wing of three; what is left may serve others."""
    size = sum(one // WING == cards[0] // WING for one in there)
    within = cards[0] // WING == cards[-1] // WING
    left = there.difference(cards)
    preferred = (1, 3, 2, 4).index(size) if len(cards) == 1 else size
    quadless, pairless = (not any(left.issuperset(some) for some in LEGAL[count]) for count in (4, 2))
    return preferred * within, quadless, pairless


def choose_whole(spots: Sequence[Spot], order: Sequence[int], wanted: Wanted) -> Chosen | None:
    """The same, and how the board looks afterwards; of several containers each counts by its cards."""
    chosen = choose(spots, order, wanted)
    if chosen is None:
        return None
    taken = [spots[i].index for i in chosen.places]
    used = [spot.index for spot in spots if spot.index // BOARD == taken[0] // BOARD and not spot.idle]
    points = RANKS.get(_brokenness(taken) - _brokenness(used), 1000.0)
    return replace(chosen, rank=points * wanted.need.count / wanted.of_pod)


def _brokenness(cards: Sequence[int]) -> int:
    wings = [sum(one % BOARD // WING == wing for one in cards) for wing in (0, 1)]
    return sum({4: 0, 1: 2}.get(size, 1) for size in wings) if cards else 1


def told(counts: Mapping[Why, int]) -> Mapping[Why, int]:
    """One reason a node: what people asked for stands in the way, or else no legal set of cards is left."""
    for why in (Why.TOO_FEW_DEVICES, Why.QUOTA, Why.UUID_MISMATCH):
        if why in counts:
            return {why: counts[why]}
    return {Why.NUMA_NOT_FIT: 1}


def told_of_shares(counts: Mapping[Why, int]) -> Mapping[Why, int]:
    """The same, but cards that others share come first."""
    busy = counts.get(Why.EXCLUSIVE_CONFLICT)
    return {Why.EXCLUSIVE_CONFLICT: busy} if busy else told(counts)


def indices(outcome: Outcome, vendor: Vendor) -> Mapping[str, str]:
    """The cards of all containers."""
    uuids = dict.fromkeys(share.uuid for segment in outcome.segments for share in segment)
    return {INDICES: ",".join(str(outcome.devices[uuid].index) for uuid in uuids)}


def part(container: Container, vendor: Vendor, asked: int) -> int:
    """The part of a card that holds so many MiB; without an amount, all of it."""
    if asked > CARD_MIB:
        found = amount(container, vendor.resources.memory)
        raise RequestError(found[1] if found else container.path, f"at most {CARD_MIB} MiB", asked)
    return next(size for size in PARTS if size >= (asked or CARD_MIB))


def rounded(container: Container, notes: Notes, vendor: Vendor) -> Shaped:
    """Memory as the card is cut, in limits and in requests."""
    memory = vendor.resources.memory
    asked = integer(container, memory, low=0, kinds=("limits",))
    return (
        Shaped(limits={memory: part(container, vendor, asked)}, requests_too=frozenset({memory})) if asked else Shaped()
    )


def cut(need: Need, container: Container, notes: Notes, vendor: Vendor) -> Need:
    """A part of each card, with its part of the cores, beside parts of the same size only."""
    size = part(container, vendor, need.memory.amount if isinstance(need.memory, Mib) else 0)
    mark = PARTS[size]
    return replace(need, memory=Mib(size), cores=size * 100 // CARD_MIB, leaves=mark, no_class=ALL_MARKS & ~mark)


def stand(device: Device, shares: Sequence[Share]) -> tuple[int, int]:
    """The mark of the parts that a card is cut into."""
    if not shares:
        return 0, 0
    used = sum(share.memory_mib for share in shares)
    size = used // len(shares)
    return PARTS.get(size, TAKES_NONE) if used + size <= device.memory_mib else TAKES_NONE, 0


SELECT: Final = SelectKeys(
    uuid_in="hami.io/use-xpu-uuid",
    uuid_out="hami.io/no-use-xpu-uuid",
    also_in="baidu.com/use-gpuuuid",
    also_out="baidu.com/nouse-gpuuuid",
)
TERMS: Final = Terms(apart="with fewer free linked devices than asked")
XPU: Final = Vendor(
    name=VendorWord("kunlun"),
    config_section="kunlun",
    resources=Resources(count="kunlunxin.com/xpu"),
    node_key="",
    read=cards_of_capacity(card),
    pending_key="",
    done_key="hami.io/kunlun-allocated",
    select=SELECT,
    rules=Rule.CORES_AS_ASKED,
    lock_key="",
    default_count=0,
    default_cores=100,
    choose=choose_whole,
    reasons=told,
    dress=indices,
    terms=TERMS,
    dress_keys=(INDICES,),
)
VXPU: Final = Vendor(
    name=VendorWord("XPU"),
    config_section="kunlun",
    resources=Resources(count="kunlunxin.com/vxpu", memory="kunlunxin.com/vxpu-memory"),
    node_key="hami.io/node-register-xpu",
    pending_key="hami.io/xpu-devices-to-allocate",
    done_key="hami.io/xpu-devices-allocated",
    handshake_key="hami.io/node-handshake-xpu",
    select=SELECT,
    rules=Rule.SHARED | Rule.CORES_AS_ASKED,
    default_count=0,
    shape=rounded,
    refine=cut,
    choose=choose,
    stand=stand,
    reasons=told_of_shares,
    terms=TERMS,
)


def configured(section: object) -> tuple[Vendor, ...]:
    """The declarations with a cluster's names."""
    names = {"count": "resourceVCountName", "memory": "resourceVMemoryName"}
    return named(XPU, section, {"count": "resourceCountName"}), named(VXPU, section, names)
