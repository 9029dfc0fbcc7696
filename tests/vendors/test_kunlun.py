"""Kunlunxin beyond the recorded answers: every situation of a board against its links, parts after a restart."""

import json
from itertools import combinations
from typing import Any

import pytest

from hami.alloc.ledger import Ledger
from hami.alloc.place import place
from hami.alloc.record import annotations, read_node, read_pod
from hami.alloc.request import RequestError, read_request
from hami.model.claim import Need, Percent, Refused
from hami.model.vendor import Spot, Wanted
from hami.vendors import kunlun, registry

FAMILIES = registry()
CROSS = {frozenset((i, i + 4)) for i in range(4)}
LINKS = CROSS | {frozenset(pair) for wing in (range(4), range(4, 8)) for pair in combinations(wing, 2)}
"""Within a wing all cards are linked, across only opposite ones."""


def is_legal(cards: frozenset[int]) -> bool:
    """One card, a linked pair, a wing or two opposite pairs, a whole board."""
    opposite = sum(pair <= cards for pair in CROSS)
    match len(cards):
        case 1 | 8:
            return True
        case 2:
            return cards in LINKS
        case 4:
            return opposite == 2 or max(cards) < 4 or min(cards) > 3
        case _:
            return False


def taken(passing: frozenset[int], count: int, cards: int = 8) -> list[int] | None:
    spots = [Spot(index=i, facts={}, idle=i in passing) for i in range(cards)]
    need = Need(vendor=kunlun.XPU.name, count=count, memory=Percent(100), cores=100)
    chosen = kunlun.choose_whole(spots, sorted(passing, reverse=True), Wanted(need=need, of_pod=count))
    return None if chosen is None else list(chosen.places)


def left_for(rest: frozenset[int], count: int) -> bool:
    return any(is_legal(frozenset(cards)) for cards in combinations(sorted(rest), count))


@pytest.mark.parametrize("count", range(1, 9))
def test_every_situation_of_a_board(count: int) -> None:
    """A legal set where there is one, within a wing if possible, and none would leave more to others like it."""
    for bits in range(256):
        passing = frozenset(i for i in range(8) if bits >> i & 1)
        legal = [frozenset(s) for s in combinations(sorted(passing), count) if is_legal(frozenset(s))]
        found = taken(passing, count)
        if not legal:
            assert found is None, f"{found} of {passing}"
            continue
        assert found is not None, f"{legal} of {passing}"
        cards = frozenset(found)
        assert cards in legal
        in_wing = [s for s in legal if len({i // 4 for i in s}) == 1]
        if not in_wing or count == 8:
            alike = legal
        else:
            assert cards in in_wing
            size = sum(i // 4 == found[0] // 4 for i in passing)
            alike = [s for s in in_wing if sum(i // 4 == min(s) // 4 for i in passing) == size]
        for more in (4, 2):
            if not left_for(passing - cards, more):
                assert not any(left_for(passing - other, more) for other in alike), f"{found} of {passing}"
                break


def test_a_whole_board_is_kept_while_a_broken_one_serves() -> None:
    assert taken(frozenset(range(16)) - {9}, 2, cards=16) == [8, 10]
    assert taken(frozenset(range(16)) - {9}, 8, cards=16) == list(range(8))
    assert taken(frozenset(range(16)), 16, cards=16) is None


def node(health: bool = True) -> dict[str, Any]:
    cards = [
        {"id": f"x{i}", "index": i, "count": 4, "devmem": 98304, "devcore": 100, "type": "XPU", "health": health}
        for i in range(2)
    ]
    notes = {"hami.io/node-register-xpu": json.dumps(cards)}
    return {"metadata": {"name": "node", "annotations": notes}, "status": {}}


def pod(name: str, memory: str | None, **notes: str) -> dict[str, Any]:
    limits = {"kunlunxin.com/vxpu": "1"} | ({} if memory is None else {"kunlunxin.com/vxpu-memory": memory})
    return {
        "metadata": {"name": name, "namespace": "n", "uid": name, "annotations": notes},
        "spec": {"containers": [{"name": "c", "resources": {"limits": limits}}]},
    }


class World:
    """One node of two shared cards, filled one pod after the other by a scheduler that starts anew each time."""

    def __init__(self) -> None:
        self.bound: list[dict[str, Any]] = []

    def place(self, document: dict[str, Any], card_policy: str = "binpack") -> str:
        ledger = Ledger(FAMILIES)
        ledger.put_node(read_node(node(), FAMILIES)[0])
        for other in self.bound:
            record, problems = read_pod(other, FAMILIES)
            assert record is not None
            assert problems == ()
            ledger.put_pod(record)
        ledger.check()
        request = read_request(document, FAMILIES)
        verdict = place(ledger, request, None, node_policy="binpack", card_policy=card_policy)
        if isinstance(verdict, Refused):
            return next(iter(verdict.refusals.values())).text
        at = ledger.node(verdict.assignment.node)
        written = annotations(verdict.assignment, FAMILIES, now_unix=0, request=request, node=at)
        document["metadata"]["annotations"] |= written
        document["spec"]["nodeName"] = "node"
        self.bound.append(document)
        return written[kunlun.VXPU.done_key]


def test_a_card_is_cut_into_parts_of_one_size_also_after_a_restart() -> None:
    world = World()
    assert world.place(pod("a", "24576")) == "x0,XPU,24576,25:;"
    assert world.place(pod("b", "24577")) == "x1,XPU,49152,50:;", "not beside a quarter"
    assert world.place(pod("c", "1")) == "x0,XPU,24576,25:;"
    assert world.place(pod("d", "49152")) == "x1,XPU,49152,50:;"
    assert world.place(pod("e", "49152")) == "1/2 NumaNotFit"
    assert world.place(pod("f", "24576"), card_policy="mutex") == "1/2 ExclusiveDeviceAllocateConflict"
    assert world.place(pod("g", "24576")) == "x0,XPU,24576,25:;"
    assert world.place(pod("h", "24576")) == "x0,XPU,24576,25:;"
    assert world.place(pod("i", "24576")) == "1/2 NumaNotFit"
    assert world.place(pod("j", None)) == "1/2 NumaNotFit"


@pytest.mark.parametrize("memory", ["98305", "30Gi", "-1", "0.5", "many"])
def test_a_bad_amount_is_named(memory: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_request(pod("p", memory), FAMILIES)
    assert caught.value.field == "spec.containers[0].resources.limits[kunlunxin.com/vxpu-memory]"


@pytest.mark.parametrize(
    ("notes", "want"),
    [
        ({"hami.io/use-xpu-uuid": "x1"}, "x1,XPU,98304,100:;"),
        ({"baidu.com/use-gpuuuid": "x1"}, "x1,XPU,98304,100:;"),
        ({"hami.io/use-xpu-uuid": "x0, x1", "baidu.com/use-gpuuuid": "x1"}, "x1,XPU,98304,100:;"),
        ({"hami.io/use-xpu-uuid": "x0", "baidu.com/use-gpuuuid": "x1"}, "2/2 CardUuidMismatch"),
        ({"hami.io/use-xpu-uuid": ",", "baidu.com/use-gpuuuid": "x1"}, "2/2 CardUuidMismatch"),
        ({"hami.io/no-use-xpu-uuid": "x0", "baidu.com/nouse-gpuuuid": "x1"}, "2/2 CardUuidMismatch"),
    ],
    ids=str,
)
def test_both_pairs_of_lists_hold(notes: dict[str, str], want: str) -> None:
    assert World().place(pod("p", None, **notes)) == want
