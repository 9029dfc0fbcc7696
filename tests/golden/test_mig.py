"""MIG placement against what the reference answered: which profile, how much is booked, fits or not.

Where an instance lies may differ from the record by our rules; every such record is listed with the place that is ours.
"""

import json
from typing import Any

import pytest

from hami.alloc.record import stale_keys
from hami.model.claim import Why
from hami.model.wire import pod as keys
from tests.golden.test_filter import Answer, World, amounts, differences, judge, play, records

FILES = ("nvidia-mig",)
FILTERS = records("filter", FILES)
SEQUENCES = records("sequence", FILES)

INFEASIBLE = f"1/1 {Why.MIG_INFEASIBLE.word}"
UNSOUND = f"1/1 {Why.UNHEALTHY.word}"
NO_ROOM = f"1/1 {Why.NO_MEMORY.word}"
Right = str | list[tuple[int, str, str, int]]
"""A refusal, or (container, last letter of the card, profile, start) of every instance."""

DEFECTS: dict[str, Right] = {
    # An instance has the compute that is asked for.
    "nvm-f-013": [(0, "0", "7g.40gb", 0)],
    # One segment a container, and the reservation counts alike.
    "nvm-f-024": [(1, "0", "1g.5gb", 6)],
    # An instance that names no slices fills the card until it ends; a share without reservation makes it unusable.
    "nvm-f-042": INFEASIBLE,
    "nvm-f-043": UNSOUND,
    # A share of a card is a share of its slices.
    "nvg-f-001": [(0, "0", "1g.5gb", 6)],
    "nvg-f-005": [(0, "0", "3g.20gb", 4)],
    "nvg-f-006": [(0, "0", "2g.12gb", 0)],
    "nvg-f-007": [(0, "0", "1g.24gb", 9)],
    # All containers are one decision.
    "nvg-f-014": [(0, "0", "1g.5gb", 3), (1, "0", "2g.10gb", 0), (2, "0", "3g.20gb", 4)],
}
PLACES: dict[str, list[tuple[int, str, str, int]]] = {
    # Both containers beside each other leave a half.
    "nvm-f-025": [(0, "0", "2g.10gb", 4), (1, "0", "1g.5gb", 6)],
    # The half that is broken already is filled.
    "nvm-f-028": [(0, "0", "1g.5gb", 2)],
    # The card that is broken already is used, the other one stays whole.
    "nvm-f-046": [(0, "1", "1g.5gb", 5)],
    "nvm-f-051": [(0, "1", "1g.5gb", 5)],
}
# Record -> step -> what is right there; other steps place and refuse as recorded.
SEQUENCE_DEFECTS: dict[str, dict[int, Right]] = {
    "nvm-s-091": {1: [(0, "0", "2g.10gb", 4)], 2: [(0, "0", "3g.20gb", 0)], 3: NO_ROOM, 4: NO_ROOM},
    # The recorded cluster has a second node that the record does not list.
    "nvm-s-099": {1: "node unregistered"},
    "nvg-s-015": {
        0: [(0, "0", "3g.20gb", 4), (1, "0", "1g.5gb", 3)],
        1: [(0, "0", "1g.5gb", 2)],
        3: [(0, "0", "1g.5gb", 1)],
        4: [(0, "0", "3g.20gb", 4)],
        5: [(0, "0", "1g.5gb", 0)],
    },
}


def instances(answer: Answer) -> list[tuple[int, str, str, int]]:
    found = json.loads(answer.written.get(keys.NVIDIA_MIG, "[]"))
    return [(i["containerIndex"], i["gpuUUID"][-1], i["profile"], i["placement"]["start"]) for i in found]


def check(answer: Answer, right: Right) -> None:
    if isinstance(right, str):
        assert answer.nodes is None
        assert set(answer.failed.values()) == {right}
    else:
        assert instances(answer) == right


@pytest.mark.parametrize("record", FILTERS, ids=lambda record: f"{record['id']}")
def test_filters(record: dict[str, Any]) -> None:
    answer, _ = judge(record)
    if "defect" in record:
        check(answer, DEFECTS[record["id"]])
        return
    found = list(differences(record["got"], answer))
    if record["id"] in PLACES:
        assert found
        check(answer, PLACES[record["id"]])
        # Another place, and perhaps another card, but the same amounts on as many cards.
        assert all(text.startswith("hami.io/vgpu-") for text in found)
        assert amounts(answer.written) == amounts(record["got"]["annotations"])
    else:
        assert found == []


@pytest.mark.parametrize("record", SEQUENCES, ids=lambda record: f"{record['id']}")
def test_sequences(record: dict[str, Any]) -> None:
    world = World(record)
    for number, step in enumerate(record["got"]["steps"]):
        answer = play(world, step, record["candidates"])
        if answer is None:
            continue
        right = SEQUENCE_DEFECTS.get(record["id"], {}).get(number)
        if right is not None:
            check(answer, right)
        else:
            assert list(differences(step["got"], answer)) == [], f"step {number}"


def test_every_entry_is_used() -> None:
    assert set(DEFECTS) == {record["id"] for record in FILTERS if "defect" in record}
    assert set(PLACES) <= {record["id"] for record in FILTERS if "defect" not in record}
    assert set(SEQUENCE_DEFECTS) == {record["id"] for record in SEQUENCES if "defect" in record}


def test_an_old_reservation_is_removed_when_the_pod_gets_a_plain_card() -> None:
    record = next(record for record in SEQUENCES if record["id"] == "nvm-s-099")
    world = World(record)
    first = record["got"]["steps"][0]
    assert play(world, first, record["candidates"]) is not None
    bound = world.pods[first["pod"]["metadata"]["name"]]
    assert keys.NVIDIA_MIG in stale_keys(bound, {keys.NVIDIA_DONE: "", keys.NVIDIA_PENDING: ""}, world.registry)
