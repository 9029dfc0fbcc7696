"""Simulated devices of other families in a machine's description."""

from typing import Any

import pytest

from hami.model.machine import read_machine
from hami.model.machine_cards import MAX_CARDS
from hami.model.names import WireError


def cards(*devices: dict[str, Any]) -> tuple[Any, ...]:
    return read_machine({"devices": list(devices)}, "node-1").cards


def test_a_family_and_a_count_are_enough() -> None:
    one, two, other, third = cards({"family": "DCU", "count": 2}, {"family": "Mthreads"}, {"family": "DCU"})
    assert [card.index for card in (one, two, third)] == [0, 1, 2]
    assert len({card.uuid for card in (one, two, third)}) == 3
    assert one.uuid == cards({"family": "DCU"})[0].uuid, "the same for the same machine and index"
    assert (one.model, one.cores, other.cores) == ("DCU", 100, 16)


def test_lists_give_each_its_own() -> None:
    found = cards({"family": "Vastai", "count": 2, "numa": [0, 1], "facts": [{"AIC": 0}, {"AIC": 1}]})
    assert [(card.numa, card.facts) for card in found] == [(0, {"AIC": 0}), (1, {"AIC": 1})]


def test_gpus_beside_them_keep_their_places() -> None:
    machine = read_machine({"devices": [{"family": "DCU"}, {"model": "Tesla T4", "count": 2}]}, "node-1")
    assert (len(machine.devices), len(machine.cards)) == (2, 1)


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({"family": None}, "machine.devices[0].family"),
        ({"family": "a,b"}, "machine.devices[0].family"),
        ({"family": "DCU", "mig": "enabled"}, "machine.devices[0].mig"),
        ({"family": "DCU", "count": 0}, "machine.devices[0].count"),
        ({"family": "DCU", "count": MAX_CARDS + 1}, "machine.devices[0].count"),
        ({"family": "DCU", "memory_mib": -1}, "machine.devices[0].memory_mib"),
        ({"family": "DCU", "slots": 0}, "machine.devices[0].slots"),
        ({"family": "DCU", "facts": {"a": {}}}, "machine.devices[0].facts"),
        ({"family": "DCU", "count": 2, "uuid": "same"}, "machine.devices"),
    ],
)
def test_what_cannot_be_meant_is_named(entry: dict[str, Any], field: str) -> None:
    with pytest.raises(WireError) as refused:
        cards(entry)
    assert refused.value.field == field
