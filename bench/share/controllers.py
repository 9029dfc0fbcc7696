"""Other ways to hold a compute limit, simulated on the loads that ours is measured on: one program alone on a device.

A discrete simulation with exact kernel times and no other delays, so it flatters everybody. Device: 108
multiprocessors of 2,048 threads. The driver's utilisation is the busy part of the last sixth of a second, as the
fastest drivers sample it. Modelled from published descriptions:

delta    blocks are tokens; every 120 ms the refill grows or shrinks with the distance from the limit (HAMi-core)
aimd     the same tokens; every 90 ms the refill falls to a third above the limit, grows a step below 80 % of it, a
         small step up to 87.5 % and stays between (after vgpu-manager)
pid      a cost by threads; five times a second the rate is set by consumption, utilisation and a PID term (after
         TensorFusion)
bucket   ours: device time is earned at the limit and owed when spent (interpose/throttle.c)

The first three take a graph for a launch that costs nothing, as they do.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from bench.share.loads import ASYNC_30US, GRAPH_8MS, LONG_500MS, SYNC_1MS, Load

SMS: Final = 108
THREADS: Final = 2048
BLOCK: Final = 256
BLOCKS_A_MS: Final = 1_728
"""Two waves of blocks take a millisecond."""
SAMPLE_S: Final = 1 / 6
HOST_S: Final = 20e-6
"""From the end of a kernel that was waited for to the next launch."""
STEP_S: Final = 0.01
"""Time resolution of what comes out."""
LOADS: Final[dict[str, Load]] = {
    "1 ms kernels, sync each": SYNC_1MS,
    "30 us kernels, async": ASYNC_30US,
    "8 ms graph replays": GRAPH_8MS,
    "500 ms kernels": LONG_500MS,
}


class Controller(Protocol):
    """Decides when the next launch may go. Times in seconds, utilisation in percent of the device's time."""

    period_s: float

    def tick(self, used: float) -> None:
        """Another period has passed; `used`: the driver's utilisation."""
        ...

    def wait(self, now: float) -> float:
        """How long the next launch must still wait; 0 = go."""
        ...

    def launched(self, work_s: float, blocks: int) -> None:
        """It went."""
        ...


@dataclass(slots=True)
class Delta:
    """Blocks as tokens, refill by distance from the limit."""

    limit: float
    period_s: float = 0.12
    pool: float = SMS * THREADS * 32
    share: float = 0.0
    bucket: float = 0.0

    def tick(self, used: float) -> None:
        distance = max(5.0, abs(self.limit - used))
        step = SMS * SMS * THREADS * distance / 2560
        if distance > self.limit / 2:
            step *= 2 * distance / (self.limit + 1)
        self.share = min(self.pool, max(0.0, self.share + (step if used <= self.limit else -step)))
        self.bucket = min(self.pool, self.bucket + self.share)
        if self.share == self.pool and self.bucket < 0:
            self.pool *= 2

    def wait(self, now: float) -> float:
        return 0.01 if self.bucket < 0 else 0.0

    def launched(self, work_s: float, blocks: int) -> None:
        self.bucket -= blocks


@dataclass(slots=True)
class Aimd(Delta):
    """The same tokens; steps up, thirds down."""

    period_s: float = 0.09

    def tick(self, used: float) -> None:
        step = SMS * SMS * THREADS * 5 / 2560
        if used > self.limit:
            self.share /= 3
        elif used < 0.8 * self.limit:
            self.share += step
        elif used < 0.875 * self.limit:
            self.share += step / 8
        self.share = min(self.pool, self.share)
        self.bucket = min(self.pool, self.bucket + self.share)


@dataclass(slots=True)
class Pid:
    """Tokens by threads, a rate by consumption over utilisation with a PID term."""

    limit: float
    period_s: float = 0.2
    rate: float = 100.0
    bucket: float = 0.0
    spent: float = 0.0
    drain: float = 0.0
    integral: float = 0.0
    before: float = 0.0
    seen: float = 0.0

    def tick(self, used: float) -> None:
        self.drain += 0.3 * (self.spent / self.period_s - self.drain)
        self.spent = 0.0
        error = (self.limit - used) / self.limit
        self.integral = min(1.0, max(-1.0, self.integral + error * self.period_s))
        term = 0.5 * error + 0.1 * self.integral + 0.05 * (error - self.before) / self.period_s
        self.before = error
        if used > 0:
            self.rate = self.drain * self.limit / used * (1 + min(0.5, max(-0.5, term)))
        else:
            self.rate *= 1.5
        self.rate = min(100_000.0, max(10.0, self.rate))

    def wait(self, now: float) -> float:
        self.bucket = min(2 * self.rate, self.bucket + (now - self.seen) * self.rate)
        self.seen = now
        return 0.01 if self.bucket < 0 else 0.0

    def launched(self, work_s: float, blocks: int) -> None:
        cost = 0.1 + 9.9 * (1 - math.exp(-blocks * BLOCK / 400_000)) if blocks else 0.0
        self.bucket -= cost
        self.spent += cost


@dataclass(slots=True)
class Bucket:
    """Device time earned and owed, with the constants of interpose/throttle.h."""

    limit: float
    period_s: float = 1.0
    debt_s: float = 0.0
    seen: float = 0.0

    def tick(self, used: float) -> None:
        """It asks no driver."""

    def wait(self, now: float) -> float:
        part = self.limit / 100
        self.debt_s = max(-0.05 * part, self.debt_s - (now - self.seen) * part)
        self.seen = now
        over_s = self.debt_s - 0.02 * part
        return min(0.002, over_s / part) if over_s > 0 else 0.0

    def launched(self, work_s: float, blocks: int) -> None:
        self.debt_s += work_s


CONTROLLERS: Final[dict[str, Callable[[float], Controller]]] = {
    "delta": Delta,
    "aimd": Aimd,
    "pid": Pid,
    "bucket": Bucket,
}


@dataclass(slots=True)
class _Device:
    """When it was busy."""

    seconds: float
    bins: list[float] = field(default_factory=list)
    free_s: float = 0.0

    def run(self, from_s: float, work_s: float) -> None:
        self.free_s = max(self.free_s, from_s) + work_s
        at = self.free_s - work_s
        while at < self.free_s:
            index = int(at / STEP_S + 1e-9)
            end = min(self.free_s, (index + 1) * STEP_S)
            self.bins += [0.0] * (index + 1 - len(self.bins))
            self.bins[index] += end - at
            at = end

    def used(self, now: float) -> float:
        """Percent of the last full sample."""
        last = int(now / SAMPLE_S) * SAMPLE_S
        span = self.bins[max(0, round((last - SAMPLE_S) / STEP_S)) : round(last / STEP_S)]
        return 100 * sum(span) / SAMPLE_S


def simulate(controller: Controller, load: Load, seconds: float = 30.0) -> tuple[float, ...]:
    """Device time had, nanoseconds a bin of 10 ms, of a program that launches whenever it may."""
    device = _Device(seconds)
    work_s = load.unit_ns / 1e9
    blocks = 0 if load.graph else max(1, round(BLOCKS_A_MS * load.kernel_ns / 1e6))
    now, ticked = 0.0, 0.0
    while now < seconds:
        while now - ticked >= controller.period_s:
            ticked += controller.period_s
            controller.tick(device.used(ticked))
        pause = controller.wait(now)
        if pause > 0:
            now += max(pause, 1e-6)
            continue
        controller.launched(work_s, blocks)
        device.run(now, work_s)
        ahead_s = 0.0 if load.depth == 1 else (load.depth - 1) * work_s
        now = max(now, device.free_s - ahead_s) + (HOST_S if load.depth == 1 else 1e-6)
    bins = (device.bins + [0.0] * round(seconds / STEP_S))[: round(seconds / STEP_S)]
    return tuple(busy * 1e9 for busy in bins)
