"""Waiting for room: first come, first served.

A waiting program is a file in the directory, its place the time at which the kernel saw the file appear. Nobody is
overtaken by who wants the same devices, so a large request cannot starve behind small ones. Three kinds of waiters do
not count, because they would hold up the others for nothing: a stopped process, one whose request no empty machine
could meet, and one that asks another machine.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

from hami.local.entries import Entry
from hami.local.processes import is_stopped

CHECK_S: Final = 0.5
"""How often a waiter looks again when no program has ended: a shorter queue or a new device tells nobody."""
_LEAVING: Final = (signal.SIGTERM, signal.SIGHUP)


class Left(Exception):
    """A signal ended the waiting; `status` is the exit status a shell would report for it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def ahead_of(me: Entry, queue: Sequence[Entry], can_be_met: Callable[[Entry], bool]) -> tuple[Entry, ...]:
    """Who of the queue comes before `me`, the first one first; everybody who counts when `me` is not in it."""
    before: list[Entry] = []
    for entry in queue:
        if entry.name == me.name:
            break
        if not set(entry.devices).isdisjoint(me.devices) and not is_stopped(entry.pid) and can_be_met(entry):
            before.append(entry)
    return tuple(before)


@contextmanager
def leaving_on_signals() -> Iterator[None]:
    """Within the block a signal to end raises `Left`, so that the queue is left at once. Ignored ones stay ignored."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise Left(number)

    before = {number: signal.getsignal(number) for number in _LEAVING}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
