"""Kubelet ids: which ones are proposed."""

import pytest

from hami.agent.preferred import device_of, ids_of, linked_devices, preferred_ids
from hami.model.device import Links
from hami.model.names import DeviceUuid
from tests.agent.conftest import device

A, B, C = (DeviceUuid(f"GPU-{letter}") for letter in "abc")


def test_ids_count_a_devices_sharers() -> None:
    ids = ids_of(device(1, slots=3))
    assert len(set(ids)) == 3
    assert {device_of(device_id) for device_id in ids} == {device(1).uuid}


@pytest.mark.parametrize(
    ("available", "must", "size", "assigned", "want"),
    [
        ("a-0 a-1 b-0", "", 1, [B], "b-0"),
        ("a-0 a-1 b-0 b-10 b-9 c-0", "", 2, [C, A], "c-0 a-0"),
        ("a-0 a-1 b-0", "", 2, [], "a-0 b-0"),
        ("a-0 a-1", "", 2, [B], "a-0 a-1"),
        ("a-0 b-0 b-1", "b-1", 2, [A], "b-1 a-0"),
        ("a-0 b-0", "a-0", 1, [B], "a-0"),
        ("b-10 b-9", "", 1, [B], "b-9"),
    ],
    ids=[
        "the assigned device",
        "in the assignment's order",
        "each device once",
        "a device twice if there is no other",
        "what the kubelet insists on, then the rest",
        "only what it insists on",
        "ids count as numbers",
    ],
)
def test_preferred(available: str, must: str, size: int, assigned: list[DeviceUuid], want: str) -> None:
    def ids(text: str) -> list[str]:
        return [f"GPU-{word}" for word in text.split()]

    assert preferred_ids(ids(available), ids(must), size, assigned) == ids(want)


def test_without_an_assignment_linked_devices_are_taken_together() -> None:
    pairs = {A: {B: 10, C: 110}, B: {A: 10, C: 20}, C: {A: 110, B: 20}}
    links = Links(scores=tuple((uuid, tuple(row.items())) for uuid, row in pairs.items()))
    available = ["GPU-a-0", "GPU-b-0", "GPU-b-1", "GPU-c-0"]
    assert linked_devices(available, [], 2, links) == (A, C)
    assert linked_devices(available, ["GPU-b-1"], 2, links) == (B, C)
    assert linked_devices(available, [], 2, None) == (B, A), "most ids left first"
    assert linked_devices(available, [], 5, links) == (B, A, C)
    assert preferred_ids(available, [], 2, linked_devices(available, [], 2, links)) == ["GPU-a-0", "GPU-c-0"]
