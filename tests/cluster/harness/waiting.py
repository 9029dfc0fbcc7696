"""Waiting for a condition with a deadline, and saying what was seen last when it does not come."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class TimedOut(AssertionError):
    """The condition did not come in time. The text names it and what was seen last."""


class NotYet(Exception):
    """Raised by a probe: the condition does not hold; the text says what stands there instead."""


def eventually(what: str, probe: Callable[[], T | None], within_s: float, every_s: float = 0.1) -> T:
    """The first value of `probe` that is neither None nor False, asked again every `every_s` seconds.

    A probe says "not yet" by None, False, `NotYet` or an `OSError` (a server that is not up); any other exception is
    the caller's. Raises `TimedOut` after `within_s` seconds.
    """
    deadline = time.monotonic() + within_s
    seen = ""
    while True:
        try:
            value = probe()
            if value is not None and value is not False:
                return value
        except (NotYet, OSError) as error:
            seen = f"; last: {error!r}"
        if time.monotonic() >= deadline:
            raise TimedOut(f"{what}: not within {within_s:g} s{seen}")
        time.sleep(every_s)


def holds(what: str, probe: Callable[[], object], for_s: float, every_s: float = 0.2) -> None:
    """`probe` stays true for `for_s` seconds; raises `AssertionError` naming `what` the moment it does not."""
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        assert probe(), f"{what}: did not stay so"
        time.sleep(every_s)
