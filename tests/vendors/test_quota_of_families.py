"""A namespace's quota holds for every family, on what a request comes to and not on what it says."""

from collections.abc import Mapping
from typing import Any, Final

import pytest

from hami.alloc.admit import admit
from hami.alloc.place import place
from hami.alloc.request import read_request
from hami.model.claim import Placed, Refused
from hami.model.settings import SchedulerSettings
from tests.alloc.jsonpatch import apply_patch
from tests.golden.test_cases import FAMILIES, FILES, described, pod, vendor_of
from tests.golden.test_filter import World

Json = dict[str, Any]
ASKS: Final[Mapping[str, tuple[str, Json, str, int]]] = {
    # By file: what a pod asks, and how much of which resource that comes to in the unit of pods.
    "nvidia: all memory": ("nvidia", {"gpu": 1}, "gpumem", 16384),
    "nvidia: percent": ("nvidia", {"gpumem-percentage": 33}, "gpumem", 5406),
    "nvidia: whole cards": ("nvidia", {"gpu": 2}, "gpucores", 200),
    "MLU: all memory": ("cambricon", {"vmlu": 1}, "mlu.smlu.vmemory", 96),
    "MLU: cores nobody named": ("cambricon", {"vmlu": 1, "mlu.smlu.vmemory": 1}, "mlu.smlu.vcore", 100),
    "DCU: all memory": ("hygon", {"dcunum": 1}, "dcumem", 32752),
    "DCU: cores nobody named": ("hygon", {"dcunum": 2}, "dcucores", 200),
    "Iluvatar: all memory": ("iluvatar", {"-vgpu": 1}, ".vMem", 128),
    "Iluvatar: cores are not multiplied twice": ("iluvatar", {"-vgpu": 2}, ".vCore", 200),
    "Moore Threads: all memory": ("mthreads", {"vgpu": 1}, "sgpu-memory", 96),
    "Moore Threads: cores of 16": ("mthreads", {"vgpu": 2}, "sgpu-core", 32),
    "Ascend: the template": (
        "ascend910b2",
        {"Ascend910B2": 1, "Ascend910B2-memory": 9000},
        "Ascend910B2-memory",
        16384,
    ),
    "Ascend: the whole card": ("ascend310p", {"Ascend310P": 1}, "Ascend310P-memory", 21527),
    "MetaX: all memory, in GiB": ("metax-sgpu", {"sgpu": 1}, "vmemory", 64),
    "MetaX: cores nobody named": ("metax-sgpu", {"sgpu": 2}, "vcore", 200),
    "Kunlunxin: the part": ("kunlun-vxpu", {"vxpu": 2, "vxpu-memory": 30000}, "vxpu-memory", 98304),
    "Enflame: the profile, in GiB": ("enflame-drs", {"gcu-memory": 7}, "gcu-memory", 20),
    "Enflame: the profile's percent": ("enflame-drs", {"drs-gcu": 3}, "gcu-core", 50),
    "Neuron: the devices' cores": ("awsneuron", {"neuron": 2}, "neuroncore", 4),
    "AMD: all memory": ("amd", {"gpu": 1}, "gpumem", 196608),
    "AMD: compute units": ("amd", {"gpu": 1, "gpumem": 1, "gpucores": 50}, "gpucores", 152),
}


@pytest.mark.parametrize("case", ASKS)
def test_one_less_than_it_comes_to_is_too_little(case: str) -> None:
    name, asked, resource, amount = ASKS[case]
    file = FILES[name]
    prefix, node = file["prefix"], next(iter(file["nodes"]))
    limits = {prefix + key: str(value) for key, value in asked.items()}
    asking = pod("asking", [{"name": "c", "resources": {"limits": limits}}], {})
    verdict = admit(asking, registry=FAMILIES, settings=SchedulerSettings(), namespace="default", username="somebody")
    assert verdict.allowed, verdict.message
    for hard, fits in ((amount, True), (amount - 1, False)):
        record: Json = {
            "config": {"devices": {}, "flags": {}},
            "nodes": [described(node, file["nodes"][node], vendor_of(file))],
            "existing": [],
            "quotas": {"q": {f"limits.{prefix}{resource}": str(hard)}},
            "pod": asking,
        }
        world = World(record, FAMILIES)
        assert not world.problems
        request = read_request(apply_patch(asking, verdict.patch), FAMILIES)
        answer = place(world.ledger, request, None, node_policy="binpack", card_policy="spread", quota=world.quotas)
        assert isinstance(answer, Placed if fits else Refused), hard
        if isinstance(answer, Refused):
            assert any("ResourceQuotaNotFit" in refusal.text for refusal in answer.refusals.values())
