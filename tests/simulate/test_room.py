"""CPU and memory of nodes, and how much of the devices is handed out, against counting anew."""

from random import Random
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami.alloc.ledger import DeviceKey, Held
from hami.model.device import Device, NodeInventory, NodeRecord
from hami.model.host import NO_HOST, Host
from hami.model.names import DeviceUuid, NodeName, VendorWord
from hami.simulate import room as room_module
from hami.simulate.room import Room
from hami.simulate.use import DeviceUse

AMOUNTS = (0, 1, 2, 3)


def host(random: Random) -> Host:
    return Host(cpu_milli=random.choice(AMOUNTS), memory_mib=random.choice(AMOUNTS))


@pytest.mark.parametrize("kept", [1, 4, 1024])
@given(seed=st.integers(min_value=0, max_value=2**32))
def test_the_nodes_that_fit_are_those_that_cover(kept: int, seed: int) -> None:
    with patch.object(room_module, "_AMOUNTS", kept):
        compare_with_counting(Random(seed), seed)


def compare_with_counting(random: Random, seed: int) -> None:
    names = [NodeName(f"n{i}") for i in range(random.randrange(1, 6))]
    left: dict[NodeName, Host | None] = {name: None if random.random() < 0.2 else host(random) for name in names}
    room = Room(left)
    for _ in range(20):
        asked, name = host(random), random.choice(names)
        among = None if random.random() < 0.5 else [i for i in range(len(names)) if random.random() < 0.6]
        places = range(len(names)) if among is None else among
        want = [names[i] for i in places if asked == NO_HOST or (o := left[names[i]]) is None or o.covers(asked)]
        assert room.fitting(asked, among) == want, seed
        known = left[name]
        if random.random() < 0.6:
            room.take(name, asked)
            left[name] = None if known is None else known.minus(asked)
        else:
            room.give(name, asked)
            left[name] = None if known is None else known.plus(asked)


def test_a_room_knows_its_nodes() -> None:
    room = Room({NodeName("a"): None})
    assert NodeName("a") in room
    assert NodeName("b") not in room


def cluster(*cards: tuple[str, int]) -> NodeRecord:
    devices = tuple(
        Device(uuid=DeviceUuid(f"u{i}"), index=i, slots=10, memory_mib=mib, cores=100, model=model)
        for i, (model, mib) in enumerate(cards)
    )
    return NodeRecord(name=NodeName("n"), inventories=(NodeInventory(vendor=VendorWord("V"), devices=devices),))


def key(number: int) -> DeviceKey:
    return VendorWord("V"), DeviceUuid(f"u{number}")


def test_a_device_counts_by_what_is_scarcest() -> None:
    use = DeviceUse([cluster(("A", 1000), ("A", 1000), ("B", 4000), ("B", 4000))])
    use.change(NodeName("n"), {key(0): Held(1, 250, 0), key(2): Held(1, 1000, 60)}, 1)
    assert use.percent == pytest.approx(100 * (0.25 + 0.6) / 4)
    use.change(NodeName("n"), {key(2): Held(1, 2600, 0)}, 1)
    assert use.percent == pytest.approx(100 * (0.25 + 0.9) / 4)
    models = use.by_model()
    assert list(models) == ["A", "B"]
    assert models["A"].allocated == pytest.approx(12.5)
    assert models["B"].devices == 2
    assert [models["B"].allocated, models["B"].memory, models["B"].cores] == pytest.approx([45, 45, 30])


def test_a_device_is_never_more_than_whole() -> None:
    use = DeviceUse([cluster(("A", 1000))])
    use.change(NodeName("n"), {key(0): Held(2, 1500, 130)}, 1)
    assert use.percent == 100
    use.change(NodeName("n"), {key(0): Held(1, 1000, 100)}, -1)
    assert use.percent == pytest.approx(50)


def test_devices_nobody_lists_count_nowhere() -> None:
    use = DeviceUse([cluster(("A", 1000))])
    use.change(NodeName("n"), {key(7): Held(1, 1000, 100)}, 1)
    use.change(NodeName("gone"), {key(0): Held(1, 1000, 100)}, 1)
    assert use.percent == 0


def test_what_comes_and_goes_leaves_nothing() -> None:
    random = Random(1)
    use = DeviceUse([cluster(*((("A", 1000),) * 4))])
    taken = []
    for _ in range(200):
        held = {key(random.randrange(4)): Held(1, random.randrange(1, 300), random.randrange(30))}
        use.change(NodeName("n"), held, 1)
        taken.append(held)
    for held in taken:
        use.change(NodeName("n"), held, -1)
    assert use.percent == pytest.approx(0, abs=1e-9)
