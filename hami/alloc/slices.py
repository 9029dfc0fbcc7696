"""MIG in the picture: profile lists by number, which slices pods hold, and a pod's wishes as plans.

Three things between the records and the engine. `Grids` gives equal profile lists one number. `occupied` works out what
pods hold of the cards of a node; where that cannot be told, the card is *unsound* and takes nothing, because giving a
slice out twice would cost somebody's running program. `Wishes` turns the needs of one pod into the engine's tables.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from hami.alloc._mig import Plan, Profiles, Wish
from hami.alloc.mig import MOST_KINDS, MOST_SETS, CardProfiles
from hami.model.claim import Memory, MigReservation, PodRecord, Role, Segments
from hami.model.device import MIG, Device, MigProfile
from hami.model.names import DeviceUuid

MOST_GRIDS: Final = 1024
"""Profile lists at a time; a cluster has one for every model and allowlist."""


class Grids:
    """Compiled profile lists by number, each as long as some card uses it."""

    def __init__(self) -> None:
        self.compiled: list[CardProfiles | None] = []
        self._users: list[int] = []
        self._numbers: dict[tuple[MigProfile, ...], int] = {}

    @property
    def native(self) -> list[Profiles | None]:
        """As the engine takes them."""
        return [None if profiles is None else profiles.native for profiles in self.compiled]

    def join(self, device: Device) -> int:
        """The number of a card's list, or -1: not in MIG mode, or nothing in the list can be used."""
        if device.mode != MIG or not device.mig_profiles:
            return -1
        number = self._numbers.get(device.mig_profiles)
        if number is None:
            profiles = CardProfiles(device.mig_profiles)
            if not profiles.usable or len(self._numbers) >= MOST_GRIDS:
                return -1
            number = next((i for i, known in enumerate(self.compiled) if known is None), len(self.compiled))
            if number == len(self.compiled):
                self.compiled.append(None)
                self._users.append(0)
            self.compiled[number] = profiles
            self._numbers[device.mig_profiles] = number
        self._users[number] += 1
        return number

    def leave(self, number: int) -> None:
        """A card that joined is gone."""
        if number < 0:
            return
        self._users[number] -= 1
        profiles = self.compiled[number]
        if not self._users[number] and profiles is not None:
            del self._numbers[profiles.listed]
            self.compiled[number] = None


class Taken(NamedTuple):
    """What pods hold of one card in MIG mode: the taken slices, and whether that is the whole truth."""

    state: int
    sound: bool


def occupied(cards: Sequence[tuple[Device, CardProfiles | None]], pods: Iterable[PodRecord]) -> list[Taken]:
    """What pods hold of the slices of these cards of a node, in their order; the profiles are those of MIG cards.

    A card is unsound when a share on it has no reservation, or when a reservation names it although it is not in MIG
    mode. A reservation for a card on which its own pod has no share contradicts itself: the instance may be anywhere,
    so every card in MIG mode is unsound. Cards with an instance of an old release are full until it ends.
    """
    place = {device.uuid: i for i, (device, _) in enumerate(cards)}
    states = [0] * len(cards)
    sound = [True] * len(cards)
    for pod in pods:
        shares, reservations = _living(pod)
        reserved = Counter(reservation.uuid for reservation in reservations)
        own = set(shares) | {share.uuid for segments in pod.segments.values() for part in segments for share in part}
        for uuid, count in shares.items():
            i = place.get(uuid, -1)
            if i < 0 or cards[i][0].mode != MIG:
                continue
            if uuid in pod.old_instances:
                profiles = cards[i][1]
                states[i] |= 0 if profiles is None else profiles.full
            elif count > reserved[uuid]:
                sound[i] = False
        for reservation in reservations:
            i = place.get(reservation.uuid, -1)
            if reservation.uuid not in own:
                sound = [still and device.mode != MIG for still, (device, _) in zip(sound, cards, strict=True)]
            elif i >= 0 and cards[i][0].mode != MIG:
                sound[i] = False
            elif i >= 0 and (profiles := cards[i][1]) is not None:
                states[i] |= profiles.state([(reservation.profile, reservation.placement)])
    return [Taken(state, truth) for state, truth in zip(states, sound, strict=True)]


def _living(pod: PodRecord) -> tuple[Counter[DeviceUuid], list[MigReservation]]:
    """Shares by card and reservations of the containers that still count."""

    def counts(container: int) -> bool:
        role = pod.roles[container] if container < len(pod.roles) else Role.APP
        return role is not Role.INIT or not pod.inits_done

    shares: Counter[DeviceUuid] = Counter(
        share.uuid
        for segments in pod.segments.values()
        for container, segment in enumerate(segments)
        if counts(container)
        for share in segment
    )
    return shares, [reservation for reservation in pod.reservations if counts(reservation.container)]


def aligned(reservations: tuple[MigReservation, ...], segments: Segments) -> tuple[MigReservation, ...]:
    """Reservations with `container` as the segments count.

    HAMi 2.10 counts only the containers that have devices. Where that reading fits the shares and the plain one does
    not, it is taken; where neither fits, nothing is changed.
    """
    cards = [sorted(share.uuid for share in segment) for segment in segments]
    if _fits(reservations, dict(enumerate(cards))):
        return reservations
    filled = [container for container, segment in enumerate(segments) if segment]
    if not _fits(reservations, {i: cards[container] for i, container in enumerate(filled)}):
        return reservations
    return tuple(replace(reservation, container=filled[reservation.container]) for reservation in reservations)


def _fits(reservations: Iterable[MigReservation], cards: dict[int, list[DeviceUuid]]) -> bool:
    told: dict[int, list[DeviceUuid]] = {}
    for reservation in reservations:
        told.setdefault(reservation.container, []).append(reservation.uuid)
    return all(cards.get(container) == sorted(uuids) for container, uuids in told.items())


Kind = tuple[Memory, int]
"""A wish for one instance: memory, and percent of compute."""


@dataclass(frozen=True, slots=True)
class SliceNeed:
    """One need of one container as plans see it."""

    container: int
    role: Role
    memory: Memory
    cores: int
    count: int

    @property
    def kind(self) -> Kind:
        return self.memory, self.cores


Joint = tuple[list[Plan | None], list[int], list[int]]


class Wishes:
    """The tables for the needs of one pod; `needs` has None for those of a family without MIG.

    `together` is false where one container's choice bars cards to the next one (`mutex`), or where every container is
    bound to a NUMA node of its own: then the needs are placed one after the other.
    """

    def __init__(self, grids: Grids, needs: Sequence[SliceNeed | None], *, together: bool) -> None:
        self._grids = grids
        there = any(profiles is not None for profiles in grids.compiled)
        self.wishes: list[list[Wish | None]] = [
            self._wishes(need.kind) if there and need is not None else [] for need in needs
        ]
        self.plans: list[list[Plan | None]] = [
            self._plans([need.kind], [need.count]) if there and need is not None else [] for need in needs
        ]
        self.joints: list[Joint] = []
        if there and together and sum(need is not None for need in needs) > 1:
            kinds = self._alike([None if need is None else need.kind for need in needs])
            self._join(needs, kinds)
            served = self._alike(_served_by_larger(needs))
            if served != kinds:
                self._join(needs, served)

    def _wishes(self, kind: Kind) -> list[Wish | None]:
        return [None if grid is None else grid.wish(*kind) for grid in self._grids.compiled]

    def _plans(self, kinds: Sequence[Kind], counts: list[int]) -> list[Plan | None]:
        sets = 1
        for count in counts:
            sets *= count + 1
        if len(kinds) > MOST_KINDS or sets > MOST_SETS:
            return [None] * len(self._grids.compiled)
        return [
            None if grid is None else Plan([grid.wish(*kind) for kind in kinds], counts)
            for grid in self._grids.compiled
        ]

    def _alike(self, kinds: Sequence[Kind | None]) -> list[Kind | None]:
        """The kinds, where several mean the same on every list of profiles, as one of them."""
        meanings: dict[tuple[Wish | None, ...], Kind] = {}
        return [None if kind is None else meanings.setdefault(tuple(self._wishes(kind)), kind) for kind in kinds]

    def _join(self, needs: Sequence[SliceNeed | None], kinds: Sequence[Kind | None]) -> None:
        """One plan for all needs. Of each kind there are the sidecars', and the most that run beside them at a time."""
        known = list(dict.fromkeys(kind for kind in kinds if kind is not None))
        side, apps = Counter[Kind](), Counter[Kind]()
        inits: dict[int, Counter[Kind]] = {}
        for need, kind in zip(needs, kinds, strict=True):
            if need is not None and kind is not None:
                match need.role:
                    case Role.SIDECAR:
                        side[kind] += need.count
                    case Role.APP:
                        apps[kind] += need.count
                    case Role.INIT:
                        inits.setdefault(need.container, Counter())[kind] += need.count
        counts = [side[kind] + max(apps[kind], *(init[kind] for init in inits.values()), 0) for kind in known]
        plans = self._plans(known, counts)
        if any(plan is not None for plan in plans):
            by_need = [-1 if kind is None else known.index(kind) for kind in kinds]
            self.joints.append((plans, by_need, [side[kind] for kind in known]))


def _served_by_larger(needs: Sequence[SliceNeed | None]) -> list[Kind | None]:
    """The kinds when init containers use the larger instances of app containers, which are there anyway."""
    apps = [need for need in needs if need is not None and need.role is Role.APP]
    kinds: list[Kind | None] = []
    for need in needs:
        if need is None or need.role is not Role.INIT:
            kinds.append(None if need is None else need.kind)
            continue
        larger = [app.kind for app in apps if _holds(app, need)]
        kinds.append(min(larger, key=lambda kind: (kind[0].amount, kind[1]), default=need.kind))
    return kinds


def _holds(larger: SliceNeed, need: SliceNeed) -> bool:
    return (
        type(larger.memory) is type(need.memory)
        and larger.memory.amount >= need.memory.amount
        and larger.cores >= need.cores
        and larger.count >= need.count
    )
