"""The MIG reservations a pod carries (`hami.io/vgpu-mig-allocations`), and the names of instances before them.

One entry an instance: whose it is (container and position in it), on which card, which profile, where. The scheduler
writes these; the node adds the ids of what it made. An entry that cannot be read spoils the whole text: what a pod
holds of its cards is then unknown, and whoever reads must treat the cards as not usable instead of as free.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from hami.model.claim import MigInstance, MigReservation
from hami.model.device import MigPlacement
from hami.model.names import INT32_MAX, DeviceUuid, WireError
from hami.model.wire import gojson


@dataclass(frozen=True, slots=True, kw_only=True)
class OldInstance:
    """`GPU-x[group-slot]`: how releases up to 2.9 named an instance of a card cut by a fixed template."""

    uuid: DeviceUuid
    group: int
    slot: int


def read_reservations(text: str, field: str) -> tuple[MigReservation, ...]:
    """Every reservation in the order written. Blank text and `null` are none."""
    trimmed = gojson.annotation(text, field).strip()
    if not trimmed:
        return ()
    entries = gojson.items(gojson.decode(trimmed, field), field)
    found = tuple(_read(entry, f"{field}[{i}]") for i, entry in enumerate(entries))
    seen: set[tuple[int, int]] = set()
    for i, reservation in enumerate(found):
        key = reservation.container, reservation.device
        if key in seen:
            raise WireError(f"{field}[{i}]", "containerIndex and deviceIndex together only once", key)
        seen.add(key)
    return found


def write_reservations(reservations: Sequence[MigReservation]) -> str:
    """The annotation's text, in the given order."""
    return gojson.encode([_write(reservation) for reservation in reservations])


def read_old_instance(uuid: str) -> OldInstance | None:
    """An instance's name of a release up to 2.9, or None for every other text."""
    shape = _OLD.fullmatch(uuid) if len(uuid) <= 256 else None
    if shape is None:
        return None
    return OldInstance(uuid=DeviceUuid(shape[1]), group=int(shape[2]), slot=int(shape[3]))


_OLD: Final = re.compile(r"([^\[\]]+)\[(\d{1,4})-(\d{1,4})\]", re.ASCII)
_IDS: Final = ("migUUID", "gpuInstanceID", "computeInstanceID")


def _read(entry: object, field: str) -> MigReservation:
    row = gojson.folded(entry, field)
    uuid = gojson.text_of(row.get("gpuuuid"), f"{field}.gpuUUID")
    profile = gojson.text_of(row.get("profile"), f"{field}.profile")
    for key, value in (("gpuUUID", uuid), ("profile", profile)):
        if not value:
            raise WireError(f"{field}.{key}", "text", value)
    place = gojson.folded(row.get("placement"), f"{field}.placement")
    size = gojson.integer(place.get("size"), f"{field}.placement.size")
    if not size:
        raise WireError(f"{field}.placement.size", "at least one slice", size)
    return MigReservation(
        container=gojson.integer(row.get("containerindex"), f"{field}.containerIndex"),
        device=gojson.integer(row.get("deviceindex"), f"{field}.deviceIndex"),
        uuid=DeviceUuid(uuid),
        profile=profile,
        placement=MigPlacement(start=gojson.integer(place.get("start"), f"{field}.placement.start"), size=size),
        instance=_read_instance(row, field),
    )


def _read_instance(row: gojson.Object, field: str) -> MigInstance | None:
    missing = [key for key in _IDS if row.get(key.lower()) in (None, "")]
    if len(missing) == len(_IDS):
        return None
    if missing:
        raise WireError(f"{field}.{missing[0]}", f"all of {', '.join(_IDS)}, or none", None)
    return MigInstance(
        uuid=gojson.text_of(row["miguuid"], f"{field}.migUUID"),
        gpu_instance=gojson.integer(row["gpuinstanceid"], f"{field}.gpuInstanceID"),
        compute_instance=gojson.integer(row["computeinstanceid"], f"{field}.computeInstanceID"),
    )


def _write(reservation: MigReservation) -> dict[str, Any]:
    for key, number in (("containerIndex", reservation.container), ("deviceIndex", reservation.device)):
        if not 0 <= number <= INT32_MAX:
            raise WireError(f"reservation.{key}", f"an integer from 0 to {INT32_MAX}", number)
    row: dict[str, Any] = {
        "containerIndex": reservation.container,
        "deviceIndex": reservation.device,
        "gpuUUID": reservation.uuid,
        "profile": reservation.profile,
        "placement": {"start": reservation.placement.start, "size": reservation.placement.size},
    }
    if (instance := reservation.instance) is not None:
        row |= dict(zip(_IDS, (instance.uuid, instance.gpu_instance, instance.compute_instance), strict=True))
    return row
