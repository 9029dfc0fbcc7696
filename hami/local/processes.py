"""Facts about processes of this machine: does the one that wrote an entry still live, and is it awake."""

import os
import select
import time
from collections.abc import Iterable
from contextlib import ExitStack
from functools import cache
from pathlib import Path


@cache
def boot_id() -> str:
    """What this boot of the machine is called: a process id and start time mean nothing after a reboot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """When process `pid` started, in clock ticks since boot; None if there is no such living process."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[19])


def is_alive(pid: int, started: int) -> bool:
    """Whether the process that had this id and this start time still lives.

    Where /proc hides the processes of other users, one that exists is taken for the one meant: holding memory too long
    is better than giving it away twice.
    """
    ticks = start_ticks(pid)
    return ticks == started if ticks is not None else _is_hidden(pid)


def is_stopped(pid: int) -> bool:
    """Whether the process is suspended (Ctrl-Z, a debugger), so that it will not act on anything."""
    fields = _stat(pid)
    return fields is not None and fields[0] in "Tt"


def wait_for_end(pids: Iterable[int], patience_s: float) -> None:
    """Sleep until one of these processes has ended, at most `patience_s` seconds."""
    with ExitStack() as opened:
        poll = select.poll()
        for pid in pids:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                return
            except OSError:  # a kernel before 5.3, or no descriptors left: the time limit serves
                time.sleep(patience_s)
                return
            opened.callback(os.close, descriptor)
            poll.register(descriptor, select.POLLIN)
        poll.poll(patience_s * 1000)


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat behind the name, the first one the state."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _is_hidden(pid: int) -> bool:
    if pid <= 0 or Path(f"/proc/{pid}").exists():
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return False
