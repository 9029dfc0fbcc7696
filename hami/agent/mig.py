"""The MIG instances of this node's pods: made when a grant needs them, unmade when their pod is over.

What is ours is written down before it is made, so that an agent that died half way knows its own; an instance that
nobody wrote down was made by somebody else and is never touched, only its slices are not offered. One instance that
cannot be unmade yet, because a program still runs on it, concerns nobody but who wants exactly its slices.

Every call is synchronous, asks the driver, and belongs in a worker thread.
"""

import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson

from hami.model.claim import MigInstance, MigReservation
from hami.model.device import MIG, Device, MigPlacement, NodeInventory
from hami.model.mig import read_profile_name
from hami.model.names import DeviceUuid, PodKey, PodUid, WireError
from hami.node import mig as driver
from hami.node.atomic import write_atomically
from hami.node.mig import InstanceBusy, LiveInstance, MigError

log = logging.getLogger(__name__)

VERSION: Final = 1
RECORD_LIMIT: Final = 1024 * 1024
"""Bytes; sixteen cards full of instances take about 40 KiB."""

Use = tuple[PodUid, DeviceUuid, int]
"""Who uses which instance: pod, card, first slice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """An instance of ours. Without ids it was begun, and may exist or not."""

    card: DeviceUuid
    profile: str
    profile_id: int
    placement: MigPlacement
    pod: PodUid
    key: PodKey
    instance: MigInstance | None = None

    @property
    def use(self) -> Use:
        return self.pod, self.card, self.placement.start

    def is_live(self, live: LiveInstance) -> bool:
        """Whether `live` is this one."""
        return (
            live.card == self.card
            and live.placement == self.placement
            and live.profile_id == self.profile_id
            and (self.instance is None or self.instance.gpu_instance == live.gpu_instance)
        )


class MigInstances:
    """The instances of one node that are ours."""

    def __init__(self, path: Path) -> None:
        """`path` is the file in which they are written down."""
        self._path = path
        self._owned: dict[tuple[DeviceUuid, int], Owned] = {}
        self._lingering: set[Use] = set()
        """Instances that no pod has any more and that programs still run on."""
        self._lock = threading.Lock()

    def load(self) -> None:
        """Take over what an earlier agent made, as far as it still exists."""
        with self._lock:
            try:
                found = _read(self._path)
            except FileNotFoundError:
                return
            except (OSError, ValueError) as error:
                log.error("the record of this node's MIG instances cannot be read: %s", error)
                return
            self._owned = {(owned.card, owned.placement.start): owned for owned in found}
            for owned in found:
                try:
                    if not any(owned.is_live(live) for live in driver.instances(owned.card)):
                        del self._owned[owned.card, owned.placement.start]
                except MigError as error:
                    log.warning("an instance of %s cannot be looked up: %s", owned.key, error)

    def adopt(self, pod: PodUid, key: PodKey, reservations: Sequence[MigReservation]) -> None:
        """Take over instances that a pod's annotation names with all their ids, from whoever made them for it.

        One that does not exist exactly so stays what it is; the others are taken over all the same.
        """
        with self._lock:
            for reservation in reservations:
                where = reservation.uuid, reservation.placement.start
                if reservation.instance is None or where in self._owned:
                    continue
                try:
                    candidate = _owned(reservation, pod, key)
                    if any(
                        candidate.is_live(live) and live.whole == reservation.instance
                        for live in driver.instances(reservation.uuid)
                    ):
                        log.info("instance %s is taken over for %s", reservation.instance.uuid, key)
                        self._keep(candidate)
                except (MigError, WireError) as error:
                    log.warning("an instance of %s cannot be taken over: %s", key, error)

    def ensure(
        self, pod: PodUid, key: PodKey, reservations: Sequence[MigReservation], wanted: Collection[Use] | None
    ) -> tuple[MigReservation, ...]:
        """The reservations with the ids of their instances, which are made where they don't exist.

        Our own instances in the way are unmade unless `wanted` has them; None: nobody knows yet what is wanted, and
        all stay. Raises InstanceBusy while a program runs in the way, MigError for what the driver refuses and for
        slices that are somebody else's. What was made before an error stays the pod's.
        """
        with self._lock:
            return tuple(
                replace(reservation, instance=self._ensure(_owned(reservation, pod, key), wanted))
                for reservation in reservations
            )

    def sweep(self, wanted: Collection[Use]) -> None:
        """Unmake what no pod has any more. What is busy stays until a later sweep and keeps nothing else."""
        with self._lock:
            for owned in list(self._owned.values()):
                if owned.use in wanted:
                    self._lingering.discard(owned.use)
                    continue
                try:
                    self._unmake(owned)
                except InstanceBusy:
                    if owned.use not in self._lingering:
                        log.warning("a program still runs on an instance of %s, which is over", owned.key)
                    self._lingering.add(owned.use)
                except MigError as error:
                    log.warning("an instance of %s cannot be unmade: %s", owned.key, error)

    def offered(self, inventory: NodeInventory) -> NodeInventory:
        """The inventory without placements that somebody else's instances, or lingering ones of ours, are in the way
        of."""
        with self._lock:
            return replace(inventory, devices=tuple(self._offered(device) for device in inventory.devices))

    def _ensure(self, wish: Owned, wanted: Collection[Use] | None) -> MigInstance:
        for live in driver.instances(wish.card):
            if not live.overlaps(wish.placement):
                continue
            owned = self._owner(live)
            if owned is None:
                names = ", ".join(device.uuid for device in live.devices) or f"instance {live.gpu_instance}"
                raise MigError(f"slices of {wish.card} are in use by {names}, which is not this agent's")
            if (owned.pod, owned.profile_id, owned.placement) == (wish.pod, wish.profile_id, wish.placement):
                whole = live.whole or driver.complete(live.card, live.gpu_instance).whole
                assert whole is not None
                self._keep(replace(owned, instance=whole))
                return whole
            if wanted is None or owned.use in wanted:
                raise MigError(f"slices of {wish.card} are still those of {owned.key}")
            self._unmake(owned)
        self._keep(replace(wish, instance=None))
        try:
            whole = driver.create(wish.card, wish.profile, wish.placement).whole
        except MigError:
            # A half that could not be unmade is still ours.
            if not any(wish.is_live(live) for live in driver.instances(wish.card)):
                self._forget(wish)
            raise
        assert whole is not None
        self._keep(replace(wish, instance=whole))
        log.info("instance %s (%s at slice %d of %s) is made for %s", whole.uuid, wish.profile, wish.placement.start,
                 wish.card, wish.key)  # fmt: skip
        return whole

    def _owner(self, live: LiveInstance) -> Owned | None:
        owned = self._owned.get((live.card, live.placement.start))
        return owned if owned is not None and owned.is_live(live) else None

    def _unmake(self, owned: Owned) -> None:
        live = [live for live in driver.instances(owned.card) if owned.is_live(live)]
        for each in live:
            driver.destroy(owned.card, each.gpu_instance)
        self._forget(owned)
        if live:
            log.info("the instance of %s at slice %d of %s is unmade", owned.key, owned.placement.start, owned.card)

    def _keep(self, owned: Owned) -> None:
        if self._owned.get((owned.card, owned.placement.start)) != owned:
            self._owned[owned.card, owned.placement.start] = owned
            self._save()

    def _forget(self, owned: Owned) -> None:
        self._owned.pop((owned.card, owned.placement.start), None)
        self._lingering.discard(owned.use)
        self._save()

    def _save(self) -> None:
        try:
            write_atomically(self._path, orjson.dumps(_document(self._owned.values())), mode=0o600)
        except OSError as error:
            # Without the record the instance would be nobody's after a restart.
            raise MigError(f"this node's MIG instances cannot be written down: {error}") from error

    def _offered(self, device: Device) -> Device:
        if device.mode != MIG:
            return device
        try:
            there = driver.instances(device.uuid)
        except MigError as error:
            log.warning("instances of %s cannot be listed: %s", device.uuid, error)
            return replace(device, healthy=False)
        others = [live for live in there if (owned := self._owner(live)) is None or owned.use in self._lingering]
        if not others:
            return device
        media = self._media(device, others)
        profiles = []
        for profile in device.mig_profiles:
            if media and read_profile_name(profile.name, "profile").media:
                continue
            free = tuple(place for place in profile.placements if not any(live.overlaps(place) for live in others))
            if free:
                profiles.append(replace(profile, placements=free))
        return replace(device, mig_profiles=tuple(profiles))

    def _media(self, device: Device, others: Sequence[LiveInstance]) -> bool:
        """Whether one of these instances may hold the card's media engines, of which there is one set."""
        named = [profile.name for profile in device.mig_profiles if read_profile_name(profile.name, "profile").media]
        return any(driver.profile_id(device.uuid, name) in {live.profile_id for live in others} for name in named)


def _owned(reservation: MigReservation, pod: PodUid, key: PodKey) -> Owned:
    return Owned(
        card=reservation.uuid,
        profile=reservation.profile,
        profile_id=driver.profile_id(reservation.uuid, reservation.profile),
        placement=reservation.placement,
        pod=pod,
        key=key,
        instance=reservation.instance,
    )


def _document(owned: Collection[Owned]) -> Mapping[str, Any]:
    return {
        "version": VERSION,
        "instances": [
            {
                "card": each.card,
                "profile": each.profile,
                "profile_id": each.profile_id,
                "start": each.placement.start,
                "size": each.placement.size,
                "pod": each.pod,
                "namespace": each.key.namespace,
                "name": each.key.name,
                "ids": None
                if each.instance is None
                else [each.instance.uuid, each.instance.gpu_instance, each.instance.compute_instance],
            }
            for each in owned
        ],
    }


def _read(path: Path) -> list[Owned]:
    """Our own file, but a disk may have lost half of it: anything unexpected is a WireError."""
    if path.stat().st_size > RECORD_LIMIT:
        raise WireError(str(path), f"at most {RECORD_LIMIT} bytes")
    try:
        return [
            Owned(
                card=DeviceUuid(row["card"]),
                profile=str(row["profile"]),
                profile_id=int(row["profile_id"]),
                placement=MigPlacement(start=int(row["start"]), size=int(row["size"])),
                pod=PodUid(row["pod"]),
                key=PodKey(row["namespace"], row["name"]),
                instance=None
                if row["ids"] is None
                else MigInstance(
                    uuid=str(row["ids"][0]), gpu_instance=int(row["ids"][1]), compute_instance=int(row["ids"][2])
                ),
            )
            for row in orjson.loads(path.read_bytes())["instances"]
        ]
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise WireError(path.name, "a record of MIG instances", repr(error)) from error
