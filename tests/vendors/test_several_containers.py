"""Containers of one pod that each want a group of devices, against every way to deal the devices out.

Families with hard groups (Kunlunxin's boards, Neuron's windows, modules of an Ascend 910C, Vastai's cards for pods that
want them alone): a pod is placed exactly where some way exists. Families that only prefer groups (Ascend networks,
Vastai's cards, MetaX link zones): what is dealt out is as good as the best way.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import pytest

from hami.alloc.place import place
from hami.alloc.request import read_request
from hami.model.claim import Placed
from hami.model.names import VendorWord
from hami.vendors import metax_sgpu
from tests.golden.test_cases import FAMILIES, described, holder
from tests.golden.test_filter import World

Json = dict[str, Any]
Cards = tuple[int, ...]
Deal = tuple[Cards, ...]
"""Cards of each container."""
CASES: Final = 150
KIND: Final = "node.kubernetes.io/instance-type"


@dataclass(frozen=True, slots=True)
class Scene:
    """A node of one family with some devices in use."""

    group: tuple[int, ...]
    """By device: network, card, zone (0 = none), or nothing."""
    free: frozenset[int]
    alone: bool = False
    ring: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A family, how its nodes look and what may lie together."""

    family: str
    resource: str
    card: str
    held: str
    """What a device that is in use holds, after its number."""
    groups: Sequence[tuple[int, ...]]
    node: Callable[[Scene], Json]
    wants: Sequence[int]
    legal: Callable[[Scene, Cards], bool] = lambda scene, cards: True
    together: Callable[[Scene, Deal], bool] = lambda scene, deal: True
    cost: Callable[[Scene, Deal], tuple[int, ...]] = lambda scene, deal: ()
    """Lowest is best."""
    exact_if: Callable[[Sequence[int]], bool] = lambda wants: True
    """Whether the family says which devices such containers get."""
    notes: tuple[tuple[str, str], ...] = ()
    may_be_alone: bool = False


def registered(kind: str, model: str, facts: Callable[[int], Json], **more: Any) -> Callable[[Scene], Json]:
    """Nodes with an inventory of so many devices as the scene has."""

    def node(scene: Scene) -> Json:
        card = {
            "id": f"{kind}-{{}}",
            "count": 1,
            "devmem": 65536,
            "devcore": 100,
            "type": model,
            "health": True,
            **more,
        }
        each = {i: {"custominfo": facts(group)} for i, group in enumerate(scene.group)}
        return {"cards": len(scene.group), "card": card, "each": each}

    return node


def of_capacity(*names: str, each: int = 1) -> Callable[[Scene], Json]:
    def node(scene: Scene) -> Json:
        amounts = {name: len(scene.group) * (each if place else 1) for place, name in enumerate(names)}
        return {"capacity": amounts, "labels": {KIND: "inf2.x" if scene.ring else "trn1.x"}}

    return node


def zoned(scene: Scene) -> Json:
    common = {"uuid": "M-{}", "totalDevCount": 4, "totalCompute": 100, "totalVRam": 65536, "healthy": True}
    each = {i: {"linkZone": zone} for i, zone in enumerate(scene.group)}
    return {"cards": len(scene.group), "card": common, "each": each}


def groups_used(scene: Scene, deal: Deal) -> tuple[int, ...]:
    """Groups of each container; devices left over in the groups that the pod is in; groups that it has broken."""
    taken = {card for cards in deal for card in cards}
    opened = {scene.group[card] for card in taken}
    left = [card for card in scene.free - taken if scene.group[card] in opened]
    whole = {one for one in opened if all(card in scene.free for card, group in enumerate(scene.group) if group == one)}
    parts = sum(len({scene.group[card] for card in cards}) for cards in deal)
    return parts, len(left), len({scene.group[card] for card in left} & whole)


def links_lost(scene: Scene, deal: Deal) -> tuple[int, ...]:
    """The family's score of a pod's cards: ten for each link among them, less one for each that is cut."""
    taken = {card for cards in deal for card in cards}

    def links(cards: frozenset[int] | set[int]) -> int:
        zones = [scene.group[card] for card in cards if scene.group[card]]
        return 10 * sum(zones.count(zone) * (zones.count(zone) - 1) // 2 for zone in set(zones))

    return (-(10 * links(taken) - (links(scene.free) - links(taken) - links(scene.free - taken))),)


CROSS: Final = {
    frozenset(quad) for quad in ((0, 1, 4, 5), (2, 3, 6, 7), (0, 2, 4, 6), (1, 3, 5, 7), (0, 3, 4, 7), (1, 2, 5, 6))
}


def on_board(scene: Scene, cards: Cards) -> bool:
    """Within a wing of four, or one of the crossings of a board."""
    boards = {card // 8 for card in cards}
    local = frozenset(card % 8 for card in cards)
    wings = {card // 4 for card in local}
    if len(boards) > 1 or len(cards) not in (1, 2, 4, 8):
        return False
    if len(wings) == 1 or len(cards) == 8:
        return True
    low, *_, high = sorted(local)
    return high - low == 4 if len(cards) == 2 else local in CROSS


def neighbours(scene: Scene, cards: Cards) -> bool:
    """A run on a ring, or an aligned block."""
    size = len(scene.group)
    if len(cards) == 1:
        return True
    if scene.ring:
        return sum((card + 1) % size not in cards for card in cards) <= 1
    return len(cards) in (4, 8, 16) and cards[0] % len(cards) == 0 and cards[-1] - cards[0] == len(cards) - 1


def whole_modules(scene: Scene, cards: Cards) -> bool:
    return len(cards) == 1 or all(card ^ 1 in cards for card in cards)


def cards_alone(scene: Scene, deal: Deal) -> bool:
    """No card with a die that somebody else has."""
    if not scene.alone:
        return True
    used = [{scene.group[die] for die in dies} for dies in deal]
    busy = {scene.group[die] for die in range(len(scene.group)) if die not in scene.free}
    return all(not mine & busy and all(not mine & other for other in used[:i]) for i, mine in enumerate(used))


HALVES: Final = ((0,) * 4 + (1,) * 4, (0, 0, 0, 1, 1, 1, 1, 1), (0, 0, 1, 1, 1, 2, 2, 2), (0, 1, 0, 1, 1, 2, 2, 2))
KINDS: Final = (
    Kind(
        family="Ascend910B3",
        resource="huawei.com/Ascend910B3",
        card="NPU-{}",
        held="65536 0",
        groups=HALVES,
        node=registered("NPU", "Ascend910B3", lambda group: {"NetworkID": group}),
        wants=(1, 2, 3, 4),
        cost=groups_used,
        exact_if=lambda wants: max(wants) > 1,
    ),
    Kind(
        family="Ascend910C",
        resource="huawei.com/Ascend910C",
        card="NPU-{}",
        held="65536 0",
        groups=((0,) * 8,),
        node=registered("NPU", "Ascend910C", lambda group: {"NetworkID": 0}),
        wants=(1, 2, 4),
        legal=whole_modules,
    ),
    Kind(
        family="Vastai",
        resource="vastaitech.com/va",
        card="V-{}",
        held="0 0",
        groups=(*HALVES, (0, 0, 1, 1, 2, 2, 3, 3)),
        node=registered("V", "Vastai", lambda group: {"DeviceStrategy": "die", "AIC": str(group)}),
        wants=(1, 2, 3, 4),
        together=cards_alone,
        cost=groups_used,
        exact_if=lambda wants: max(wants) > 1,
        may_be_alone=True,
    ),
    Kind(
        family="Metax-SGPU",
        resource="metax-tech.com/sgpu",
        card="M-{}",
        held="65536 100",
        groups=((1, 1, 1, 1, 2, 2, 2, 2), (1, 1, 1, 2, 2, 2, 2, 0), (1, 1, 2, 2, 2, 0, 0, 0)),
        node=zoned,
        wants=(1, 2, 3, 4),
        cost=links_lost,
        notes=((metax_sgpu.QOS, "best-effort"), (metax_sgpu.AWARE, "true")),
    ),
    Kind(
        family="kunlun",
        resource="kunlunxin.com/xpu",
        card="n-kunlun-{}",
        held="98304 100",
        groups=((0,) * 8, (0,) * 8, (0,) * 12),
        node=of_capacity("kunlunxin.com/xpu"),
        wants=(1, 2, 4),
        legal=on_board,
    ),
    Kind(
        family="AWSNeuron",
        resource="aws.amazon.com/neuron",
        card="n-AWSNeuron-{}",
        held="0 3",
        groups=((0,) * 8, (0,) * 12),
        node=of_capacity("aws.amazon.com/neuron", "aws.amazon.com/neuroncore", each=2),
        wants=(1, 2, 3, 4),
        legal=neighbours,
    ),
)


def deals(kind: Kind, scene: Scene, wants: Sequence[int], free: frozenset[int]) -> Iterator[Deal]:
    """Every way in which each container gets cards that go together."""
    if not wants:
        yield ()
        return
    for cards in combinations(sorted(free), wants[0]):
        if kind.legal(scene, cards):
            for others in deals(kind, scene, wants[1:], free - set(cards)):
                if kind.together(scene, (cards, *others)):
                    yield cards, *others


def asking(kind: Kind, wants: Sequence[int], inits: int, notes: dict[str, str]) -> Json:
    containers = [
        {"name": f"c{i}", "resources": {"limits": {kind.resource: str(want)}}} for i, want in enumerate(wants)
    ]
    return {
        "metadata": {"name": "p", "namespace": "default", "uid": "p", "annotations": notes},
        "spec": {"initContainers": containers[:inits], "containers": containers[inits:]},
    }


def file_of(kind: Kind) -> Json:
    return {"family": kind.family, "card": kind.card, "held_notes": dict(kind.notes)}


def check(kind: Kind, rng: random.Random, label: str) -> bool:
    """One random case; whether it was placed."""
    group = rng.choice(kind.groups)
    busy = {i for i in range(len(group)) if rng.random() < rng.choice((0.0, 0.2, 0.5))}
    alone = kind.may_be_alone and rng.random() < 0.3
    scene = Scene(group, frozenset(range(len(group))) - busy, alone=alone, ring=rng.random() < 0.5)
    wants = [rng.choice(kind.wants) for _ in range(rng.randint(2, 3))]
    inits = int(rng.random() < 0.25)
    word = "mutex" if alone else rng.choice(("binpack", "spread"))
    node = described("n", kind.node(scene), FAMILIES[VendorWord(kind.family)])
    record: Json = {
        "config": {"devices": {}, "flags": {}},
        "nodes": [node],
        "existing": [holder(file_of(kind), "n", i, f"{i} {kind.held}") for i in sorted(busy)],
        "pod": {"metadata": {"namespace": "default"}},
    }
    world = World(record, FAMILIES)
    assert not world.problems
    request = read_request(asking(kind, wants, inits, dict(kind.notes)), FAMILIES)
    verdict = place(world.ledger, request, None, node_policy="binpack", card_policy=word)
    ways = list(deals(kind, scene, wants[inits:], scene.free))
    alone_fits = not inits or any(deals(kind, scene, wants[:1], scene.free))
    where = f"{label}: {group} without {sorted(busy)}, {wants}, {inits} first, {word}"
    assert isinstance(verdict, Placed) == bool(ways and alone_fits), where
    if not isinstance(verdict, Placed):
        return False
    segments = verdict.assignment.segments[VendorWord(kind.family)]
    found = tuple(tuple(sorted(int(re.findall(r"\d+$", share.uuid)[0]) for share in part)) for part in segments)
    assert found[inits:] in ways, f"{where}: {found}"
    if kind.exact_if(wants) and not alone:
        best = min(kind.cost(scene, way) for way in ways)
        assert kind.cost(scene, found[inits:]) == best, f"{where}: {found}"
    return True


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.family)
def test_containers_get_groups_wherever_there_are_any_and_the_best(kind: Kind) -> None:
    placed = [check(kind, random.Random(seed), f"seed {seed}") for seed in range(CASES)]
    # Both answers occur, and often enough.
    assert CASES // 10 < sum(placed) < CASES - CASES // 20


SIZES: Final = {1: 6144, 3: 20480, 6: 40960}
"""Slices and MiB of what a card is cut into, six slices and 40 GiB in all."""


@pytest.mark.parametrize("seed", range(60))
def test_slices_for_all_containers_are_of_one_card_wherever_one_has_them(seed: int) -> None:
    """Enflame's plug-in is told of one card a pod, so init containers are bound to it, too."""
    rng = random.Random(seed)
    free = [rng.randint(0, 6) for _ in range(3)]
    listed = [{"index": str(i), "minor": str(i), "capacity": 6} for i in range(3)]
    said = {"devices": listed, "profiles": {f"{size}g.{mib // 1024}gb": str(size) for size, mib in SIZES.items()}}
    family = FAMILIES[VendorWord("Enflame")]
    held = [f"{i} 6144 17" for i, left in enumerate(free) for _ in range(6 - left)]
    notes = {"assigned-containers": '{"c":{"request":1,"profileName":"1g.6gb"}}'}
    file = {"family": "Enflame", "card": "n-enflame-drs-{}", "held_notes": notes}
    record: Json = {
        "config": {"devices": {}, "flags": {}},
        "nodes": [described("n", {"annotations": {family.node_key: said}}, family)],
        "existing": [holder(file, "n", i, told) for i, told in enumerate(held)],
        "pod": {"metadata": {"namespace": "default"}},
    }
    world = World(record, FAMILIES)
    assert not world.problems
    inits = rng.randint(0, 1)
    wants = [rng.choice((1, 1, 3, 6)) for _ in range(inits + rng.randint(1, 3))]
    pod = {
        "metadata": {"name": "p", "namespace": "default", "uid": "p", "annotations": {}},
        "spec": {
            kind: [{"name": f"{kind}{i}", "resources": {"limits": {"enflame.com/drs-gcu": str(w)}}} for i, w in them]
            for kind, them in (("initContainers", enumerate(wants[:inits])), ("containers", enumerate(wants[inits:])))
        },
    }
    request = read_request(pod, FAMILIES)
    verdict = place(world.ledger, request, None, node_policy="binpack", card_policy=rng.choice(("binpack", "spread")))

    def has_room(left: int, sizes: Sequence[int]) -> bool:
        return sum(sizes) <= left and sum(map(SIZES.__getitem__, sizes)) <= 40960 - (6 - left) * 6144

    able = {i for i, left in enumerate(free) if has_room(left, wants[:inits]) and has_room(left, wants[inits:])}
    assert isinstance(verdict, Placed) == bool(able), (free, wants, inits)
    if isinstance(verdict, Placed):
        cards = {share.uuid for part in verdict.assignment.segments[family.name] for share in part}
        assert len(cards) == 1
        assert int(cards.pop()[-1]) in able
