"""A CUDA client in a process of its own, driven line by line, so that a test can hold several and kill any of them.

Run as a program it opens `libcuda.so.1` by name, reads `[function, argument...]` as JSON lines and answers each with
one JSON line. `Client` is the test's end of that.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from types import TracebackType
from typing import Any

MIB = 1 << 20
OUT_OF_MEMORY = 2


class Driver:
    """The calls a test makes, each returning plain numbers; handles stay here and are named by position."""

    def __init__(self) -> None:
        self.cu = ctypes.CDLL("libcuda.so.1")
        self.handles: list[Any] = []

    def call(self, name: str, *arguments: Any) -> int:
        return int(getattr(self.cu, name)(*arguments))

    def has(self, name: str) -> bool:
        """`dlsym` finds it."""
        return hasattr(self.cu, name)

    def _keep(self, handle: Any) -> int:
        self.handles.append(handle)
        return len(self.handles) - 1

    def init(self) -> int:
        return self.call("cuInit", 0)

    def count(self) -> int:
        count = ctypes.c_int(-1)
        self.call("cuDeviceGetCount", ctypes.byref(count))
        return count.value

    def attribute(self, number: int, ordinal: int = 0) -> int:
        """A device attribute by its number in the driver's header."""
        value = ctypes.c_int(-1)
        self.call("cuDeviceGetAttribute", ctypes.byref(value), number, ordinal)
        return value.value

    def uuid(self, ordinal: int) -> str:
        raw = (ctypes.c_ubyte * 16)()
        self.call("cuDeviceGetUuid_v2", raw, ordinal)
        text = bytes(raw).hex()
        return f"GPU-{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def use(self, ordinal: int = 0) -> int:
        """Init, retain the primary context and make it current; the first result that is not success."""
        context = ctypes.c_void_p()
        return (
            self.call("cuInit", 0)
            or self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), ordinal)
            or self.call("cuCtxSetCurrent", context)
        )

    def release(self, ordinal: int = 0) -> int:
        return self.call("cuDevicePrimaryCtxRelease_v2", ordinal)

    def info(self) -> list[int]:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        rc = self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return [rc, free.value, total.value]

    def alloc(self, size: int, function: str = "cuMemAlloc_v2", *more: int) -> list[int]:
        """[result, address]; `more` are further integer arguments of that function."""
        address = ctypes.c_ulonglong()
        rc = self.call(function, ctypes.byref(address), ctypes.c_size_t(size), *more)
        return [rc, address.value]

    def alloc_async(self, size: int) -> list[int]:
        address = ctypes.c_ulonglong()
        rc = self.call("cuMemAllocAsync", ctypes.byref(address), ctypes.c_size_t(size), None)
        return [rc, address.value]

    def free_async(self, address: int) -> int:
        return self.call("cuMemFreeAsync", ctypes.c_ulonglong(address), None)

    def pitch(self, width: int, height: int) -> list[int]:
        address, pitch = ctypes.c_ulonglong(), ctypes.c_size_t()
        rc = self.call(
            "cuMemAllocPitch_v2",
            ctypes.byref(address),
            ctypes.byref(pitch),
            ctypes.c_size_t(width),
            ctypes.c_size_t(height),
            4,
        )
        return [rc, address.value, pitch.value]

    def free(self, address: int) -> int:
        return self.call("cuMemFree_v2", ctypes.c_ulonglong(address))

    def stream(self, flags: int = 0) -> int:
        stream = ctypes.c_void_p()
        self.call("cuStreamCreate", ctypes.byref(stream), flags)
        return self._keep(stream)

    def sync(self, stream: int | None = None) -> int:
        return self.call("cuStreamSynchronize", None if stream is None else self.handles[stream])

    def function(self, name: str) -> int:
        """Position of a function of a module made for it, or minus the result."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        rc = self.call("cuModuleLoadData", ctypes.byref(module), name.encode())
        rc = rc or self.call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        return -rc if rc else self._keep(function)

    def launch(self, function: int, times: int = 1, stream: int | None = None, blocks: int = 1) -> int:
        one, kernel = ctypes.c_uint(1), self.handles[function]
        where = None if stream is None else self.handles[stream]
        for _ in range(times):
            rc = self.call("cuLaunchKernel", kernel, blocks, one, one, one, one, one, 0, where, None, None)
            if rc:
                return rc
        return 0

    def event(self) -> int:
        event = ctypes.c_void_p()
        self.call("cuEventCreate", ctypes.byref(event), 0)
        return self._keep(event)

    def record(self, event: int) -> int:
        return self.call("cuEventRecord", self.handles[event], None)

    def query(self, event: int) -> int:
        return self.call("cuEventQuery", self.handles[event])

    def elapsed_ms(self, start: int, end: int) -> list[float]:
        ms = ctypes.c_float()
        rc = self.call("cuEventElapsedTime", ctypes.byref(ms), self.handles[start], self.handles[end])
        return [rc, ms.value]

    def burn(self, kernel_ns: int, seconds: float) -> int:
        """Launch and wait for one kernel after the other; how many completed."""
        function, done, end = self.function(f"sim_ns_{kernel_ns}"), 0, time.monotonic() + seconds
        while time.monotonic() < end and not (self.launch(function) or self.sync()):
            done += 1
        return done

    def forked(self, function: str, *arguments: Any) -> Any:
        """The answer of a call made in a forked child."""
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.write(writer, json.dumps(getattr(self, function)(*arguments)).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as answer:
            text = answer.read()
        os.wait()
        return json.loads(text)


class Client:
    """One such process, started behind `prefix`; a method call is a call there."""

    def __init__(self, environment: dict[str, str], *prefix: str) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-I", __file__],
            env={"PATH": os.environ.get("PATH", ""), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __getattr__(self, function: str) -> Any:
        def call(*arguments: Any) -> Any:
            self.start(function, *arguments)
            return self.answer()

        return call

    def start(self, function: str, *arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([function, *arguments]) + "\n")

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise EOFError(f"the client ended with {self.process.wait(10)}")
        return json.loads(line)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def main() -> None:
    driver = Driver()
    for line in sys.stdin:
        function, *arguments = json.loads(line)
        print(json.dumps(getattr(driver, function)(*arguments)), flush=True)


if __name__ == "__main__":
    main()
