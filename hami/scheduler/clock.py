"""The two clocks of the service, passed in so that a test can move them."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """`monotonic` measures how long; `unix` is what is written where others read it."""

    monotonic: Callable[[], float] = time.monotonic
    unix: Callable[[], float] = time.time
