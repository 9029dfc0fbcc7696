"""MIG through NVIDIA's own bindings: what tests and their helper processes say in one line."""

from ctypes import byref, c_uint
from typing import Any

import pynvml


def profile(handle: Any, name: str) -> Any:
    """The profile of this name (`1g.10gb`)."""
    for number in range(pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
        try:
            info = pynvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, number)
        except pynvml.NVMLError_NotSupported:
            continue
        if info.name == f"MIG {name}":
            return info
    raise LookupError(name)


def make(handle: Any, name: str, start: int, size: int, *, compute: bool = True) -> Any:
    """A GPU instance at a place, with its compute instance unless said otherwise."""
    at = pynvml.c_nvmlGpuInstancePlacement_t(start, size)
    instance = pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(handle, profile(handle, name).id, byref(at))
    if compute:
        pynvml.nvmlGpuInstanceCreateComputeInstance(instance, whole_compute(instance).id)
    return instance


def whole_compute(instance: Any) -> Any:
    """The profile of the compute instance that takes all of a GPU instance."""
    for number in range(pynvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
        try:
            return pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(instance, number, 0)
        except pynvml.NVMLError_NotSupported:
            continue
    raise LookupError("no compute instance fits")


def unmake(instance: Any) -> None:
    pynvml.nvmlComputeInstanceDestroy(pynvml.nvmlGpuInstanceGetComputeInstanceById(instance, 0))
    pynvml.nvmlGpuInstanceDestroy(instance)


def mig_devices(handle: Any) -> list[Any]:
    """Handles of the device's MIG devices."""
    found = []
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            found.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))
        except pynvml.NVMLError_NotFound:
            break
    return found


def instances(handle: Any, name: str) -> list[Any]:
    """The GPU instances of a profile."""
    wanted = profile(handle, name)
    count = c_uint()
    array = (pynvml.c_nvmlGpuInstance_t * wanted.instanceCount)()
    pynvml.nvmlDeviceGetGpuInstances(handle, wanted.id, array, byref(count))
    return list(array[: count.value])


def placements(handle: Any, name: str) -> list[tuple[int, int]]:
    """Where instances of a profile may lie: start and size."""
    wanted = profile(handle, name)
    count = c_uint()
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, wanted.id, None, byref(count))
    array = (pynvml.c_nvmlGpuInstancePlacement_t * count.value)()
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, wanted.id, array, byref(count))
    return [(place.start, place.size) for place in array]
