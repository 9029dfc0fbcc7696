"""MIG reservations: what HAMi 2.10 writes, byte for byte, and every way in which a text may be wrong."""

import pytest

from hami.model.claim import MigInstance, MigReservation
from hami.model.device import MigPlacement
from hami.model.names import DeviceUuid, WireError
from hami.model.wire.mig import OldInstance, read_old_instance, read_reservations, write_reservations

FIELD = "metadata.annotations[hami.io/vgpu-mig-allocations]"
DECIDED = (
    '[{"containerIndex":0,"deviceIndex":0,"gpuUUID":"GPU-a","profile":"1g.5gb","placement":{"start":6,"size":1}},'
    '{"containerIndex":1,"deviceIndex":0,"gpuUUID":"GPU-a","profile":"3g.20gb","placement":{"start":0,"size":4}}]'
)
MADE = (
    '[{"containerIndex":0,"deviceIndex":0,"gpuUUID":"GPU-a","profile":"1g.5gb","placement":{"start":6,"size":1},'
    '"migUUID":"MIG-e0","gpuInstanceID":1,"computeInstanceID":0}]'
)


def reservation(container: int = 0, instance: MigInstance | None = None) -> MigReservation:
    return MigReservation(
        container=container,
        device=0,
        uuid=DeviceUuid("GPU-a"),
        profile="1g.5gb",
        placement=MigPlacement(start=6, size=1),
        instance=instance,
    )


@pytest.mark.parametrize("text", [DECIDED, MADE, "[]"])
def test_round_trip(text: str) -> None:
    assert write_reservations(read_reservations(text, FIELD)) == text


def test_values() -> None:
    assert read_reservations(DECIDED, FIELD)[0] == reservation()
    made = MigInstance(uuid="MIG-e0", gpu_instance=1, compute_instance=0)
    assert read_reservations(MADE, FIELD) == (reservation(instance=made),)
    assert read_reservations("", FIELD) == read_reservations(" null ", FIELD) == ()
    folded = MADE.replace("gpuUUID", "GPUuuid").replace('"start"', '"START"').replace("migUUID", "MigUuid")
    assert read_reservations(folded, FIELD) == (reservation(instance=made),)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ((DECIDED, "{"), ""),
        ((DECIDED, "{}"), ""),
        ((DECIDED, "[1]"), "[0]"),
        (('"containerIndex":0', '"containerIndex":-1'), "[0].containerIndex"),
        (('"containerIndex":0', '"containerIndex":"0"'), "[0].containerIndex"),
        (('"containerIndex":1', '"containerIndex":0'), "[1]"),
        (('"deviceIndex":0', '"deviceIndex":1.5'), "[0].deviceIndex"),
        (('"gpuUUID":"GPU-a"', '"gpuUUID":""'), "[0].gpuUUID"),
        (('"gpuUUID":"GPU-a"', '"gpuUUID":7'), "[0].gpuUUID"),
        (('"profile":"1g.5gb"', '"profile":null'), "[0].profile"),
        (('"placement":{"start":6,"size":1}', '"placement":null'), "[0].placement"),
        (('"size":1', '"size":0'), "[0].placement.size"),
        (('"size":1', f'"size":{2**31}'), "[0].placement.size"),
        (('"start":6', '"start":-1'), "[0].placement.start"),
        (('"size":1}', '"size":1},"migUUID":"MIG-x"'), "[0].gpuInstanceID"),
        (('"size":1}', '"size":1},"gpuInstanceID":1,"computeInstanceID":0'), "[0].migUUID"),
        (('"size":1}', '"size":1},"migUUID":"MIG-x","gpuInstanceID":-1,"computeInstanceID":0'), "[0].gpuInstanceID"),
        (('"size":1}', '"size":1},"migUUID":5,"gpuInstanceID":1,"computeInstanceID":0'), "[0].migUUID"),
    ],
)
def test_every_fault_names_its_field(change: tuple[str, str], field: str) -> None:
    text = DECIDED.replace(*change, 1)
    assert text != DECIDED
    with pytest.raises(WireError) as caught:
        read_reservations(text, FIELD)
    assert caught.value.field == f"{FIELD}{field}"


def test_an_annotation_no_server_stores_is_refused_unread() -> None:
    with pytest.raises(WireError, match="at most"):
        read_reservations("[" + " " * 300_000 + "]", FIELD)


@pytest.mark.parametrize("container", [-1, 2**31])
def test_writer_refuses_what_no_reader_takes(container: int) -> None:
    with pytest.raises(WireError, match="containerIndex"):
        write_reservations([reservation(container)])


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("GPU-a[0-1]", OldInstance(uuid=DeviceUuid("GPU-a"), group=0, slot=1)),
        ("GPU-8c6c8bfa-0b4e[12-3]", OldInstance(uuid=DeviceUuid("GPU-8c6c8bfa-0b4e"), group=12, slot=3)),
        ("GPU-a", None),
        ("GPU-a[0]", None),
        ("GPU-a[0-1]x", None),
        ("[0-1]", None),
        ("GPU-a[99999-1]", None),
        ("", None),
    ],
)
def test_old_instances(text: str, want: OldInstance | None) -> None:
    assert read_old_instance(text) == want
