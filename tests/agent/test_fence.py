"""Whether an assignment holds, and what can be had instead: rows over one node of two devices."""

import pytest

from hami.agent import fence
from hami.agent.fence import Place
from hami.alloc.request import read_request
from hami.model.claim import NodeRefusal, PodRecord, Role, Share
from hami.model.device import NodeInventory, NodeRecord
from hami.model.names import DeviceUuid, PodKey, PodUid
from hami.vendors import registry
from hami.vendors.nvidia import NVIDIA
from tests.agent.conftest import NODE, UUIDS, container, device, pod


def holder(name: str, *shares: tuple[int, int, int], uuid: str | None = None) -> PodRecord:
    """A pod of one container with (device, MiB, percent) shares."""
    segment = tuple(
        Share(uuid=DeviceUuid(uuid or UUIDS[i]), kind="NVIDIA", memory_mib=memory, cores=cores)
        for i, memory, cores in shares
    )
    return PodRecord(
        uid=PodUid(name), key=PodKey("default", name), node=NODE, roles=(Role.APP,), segments={NVIDIA.name: (segment,)}
    )


def place(*holders: PodRecord, slots: int = 10) -> Place:
    inventory = NodeInventory(vendor=NVIDIA.name, devices=(device(0, slots=slots), device(1, slots=slots)))
    node = NodeRecord(name=NODE, inventories=(inventory,))
    return Place(node=node, registry=registry(), vendor=NVIDIA.name, holders=holders)


@pytest.mark.parametrize(
    ("holders", "mine", "slots", "trouble"),
    [
        ([holder("a", (0, 8000, 50))], holder("m", (0, 8384, 50)), 10, None),
        ([holder("a", (0, 8000, 50))], holder("m", (0, 8385, 50)), 10, "16385 MiB of memory and has 16384"),
        ([holder("a", (0, 10, 50))], holder("m", (0, 10, 51)), 10, "101 percent of compute and has 100"),
        ([holder("a", (0, 10, 0))], holder("m", (0, 10, 0)), 1, "2 sharers and has 1"),
        ([holder("a", (0, 10, 0))], holder("m", (0, 10, 100)), 10, "promised to one pod alone"),
        ([holder("a", (0, 10, 100))], holder("m", (0, 10, 0)), 10, "promised to one pod alone"),
        ([holder("a", (1, 16384, 100))], holder("m", (0, 10, 100)), 10, None),
        ([], holder("m", (0, 10, 10), uuid="GPU-away"), 10, "GPU-away is not on node"),
    ],
    ids=[
        "the last MiB",
        "one MiB over",
        "one percent over",
        "no slot",
        "wants it alone",
        "another has it alone",
        "another device does not matter",
        "a device that is not here",
    ],
)
def test_overload(holders: list[PodRecord], mine: PodRecord, slots: int, trouble: str | None) -> None:
    found = fence.overload(place(*holders, slots=slots), mine)
    if trouble is None:
        assert found is None
    else:
        assert found is not None
        assert trouble in found


def test_fit_is_the_engines() -> None:
    request = read_request(pod("x", container("main", memory=16000)), registry())
    found = fence.fit(place(holder("a", (0, 1000, 0))), request)
    assert not isinstance(found, NodeRefusal)
    assert [share.uuid for share in found.segments[NVIDIA.name][0]] == [UUIDS[1]]
    assert isinstance(fence.fit(place(holder("a", (0, 1000, 0), (1, 1000, 0))), request), NodeRefusal)


@pytest.mark.parametrize(
    ("wanted", "notes", "fits"),
    [
        ((1,), {}, True),
        ((0,), {}, False),
        ((1, 0), {}, False),
        ((1,), {"nvidia.com/use-gpuuuid": UUIDS[0]}, False),
        ((1,), {"nvidia.com/nouse-gputype": "A100"}, False),
    ],
    ids=["room there", "no room there", "more than asked", "excluded by UUID", "excluded by model"],
)
def test_one_container_on_given_devices(wanted: tuple[int, ...], notes: dict[str, str], fits: bool) -> None:
    asked = pod("x", container("other"), container("main", memory=9000), notes=notes)
    devices = [UUIDS[i] for i in wanted]
    found = fence.fit_container(place(holder("a", (0, 8000, 0))), read_request(asked, registry()), 1, devices)
    assert (found is not None) is fits
    if found is not None:
        assert [(share.uuid, share.memory_mib) for share in found] == [(UUIDS[1], 9000)]


def test_with_segment_changes_one_container() -> None:
    before = holder("a", (0, 10, 1))
    after = fence.with_segment(before, NVIDIA.name, 0, ())
    assert after.segments == {NVIDIA.name: ((),)}
    assert fence.with_segment(after, NVIDIA.name, 0, before.segments[NVIDIA.name][0]) == before
