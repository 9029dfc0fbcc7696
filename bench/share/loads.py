"""What is measured: containers with their limits, what their programs do, and what each should obtain of the device."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

US: Final = 1_000
MS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one program launches."""

    name: str
    kernel_ns: int
    depth: int = 1
    """Launches outstanding at a time; 1 = each is waited for."""
    graph: int = 0
    """Kernels launched as one CUDA graph; 0 = single kernels."""
    on_ms: int = 0
    off_ms: int = 0
    """Works so long, then rests so long; 0 = always at work."""

    @property
    def unit_ns(self) -> int:
        """Device time of one launch."""
        return self.kernel_ns * max(1, self.graph)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharer:
    """One container."""

    load: Load
    cores: int = 0
    """Percent of the device's time; 0 = no limit."""
    processes: int = 1
    policy: str = "default"
    priority: int = 1
    from_s: float = 0.0
    to_s: float | None = None
    """When its programs work, in seconds of the row; None = to its end."""
    mps_percent: int = 0
    """Active thread percentage of its programs; 0 = none set."""


class Kind(Enum):
    """How an expectation is compared with what happened."""

    WINDOWS = "windows"
    """Mean difference of one-second windows from the percentage, in points; for kernels that fit many times in one."""
    MEAN = "mean"
    """Difference of the whole span from the percentage, in points."""
    AT_LEAST = "at least"
    """Points by which the whole span falls short of the percentage."""
    NEVER_BELOW = "never below"
    """Points by which the poorest second, wherever it begins, falls short of the percentage."""
    STEADY = "steady"
    """Points by which the one-second window furthest off differs from the whole span."""
    STOPS = "stops"
    """Milliseconds from the start of the container `after` until this one's last kernel has ended."""
    RESUMES = "resumes"
    """Milliseconds from the end of the container `after` until this one's next kernel has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """One container's due, by position in its row."""

    sharer: int
    kind: Kind = Kind.WINDOWS
    percent: float = 0.0
    from_s: float = 3.0
    """The span that counts begins here: the node side has seen who is there and what they obtain."""
    to_s: float | None = None
    target: float = 2.0
    """Most points (or milliseconds) off."""
    after: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    name: str
    sharers: tuple[Sharer, ...]
    expects: tuple[Expect, ...]
    seconds: float = 8.0
    device: int = 0
    """Index on the simulated machine: 0 goes round in turns, 1 runs programs side by side."""
    plot: str = ""
    """Key of the load among the simulated controllers, where they are plotted beside it."""


SYNC_1MS = Load(name="1 ms kernels, each waited for", kernel_ns=MS)
SYNC_5MS = Load(name="5 ms kernels, each waited for", kernel_ns=5 * MS)
SYNC_20MS = Load(name="20 ms kernels, each waited for", kernel_ns=20 * MS)
ASYNC_30US = Load(name="30 us kernels, 16 outstanding", kernel_ns=30 * US, depth=16)
ASYNC_1MS = Load(name="1 ms kernels, 4 outstanding", kernel_ns=MS, depth=4)
GRAPH_8MS = Load(name="graphs of 80 kernels, 8 ms", kernel_ns=100 * US, graph=80)
BURSTS = Load(name="bursts of 100 ms every 150 ms", kernel_ns=MS, on_ms=100, off_ms=50)
ON_OFF = Load(name="1 ms kernels for 1.5 s, then a rest of 1.5 s", kernel_ns=MS, on_ms=1500, off_ms=1500)
LONG_500MS = Load(name="500 ms kernels, each waited for", kernel_ns=500 * MS)
LIGHT_1MS = Load(name="1 ms kernels, one in 20 ms", kernel_ns=MS, on_ms=1, off_ms=19)
GREEDY = Load(name="20 ms kernels, always outstanding", kernel_ns=20 * MS, depth=8)


def _alone(load: Load, cores: int, plot: str = "", seconds: float = 8.0) -> Row:
    return Row(
        name=f"alone, {load.name}, {cores} %",
        sharers=(Sharer(load=load, cores=cores, policy="force"),),
        expects=(Expect(sharer=0, percent=cores, from_s=1.0),),
        seconds=seconds,
        plot=plot,
    )


def _long(cores: int, seconds: float) -> Row:
    kernel_points = 100 * LONG_500MS.kernel_ns / 1e9 / (seconds - 1)
    return Row(
        name=f"alone, {LONG_500MS.name}, {cores} %",
        sharers=(Sharer(load=LONG_500MS, cores=cores, policy="force"),),
        expects=(Expect(sharer=0, kind=Kind.MEAN, percent=cores, from_s=1.0, target=2 + kernel_points),),
        seconds=seconds,
        plot="500 ms kernels",
    )


def _together(load: Load, *cores: int, target: float = 2.0, seconds: float = 9.0, policy: str = "force") -> Row:
    return Row(
        name=f"{len(cores)} containers, {load.name}, {'/'.join(map(str, cores))} %, policy {policy}",
        sharers=tuple(Sharer(load=load, cores=percent, policy=policy) for percent in cores),
        expects=tuple(Expect(sharer=i, percent=percent, target=target) for i, percent in enumerate(cores)),
        seconds=seconds,
    )


def _processes(count: int) -> Row:
    return Row(
        name=f"{count} processes in one container, {SYNC_1MS.name}, 40 %",
        sharers=(Sharer(load=SYNC_1MS, cores=40, processes=count, policy="force"),),
        expects=(Expect(sharer=0, percent=40, from_s=2.0),),
    )


def _beside_greedy(load: Load, cores: int) -> Row:
    return Row(
        name=f"beside a greedy neighbour without limit, {load.name}, {cores} %",
        sharers=(Sharer(load=load, cores=cores), Sharer(load=GREEDY)),
        expects=(Expect(sharer=0, percent=cores, from_s=5.0),),
        seconds=12.0,
    )


def _long_beside_greedy(cores: int) -> Row:
    seconds, from_s = 26.0, 6.0
    kernel_points = 100 * LONG_500MS.kernel_ns / 1e9 / (seconds - from_s)
    return Row(
        name=f"beside a greedy neighbour without limit, {LONG_500MS.name}, {cores} %",
        sharers=(Sharer(load=LONG_500MS, cores=cores), Sharer(load=GREEDY)),
        expects=(Expect(sharer=0, kind=Kind.MEAN, percent=cores, from_s=from_s, target=2 + kernel_points),),
        seconds=seconds,
    )


ROWS: Final = (
    *(_alone(SYNC_1MS, cores, "1 ms kernels, sync each") for cores in (20, 50, 80)),
    *(_alone(ASYNC_30US, cores, "30 us kernels, async") for cores in (20, 50, 80)),
    *(_alone(GRAPH_8MS, cores, "8 ms graph replays") for cores in (20, 50, 80)),
    *(_alone(SYNC_20MS, cores) for cores in (20, 50)),
    _alone(BURSTS, 30),
    _long(20, 15.0),
    _long(50, 12.0),
    _processes(4),
    _processes(16),
    _together(ASYNC_1MS, 30, 70, target=5.0, policy="default"),
    _together(ASYNC_1MS, 20, 50),
    _together(SYNC_1MS, 20, 30, 40),
    _together(ASYNC_1MS, *[10] * 8),
    _together(SYNC_20MS, 30, 40),
    _beside_greedy(SYNC_1MS, 30),
    _beside_greedy(SYNC_5MS, 30),
    _beside_greedy(SYNC_20MS, 30),
    _beside_greedy(GRAPH_8MS, 30),
    _long_beside_greedy(30),
    Row(
        name="eight containers, 20 ms kernels, 12 % each",
        sharers=tuple(Sharer(load=SYNC_20MS, cores=12) for _ in range(8)),
        expects=tuple(Expect(sharer=i, percent=12, from_s=8.0) for i in range(8)),
        seconds=18.0,
    ),
    Row(
        name="two containers of eight processes, 20 ms kernels, 30 % each, policy force",
        sharers=tuple(Sharer(load=SYNC_20MS, cores=30, processes=8, policy="force") for _ in range(2)),
        expects=tuple(Expect(sharer=i, percent=30, from_s=8.0) for i in range(2)),
        seconds=16.0,
    ),
    Row(
        name="four containers of four processes, 20 ms kernels, 15 % each, policy force",
        sharers=tuple(Sharer(load=SYNC_20MS, cores=15, processes=4, policy="force") for _ in range(4)),
        expects=tuple(Expect(sharer=i, percent=15, from_s=8.0) for i in range(4)),
        seconds=18.0,
    ),
    Row(
        name="policy default, nobody else there: the limit of 30 % rests",
        sharers=(Sharer(load=ASYNC_1MS, cores=30),),
        expects=(Expect(sharer=0, kind=Kind.AT_LEAST, percent=97, from_s=1.0),),
        seconds=4.0,
    ),
    Row(
        name="policy disable beside a limited neighbour: takes what is left",
        sharers=(Sharer(load=ASYNC_1MS, cores=30, policy="disable"), Sharer(load=SYNC_1MS, cores=20)),
        expects=(Expect(sharer=0, kind=Kind.AT_LEAST, percent=76), Expect(sharer=1, percent=20)),
    ),
    Row(
        name="limits of 30/30/20 %, all at work: what is left over is lent in proportion",
        sharers=tuple(Sharer(load=ASYNC_1MS, cores=percent) for percent in (30, 30, 20)),
        expects=(
            *(Expect(sharer=i, percent=percent) for i, percent in enumerate((36, 36, 24))),
            *(Expect(sharer=i, kind=Kind.STEADY) for i in range(3)),
        ),
    ),
    Row(
        name="limits of 60/20/10 %, the first uses 5 %: the others borrow what it leaves",
        sharers=(
            Sharer(load=LIGHT_1MS, cores=60),
            Sharer(load=ASYNC_1MS, cores=20),
            Sharer(load=SYNC_1MS, cores=10),
        ),
        expects=(
            Expect(sharer=0, kind=Kind.AT_LEAST, percent=4.5),
            Expect(sharer=1, kind=Kind.AT_LEAST, percent=52),
            Expect(sharer=2, kind=Kind.AT_LEAST, percent=26),
            *(Expect(sharer=i, kind=Kind.STEADY) for i in range(3)),
        ),
    ),
    Row(
        name="limits of 60/20/10 %, the first comes after 4 s: it has its share after 0.3 s",
        sharers=(
            Sharer(load=SYNC_1MS, cores=60, from_s=4.0, to_s=8.0),
            Sharer(load=ASYNC_1MS, cores=20),
            Sharer(load=ASYNC_1MS, cores=10),
        ),
        expects=(
            Expect(sharer=1, percent=64, from_s=2.0, to_s=4.0),
            Expect(sharer=0, kind=Kind.NEVER_BELOW, percent=60, from_s=4.3, to_s=8.0),
            Expect(sharer=1, kind=Kind.NEVER_BELOW, percent=20, from_s=4.3, to_s=8.0),
            Expect(sharer=1, percent=64, from_s=10.0),
        ),
        seconds=13.0,
    ),
    Row(
        name="limits of 60/20/10 %, the first works for 1.5 s and rests for 1.5 s: it has its share each time",
        sharers=(
            Sharer(load=ON_OFF, cores=60),
            Sharer(load=ASYNC_1MS, cores=20),
            Sharer(load=ASYNC_1MS, cores=10),
        ),
        expects=tuple(
            Expect(sharer=0, kind=Kind.NEVER_BELOW, percent=60, from_s=at + 0.3, to_s=at + 1.4)
            for at in (3.0, 6.0, 9.0)
        ),
        seconds=12.0,
    ),
    Row(
        name="limits of 30/30 %, policy force and default: one is held, the other borrows",
        sharers=(Sharer(load=ASYNC_1MS, cores=30, policy="force"), Sharer(load=ASYNC_1MS, cores=30)),
        expects=(Expect(sharer=0, percent=30), Expect(sharer=1, percent=66)),
    ),
    Row(
        name="a neighbour ends: its share goes to the one that stays",
        sharers=(Sharer(load=ASYNC_1MS, cores=30), Sharer(load=ASYNC_1MS, cores=30, to_s=6.0)),
        expects=(
            Expect(sharer=0, percent=48, to_s=6.0),
            Expect(sharer=0, kind=Kind.AT_LEAST, percent=97, from_s=9.0),
        ),
        seconds=12.0,
    ),
    Row(
        name="a neighbour ends, policy force: the limit stays",
        sharers=(Sharer(load=ASYNC_1MS, cores=30, policy="force"), Sharer(load=ASYNC_1MS, cores=30, to_s=6.0)),
        expects=(Expect(sharer=0, percent=30, to_s=6.0), Expect(sharer=0, percent=30, from_s=6.0)),
        seconds=11.0,
    ),
    Row(
        name="side by side (MPS), active thread percentages 30 and 50",
        sharers=(Sharer(load=ASYNC_1MS, mps_percent=30), Sharer(load=ASYNC_1MS, mps_percent=50)),
        expects=(Expect(sharer=0, percent=30, from_s=1.0), Expect(sharer=1, percent=50, from_s=1.0)),
        seconds=5.0,
        device=1,
    ),
    Row(
        name="high priority comes and goes: low stops and resumes (ms)",
        sharers=(Sharer(load=ASYNC_1MS), Sharer(load=SYNC_1MS, priority=0, from_s=2.0, to_s=7.0)),
        expects=(
            Expect(sharer=0, kind=Kind.STOPS, after=1, target=200),
            Expect(sharer=0, kind=Kind.RESUMES, after=1, target=200),
            Expect(sharer=1, kind=Kind.AT_LEAST, percent=80, from_s=3.0, to_s=7.0),
        ),
        seconds=9.0,
    ),
)
