"""MIG through NVML: a card's mode, what it offers, the instances on it; making and unmaking them.

NVML must be initialized (`NvidiaProbe` is). Calls block for as long as the driver takes, up to seconds for a mode
change: run them in a worker thread. An instance here is a GPU instance with one compute instance that takes all of it;
others, made by somebody else, are listed and left alone.
"""

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import pynvml

from hami.model.claim import MigInstance
from hami.model.device import MigPlacement, MigProfile
from hami.model.mig import profile_name, select_profiles
from hami.model.names import DeviceUuid, WireError

MIB: Final = 2**20
SUFFIXES: Final = {
    pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV1: "+me",
    pynvml.NVML_GPU_INSTANCE_PROFILE_2_SLICE_REV1: "+me",
    pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE_GFX: "+gfx",
    pynvml.NVML_GPU_INSTANCE_PROFILE_2_SLICE_GFX: "+gfx",
    pynvml.NVML_GPU_INSTANCE_PROFILE_4_SLICE_GFX: "+gfx",
    pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE_NO_ME: "-me",
    pynvml.NVML_GPU_INSTANCE_PROFILE_2_SLICE_NO_ME: "-me",
    pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE_ALL_ME: "+me.all",
    pynvml.NVML_GPU_INSTANCE_PROFILE_2_SLICE_ALL_ME: "+me.all",
}
"""What a profile's number says beyond its slices, for drivers that tell no name."""
MOST_PLACES: Final = 64

T = TypeVar("T")


class MigError(Exception):
    """The driver refuses; the text says what."""


class InstanceBusy(MigError):
    """A program still runs on the instance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveInstance:
    """A GPU instance that exists."""

    card: DeviceUuid
    gpu_instance: int
    profile_id: int
    placement: MigPlacement
    devices: tuple[MigInstance, ...]
    """Its compute instances; one whose MIG device the driver does not list (yet) has no UUID."""

    @property
    def whole(self) -> MigInstance | None:
        """The one compute instance, where there is one only and programs can run on it."""
        return self.devices[0] if len(self.devices) == 1 and self.devices[0].uuid else None

    def overlaps(self, place: MigPlacement) -> bool:
        mine = self.placement
        return mine.start < place.start + place.size and place.start < mine.start + mine.size


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticDevice:
    """An instance as a device of its own."""

    card: DeviceUuid
    uuid: DeviceUuid
    profile: MigProfile


@dataclass(frozen=True, slots=True)
class _Offer:
    """A profile as the driver offers it."""

    id: int
    most: int
    sm_count: int
    profile: MigProfile


def in_mig_mode(card: DeviceUuid) -> bool:
    """Whether the card is in MIG mode now; False for one that has none."""
    try:
        return bool(pynvml.nvmlDeviceGetMigMode(_handle(card))[0])
    except pynvml.NVMLError:
        return False


def enable(card: DeviceUuid) -> str:
    """Put a card into MIG mode; why it is not, or empty when it is.

    The driver resets the card for it, which it does only while nobody uses it.
    """
    try:
        handle = _handle(card)
        current, _ = pynvml.nvmlDeviceGetMigMode(handle)
        if current:
            return ""
        status = pynvml.nvmlDeviceSetMigMode(handle, pynvml.NVML_DEVICE_MIG_ENABLE)
        return "" if status == pynvml.NVML_SUCCESS else str(pynvml.NVMLError(status))
    except pynvml.NVMLError as error:
        return str(error)


def is_idle(card: DeviceUuid) -> bool:
    """Whether the driver certainly knows of no program on the card."""
    try:
        handle = _handle(card)
        return not (
            pynvml.nvmlDeviceGetComputeRunningProcesses(handle) or pynvml.nvmlDeviceGetGraphicsRunningProcesses(handle)
        )
    except pynvml.NVMLError:
        return False


def profiles(card: DeviceUuid) -> tuple[tuple[MigProfile, int], ...]:
    """All that a card in MIG mode offers, each with how many instances of it there may be at a time."""
    return tuple((offer.profile, offer.most) for offer in _asked(card, _offers))


def instances(card: DeviceUuid) -> tuple[LiveInstance, ...]:
    """Every instance on a card, by first slice; whoever made it. Raises MigError."""
    return _asked(card, lambda handle: _instances(card, handle))


def static_devices(card: DeviceUuid) -> tuple[StaticDevice, ...]:
    """What programs can run on of a card in MIG mode, whoever made it, by first slice. Raises MigError."""

    def look(handle: Any) -> tuple[StaticDevice, ...]:
        offers = {offer.id: offer.profile for offer in _offers(handle)}
        return tuple(
            StaticDevice(card=card, uuid=DeviceUuid(live.whole.uuid), profile=offers[live.profile_id])
            for live in _instances(card, handle)
            if live.whole is not None and live.profile_id in offers
        )

    return _asked(card, look)


def create(card: DeviceUuid, profile: str, place: MigPlacement) -> LiveInstance:
    """Make an instance at a place, with the compute instance that takes all of it. Raises MigError.

    Where the second half fails the first is unmade again, so that nothing is left behind.
    """

    def make(handle: Any) -> LiveInstance:
        offer = _named(handle, profile)
        at = pynvml.c_nvmlGpuInstancePlacement_t(place.start, place.size)
        made = pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(handle, offer.id, ctypes.byref(at))
        number = int(pynvml.nvmlGpuInstanceGetInfo(made).id)
        try:
            _complete(made)
            return _found(card, handle, number)
        except BaseException:
            _unmake(handle, number)
            raise

    try:
        return _asked(card, make)
    except MigError as error:
        raise MigError(f"{profile} at slice {place.start} of {card} cannot be made: {error}") from error


def complete(card: DeviceUuid, gpu_instance: int) -> LiveInstance:
    """Give a GPU instance that has none its compute instance. Raises MigError."""

    def finish(handle: Any) -> LiveInstance:
        _complete(pynvml.nvmlDeviceGetGpuInstanceById(handle, gpu_instance))
        return _found(card, handle, gpu_instance)

    return _asked(card, finish)


def destroy(card: DeviceUuid, gpu_instance: int) -> None:
    """Unmake an instance; one that is not there is no error. Raises InstanceBusy while a program runs on it, MigError
    for anything else."""
    _asked(card, lambda handle: _unmake(handle, gpu_instance))


def profile_id(card: DeviceUuid, profile: str) -> int:
    """The driver's id of a profile by name. Raises MigError."""
    return _asked(card, lambda handle: _named(handle, profile).id)


def _handle(card: DeviceUuid) -> Any:
    return pynvml.nvmlDeviceGetHandleByUUID(card.encode())


def _asked(card: DeviceUuid, question: Callable[[Any], T]) -> T:
    """A question about a card, with NVML's refusal in our words."""
    try:
        return question(_handle(card))
    except pynvml.NVMLError_InUse as error:
        raise InstanceBusy(f"a program still runs on an instance of {card}") from error
    except pynvml.NVMLError as error:
        raise MigError(f"{card}: {error}") from error


def _offers(handle: Any) -> tuple[_Offer, ...]:
    card_mib = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) // MIB
    found = [(number, info) for number, info in _infos(handle)]
    largest = max((int(info.multiprocessorCount) for _, info in found), default=1)
    return tuple(
        _Offer(
            id=int(info.id),
            most=int(info.instanceCount),
            sm_count=int(info.multiprocessorCount),
            profile=MigProfile(
                name=_name(number, info, card_mib),
                memory_mib=int(info.memorySizeMB),
                cores=-(-100 * int(info.multiprocessorCount) // largest),
                slice_count=int(info.sliceCount),
                placements=_placements(handle, int(info.id)),
            ),
        )
        for number, info in found
    )


def _infos(handle: Any) -> Iterator[tuple[int, Any]]:
    for number in range(pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
        try:
            yield number, pynvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, number)
        except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_InvalidArgument):
            continue
        except (pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_ArgumentVersionMismatch):
            # Drivers before the names.
            try:
                yield number, pynvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, number, version=1)
            except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_InvalidArgument):
                continue


def _name(number: int, info: Any, card_mib: int) -> str:
    told = getattr(info, "name", "")
    text = (told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)).removeprefix("MIG ").strip()
    if text:
        return text
    return str(profile_name(int(info.sliceCount), int(info.memorySizeMB), card_mib, SUFFIXES.get(number, "")))


def _placements(handle: Any, profile: int) -> tuple[MigPlacement, ...]:
    count = ctypes.c_uint(MOST_PLACES)
    array = (pynvml.c_nvmlGpuInstancePlacement_t * MOST_PLACES)()
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, profile, array, ctypes.byref(count))
    places = [MigPlacement(start=int(array[i].start), size=int(array[i].size)) for i in range(count.value)]
    return tuple(sorted(places, key=lambda place: place.start))


def _named(handle: Any, profile: str) -> _Offer:
    offers = {offer.profile.name: offer for offer in _offers(handle)}
    if profile in offers:
        return offers[profile]
    try:
        # Another driver's name of the same profile.
        alike = select_profiles([offer.profile for offer in offers.values()], (profile,), "profile")
    except WireError as error:
        raise MigError(str(error)) from error
    if not alike:
        raise MigError(f"there is no profile {profile}")
    return offers[alike[0].name]


def _instances(card: DeviceUuid, handle: Any) -> tuple[LiveInstance, ...]:
    uuids = _mig_devices(handle)
    found = []
    for _, info in _infos(handle):
        count = ctypes.c_uint()
        array = (pynvml.c_nvmlGpuInstance_t * max(1, int(info.instanceCount)))()
        pynvml.nvmlDeviceGetGpuInstances(handle, int(info.id), array, ctypes.byref(count))
        for made in array[: count.value]:
            told = pynvml.nvmlGpuInstanceGetInfo(made)
            number = int(told.id)
            found.append(
                LiveInstance(
                    card=card,
                    gpu_instance=number,
                    profile_id=int(told.profileId),
                    placement=MigPlacement(start=int(told.placement.start), size=int(told.placement.size)),
                    devices=tuple(
                        MigInstance(
                            uuid=uuids.get((number, compute), ""), gpu_instance=number, compute_instance=compute
                        )
                        for compute in _compute_instances(made)
                    ),
                )
            )
    return tuple(sorted(found, key=lambda live: live.placement.start))


def _found(card: DeviceUuid, handle: Any, gpu_instance: int) -> LiveInstance:
    """An instance that programs can run on."""
    for live in _instances(card, handle):
        if live.gpu_instance == gpu_instance and live.whole is not None:
            return live
    raise MigError(f"{card}: the driver shows no MIG device of instance {gpu_instance}")


def _mig_devices(handle: Any) -> dict[tuple[int, int], str]:
    """UUIDs of the card's MIG devices by the ids of GPU and compute instance."""
    found = {}
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            mig = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except (pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument):
            continue
        uuid = pynvml.nvmlDeviceGetUUID(mig)
        ids = int(pynvml.nvmlDeviceGetGpuInstanceId(mig)), int(pynvml.nvmlDeviceGetComputeInstanceId(mig))
        found[ids] = uuid.decode() if isinstance(uuid, bytes) else str(uuid)
    return found


def _compute_profiles(made: Any) -> Iterator[Any]:
    for number in range(pynvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
        try:
            yield pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(made, number, 0)
        except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_InvalidArgument):
            continue
        except (pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_ArgumentVersionMismatch):
            try:
                yield pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(made, number, 0, version=1)
            except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_InvalidArgument):
                continue


def _compute_handles(made: Any) -> Iterator[Any]:
    for info in _compute_profiles(made):
        count = ctypes.c_uint()
        array = (pynvml.c_nvmlComputeInstance_t * max(1, int(info.instanceCount)))()
        pynvml.nvmlGpuInstanceGetComputeInstances(made, int(info.id), array, ctypes.byref(count))
        yield from array[: count.value]


def _compute_instances(made: Any) -> Iterator[int]:
    for compute in _compute_handles(made):
        yield int(pynvml.nvmlComputeInstanceGetInfo(compute).id)


def _complete(made: Any) -> None:
    """The compute instance with the most slices is the whole."""
    whole = max(_compute_profiles(made), key=lambda info: int(info.sliceCount), default=None)
    if whole is None:
        raise MigError("its driver offers no compute instance")
    pynvml.nvmlGpuInstanceCreateComputeInstance(made, int(whole.id))


def _unmake(handle: Any, gpu_instance: int) -> None:
    try:
        made = pynvml.nvmlDeviceGetGpuInstanceById(handle, gpu_instance)
    except pynvml.NVMLError_NotFound:
        return
    for compute in list(_compute_handles(made)):
        pynvml.nvmlComputeInstanceDestroy(compute)
    pynvml.nvmlGpuInstanceDestroy(made)
