"""Entries of real processes, for tests of the directory and the queue."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hami.local import processes
from hami.local.ask import Ask
from hami.local.entries import Entry
from hami.model.claim import Mib, Share
from hami.model.names import DeviceUuid

DEVICE = DeviceUuid("GPU-a")
SHARE = Share(uuid=DEVICE, kind="NVIDIA", memory_mib=3000, cores=30)
ASK = Ask(gpus=1, memory=Mib(3000), cores=30, policy="spread")


def entry_of(of: int, /, **changes: Any) -> Entry:
    """The entry of the living process `of`, with some fields changed."""
    ticks = processes.start_ticks(of)
    assert ticks is not None
    values = {
        "pid": of,
        "start_ticks": ticks,
        "boot": processes.boot_id(),
        "uid": os.getuid(),
        "command": "python",
        "ask": ASK,
        "devices": (DEVICE,),
        "shares": (SHARE,),
    }
    return Entry(**{**values, **changes})


def own_entry(**changes: Any) -> Entry:
    return entry_of(os.getpid(), **changes)


@contextmanager
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until the block ends, or is killed before."""
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            yield child
        finally:
            child.kill()
