"""The shared region of a container that HAMi 2.x started: a reader, and the two words that a monitor sets.

The file is read by C code that knows both layouts; nothing of it is mapped, because its container may cut it.
"""

from dataclasses import dataclass

from libc.errno cimport errno
from libc.stdint cimport int32_t, uint64_t

import os
import stat


cdef extern from "region_old.h" nogil:
    enum:
        REGION_DEVICES

    struct region_old_device:
        char uuid[96]
        uint64_t limit
        uint64_t cores
        uint64_t context
        uint64_t module
        uint64_t data
        uint64_t total

    struct region_old:
        int layout
        int minor
        int count
        region_old_device devices[16]
        int processes
        int32_t host_pids[1024]
        int host_pid_count
        int32_t sharing
        int32_t recent_kernel
        int32_t priority
        uint64_t last_kernel

    int region_old_read(int fd, region_old* into)
    int region_old_set(int fd, int layout, int32_t recent_kernel, bint sharing)


@dataclass(frozen=True, slots=True, kw_only=True)
class OldDevice:
    """One device of a container, summed over its processes; bytes."""

    uuid: str
    limit_bytes: int
    cores: int
    context_bytes: int
    module_bytes: int
    data_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OldSnapshot:
    """A region at one moment."""

    layout: int
    minor: int
    devices: tuple
    processes: int
    host_pids: tuple
    priority: int
    sharing: bool
    recent_kernel: int
    last_kernel_unix: int


cdef class OldRegion:
    cdef int _fd
    cdef region_old _seen
    cdef readonly str path
    cdef readonly object identity

    def __cinit__(self, path):
        self._fd = -1

    def __init__(self, path):
        """Open the file; it must be a regular one, not a link to somewhere else. Raises OSError."""
        self.path = os.fspath(path)
        self._fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise OSError(f"{self.path}: not a file")
        self.identity = (found.st_dev, found.st_ino)

    def __dealloc__(self):
        if self._fd >= 0:
            os.close(self._fd)

    def close(self):
        """Let go of the file; more than once is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def snapshot(self):
        """What it says now. Raises OSError; EPROTO: no region of a layout that is known."""
        self._read()
        cdef region_old* r = &self._seen
        cdef int i
        devices = []
        for i in range(r.count):
            devices.append(OldDevice(
                uuid=(<bytes> r.devices[i].uuid).decode(errors="replace"),
                limit_bytes=r.devices[i].limit,
                cores=r.devices[i].cores,
                context_bytes=r.devices[i].context,
                module_bytes=r.devices[i].module,
                data_bytes=r.devices[i].data,
                total_bytes=r.devices[i].total,
            ))
        return OldSnapshot(
            layout=r.layout,
            minor=r.minor,
            devices=tuple(devices),
            processes=r.processes,
            host_pids=tuple([r.host_pids[i] for i in range(r.host_pid_count)]),
            priority=r.priority,
            sharing=r.sharing != 0,
            recent_kernel=r.recent_kernel,
            last_kernel_unix=r.last_kernel,
        )

    cdef int _read(self) except -1:
        if self._fd < 0:
            raise ValueError(f"{self.path}: region is closed")
        if region_old_read(self._fd, &self._seen) != 0:
            raise OSError(errno, os.strerror(errno), self.path)
        return 0

    def apply(self, *, bint blocked, bint sharing):
        """Let launches wait or go on, and compute limits hold or not. The activity word keeps what programs wrote."""
        self._read()
        cdef int32_t recent = self._seen.recent_kernel
        if blocked and recent >= 0:
            recent = -1
        elif not blocked and recent < 0:
            recent = 0
        if recent != self._seen.recent_kernel or sharing != (self._seen.sharing != 0):
            self._set(recent, sharing)

    def decay(self):
        """Count the activity word down by one; what it is then (2 = just launched, negative = launches wait)."""
        self._read()
        cdef int32_t recent = self._seen.recent_kernel
        if recent > 0:
            recent -= 1
            self._set(recent, self._seen.sharing != 0)
        return recent

    cdef int _set(self, int32_t recent, bint sharing) except -1:
        if region_old_set(self._fd, self._seen.layout, recent, sharing) != 0:
            raise OSError(errno, os.strerror(errno), self.path)
        return 0
