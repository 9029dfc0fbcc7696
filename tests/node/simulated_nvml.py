"""A simulated machine's NVML in the test's own process, one after another: the library knows one machine for good, so
each machine gets a copy of it."""

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pynvml

from hami.node.simulated import STATE_VARIABLE, native_dir
from tests.interpose.simulation import Simulation


@contextmanager
def driver(machine: Simulation) -> Iterator[None]:
    """`pynvml` speaks to `machine` while the block lasts."""
    copy = machine.state.with_name("libnvidia-ml.copy.so")
    shutil.copy(native_dir() / "sim" / "libnvidia-ml.so.1", copy)
    library, functions = pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache)
    state = os.environ.get(STATE_VARIABLE)
    os.environ[STATE_VARIABLE] = str(machine.state)
    pynvml.nvmlLib = ctypes.CDLL(str(copy))
    pynvml._nvmlGetFunctionPointer_cache.clear()
    try:
        pynvml.nvmlInit()
        yield
        pynvml.nvmlShutdown()
    finally:
        pynvml.nvmlLib = library
        pynvml._nvmlGetFunctionPointer_cache.clear()
        pynvml._nvmlGetFunctionPointer_cache.update(functions)
        if state is None:
            del os.environ[STATE_VARIABLE]
        else:
            os.environ[STATE_VARIABLE] = state
