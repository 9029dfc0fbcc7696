"""One container, several families: all of them or none, and the same answer in whichever order they are written."""

import json
from itertools import permutations
from typing import Any

from hami.alloc.explain import asks
from hami.alloc.place import place
from hami.alloc.request import read_request
from hami.model.claim import Placed, PodRequest, Refused
from hami.model.names import VendorWord
from hami.scheduler import verdicts
from tests.golden.test_cases import FAMILIES
from tests.golden.test_filter import World

Json = dict[str, Any]
NVIDIA = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "4000"}
MLU = {"cambricon.com/vmlu": "1", "cambricon.com/mlu.smlu.vmemory": "16", "cambricon.com/mlu.smlu.vcore": "20"}
XPU = {"kunlunxin.com/xpu": "2"}


def world() -> World:
    """A card of NVIDIA with 8000 MiB, one of Cambricon with 8192 MiB, two linked ones of Kunlunxin."""
    card = {"id": "GPU-0", "count": 4, "devmem": 8000, "devcore": 100, "type": "NVIDIA-T4", "health": True}
    capacity = {
        "nvidia.com/gpu": "4",
        "cambricon.com/vmlu": "1",
        "cambricon.com/mlu.smlu.vcore": "100",
        "cambricon.com/mlu.smlu.vmemory": "32",
        "kunlunxin.com/xpu": "2",
    }
    node = {"name": "n", "annotations": {"hami.io/node-nvidia-register": json.dumps([card])}, "capacity": capacity}
    asking = pod({})
    made = World({"config": {"devices": {}, "flags": {}}, "nodes": [node], "existing": [], "pod": asking}, FAMILIES)
    assert not made.problems
    return made


def pod(limits: Json) -> Json:
    return {
        "metadata": {"name": "p", "namespace": "default", "uid": "p", "annotations": {}},
        "spec": {"containers": [{"name": "c", "resources": {"limits": limits}}]},
    }


def in_any_order(*parts: Json) -> list[PodRequest]:
    return [
        read_request(pod({key: text for part in order for key, text in part.items()}), FAMILIES)
        for order in permutations(parts)
    ]


def test_all_of_them_whatever_their_order() -> None:
    there = world()
    answers = []
    for request in in_any_order(NVIDIA, MLU, XPU):
        verdict = place(there.ledger, request, None, node_policy="binpack", card_policy="spread")
        assert isinstance(verdict, Placed)
        answers.append({family: tuple(part) for family, part in verdict.assignment.segments.items()})
    assert all(answer == answers[0] for answer in answers)
    assert {family: len(segments[0]) for family, segments in answers[0].items()} == {
        VendorWord("NVIDIA"): 1,
        VendorWord("MLU"): 1,
        VendorWord("kunlun"): 2,
    }


def test_none_of_them_where_one_has_no_room() -> None:
    there = world()
    before = there.ledger.usage(next(iter(there.ledger.nodes)))
    texts = set()
    for request in in_any_order(NVIDIA, MLU | {"cambricon.com/mlu.smlu.vmemory": "33"}, XPU):
        verdict = place(there.ledger, request, None, node_policy="binpack", card_policy="spread")
        assert isinstance(verdict, Refused)
        texts.add(next(iter(verdict.refusals.values())).text)
        assert there.ledger.usage(next(iter(there.ledger.nodes))) == before
        there.ledger.check()
    assert texts == {"1/1 CardInsufficientMemory"}


def test_a_refusal_names_the_family_and_counts_in_its_units() -> None:
    asking = pod({})
    lists = (NVIDIA, NVIDIA, MLU | {"cambricon.com/mlu.smlu.vmemory": "33"})
    asking["spec"]["containers"] = [{"name": f"c{i}", "resources": {"limits": one}} for i, one in enumerate(lists)]
    request = read_request(asking, FAMILIES)
    verdict = place(world().ledger, request, None, node_policy="binpack", card_policy="spread")
    assert isinstance(verdict, Refused)
    text = verdicts.refused(dict(verdict.refusals), "", FAMILIES, asks(request, FAMILIES))
    assert "(largest free 8,192 MiB (32 units of 256 MiB))" in text
    mlu = "MLU: 1 device, 8,448 MiB (33 units of 256 MiB), 20 % cores"
    assert f"asked: 2 x NVIDIA: 1 device, 4,000 MiB and {mlu}; " in text
