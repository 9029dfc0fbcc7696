"""Devices that a node only counts: how its capacity is divided, and what of it cannot be used."""

from collections.abc import Mapping
from typing import Any

import pytest

from hami.model.device import Device
from hami.model.names import NodeName, WireError
from hami.model.registration import MOST_CARDS, cards_of_capacity
from hami.model.vendor import NodeFacts
from hami.vendors.cambricon import MLU
from hami.vendors.enflame import GCU
from hami.vendors.mthreads import MTHREADS

CORES, MEMORY = "cambricon.com/mlu.smlu.vcore", "cambricon.com/mlu.smlu.vmemory"


def facts(capacity: Mapping[str, Any]) -> NodeFacts:
    return NodeFacts(name=NodeName("n"), annotations={}, labels={}, capacity=capacity)


def amounts(devices: tuple[Device, ...] | None) -> list[tuple[str, int, int]] | None:
    return None if devices is None else [(device.uuid, device.cores, device.memory_mib) for device in devices]


@pytest.mark.parametrize(
    ("capacity", "cards"),
    [
        pytest.param({CORES: "200", MEMORY: "192"}, [(0, 100, 24576), (1, 100, 24576)], id="whole cards"),
        pytest.param({CORES: "250", MEMORY: "250"}, [(0, 100, 25600), (1, 100, 25600), (2, 50, 12800)], id="a rest"),
        pytest.param({CORES: "3e2", MEMORY: "100"}, [(i, 100, 8533) for i in range(3)], id="memory is rounded down"),
        pytest.param({CORES: "100"}, [(0, 100, 0)], id="memory not known"),
        pytest.param({MEMORY: "96"}, None, id="cores not known: no cards"),
        pytest.param({CORES: "0", MEMORY: "96"}, None, id="no cores"),
    ],
)
def test_shares_of_the_capacity(capacity: dict[str, str], cards: list[tuple[int, int, int]] | None) -> None:
    assert MLU.read is not None
    found = amounts(MLU.read(facts(capacity), MLU, []))
    named = None if cards is None else [(f"n-cambricon-mlu-{i}", cores, memory) for i, cores, memory in cards]
    assert found == named


def test_cards_of_sixteen_units() -> None:
    assert MTHREADS.read is not None
    capacity = {"mthreads.com/sgpu-core": "40", "mthreads.com/sgpu-memory": "240"}
    found = MTHREADS.read(facts(capacity), MTHREADS, [])
    assert amounts(found) == [
        ("n-mthreads-0", 16, 49152),
        ("n-mthreads-1", 16, 49152),
        ("n-mthreads-2", 8, 24576),
    ]


@pytest.mark.parametrize("value", ["-1", "1e10", "many", None, [1], True])
def test_a_capacity_that_is_none_names_its_field(value: object) -> None:
    assert MLU.read is not None
    with pytest.raises(WireError) as caught:
        MLU.read(facts({CORES: value, MEMORY: "96"}), MLU, [])
    assert caught.value.field == f"status.capacity[{CORES}]"


def test_a_giant_capacity_costs_little() -> None:
    assert GCU.read is not None
    assert MLU.read is not None
    many = GCU.read(facts({"enflame.com/gcu": "2000000000"}), GCU, [])
    assert many is not None
    assert len(many) == MOST_CARDS
    shares = MLU.read(facts({CORES: "2000000000"}), MLU, [])
    assert shares is not None
    assert len(shares) == MOST_CARDS
    none = cards_of_capacity(lambda facts, index, count: pytest.fail("no card is there"))
    assert none(facts({}), GCU, []) is None
