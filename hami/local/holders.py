"""Why a program does not run now, in words: what is free on each device, who holds it, who waits before."""

import pwd
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hami.alloc.explain import in_words
from hami.local.entries import Entry
from hami.model.claim import NodeRefusal
from hami.model.device import Device
from hami.model.names import clip


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A program cannot run at this moment."""

    refusal: NodeRefusal | None
    """None: it was not asked whether it fits, because others wait before it."""
    before: tuple[Entry, ...]
    """Who waits before it for the same devices."""
    running: tuple[Entry, ...]

    @property
    def reason(self) -> str:
        """One line."""
        if self.refusal is None:
            count = len(self.before)
            first = self.before[0]
            programs = "1 program waits" if count == 1 else f"{count} programs wait"
            return f"{programs} before it, the first one {who(first)} for {first.ask.text}"
        return in_words([self.refusal]).partition(": ")[2]


def who(entry: Entry) -> str:
    """`process 4711 of alice`."""
    return f"process {entry.pid} of {user_name(entry.uid)}"


def user_name(uid: int) -> str:
    """The user's name; the number of one who has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def printable(text: str, limit: int = 60) -> str:
    """Another user's text for this user's terminal: no control characters, one line, not long."""
    return clip("".join(c if c.isprintable() else "?" for c in text), limit)


def device_lines(devices: Sequence[Device], running: Iterable[Entry], *, simulated: bool) -> list[str]:
    """What each device has left, and who holds the rest."""
    lines: list[str] = []
    entries = tuple(running)
    for device in devices:
        held = [(entry, share) for entry in entries for share in entry.shares if share.uuid == device.uuid]
        memory = max(0, device.memory_mib - sum(share.memory_mib for _, share in held))
        cores = max(0, device.cores - sum(share.cores for _, share in held))
        health = "" if device.healthy else ", unhealthy"
        free = f"{memory:,} of {device.memory_mib:,} MiB and {cores} % of compute free{health}"
        lines.append(f"{device.uuid} ({'simulated ' * simulated}{device.model}): {free}")
        for entry, share in held:
            compute = f" and {share.cores} %" if share.cores else ""
            lines.append(f"  {who(entry)} holds {share.memory_mib:,} MiB{compute}: {printable(entry.command)}")
    return lines
