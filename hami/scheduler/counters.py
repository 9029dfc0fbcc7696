"""What the service counts about itself: a table of names, and the few calls that move them.

The closed sets of results and reasons exist from the start at zero, so an alert on a failure works before the first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from hami.scheduler.clock import Clock

REASONS: Final[dict[str, str]] = {
    "": "succeeded",
    "no_hami_resource": "skipped",
    "simulation": "skipped",
    "not_active": "failed",
    "invalid_request": "failed",
    "score_failed": "failed",
    "no_fitting_node": "failed",
    "bind_under_way": "failed",
    "pod_not_found": "failed",
    "node_not_found": "failed",
    "node_locked": "failed",
    "bind_rejected": "failed",
    "bind_unknown": "failed",
}
"""Why a call ended as it did, and what that counts as."""
_BUCKETS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30)


class Counters:
    """Counters and histograms in a registry of their own."""

    def __init__(self, clock: Clock) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._clock = clock
        zone = {"zone": "vGPU"}
        self._filters = Counter(
            "hami_scheduler_filter",
            "Filter calls by result and reason",
            ["zone", "result", "reason"],
            registry=self.registry,
        )
        self._binds = Counter(
            "hami_scheduler_bind",
            "Bind calls by result and reason",
            ["zone", "result", "reason"],
            registry=self.registry,
        )
        for reason, result in REASONS.items():
            for counter in (self._filters, self._binds):
                counter.labels(**zone, result=result, reason=reason)
        self._filter_seconds = Histogram(
            "hami_scheduler_filter_duration_seconds",
            "Time from a filter body's arrival to its answer",
            ["zone"],
            buckets=_BUCKETS,
            registry=self.registry,
        ).labels(**zone)
        self._bind_seconds = Histogram(
            "hami_scheduler_bind_duration_seconds",
            "Time from a bind body's arrival to its answer, waiting included",
            ["zone"],
            buckets=_BUCKETS,
            registry=self.registry,
        ).labels(**zone)
        self.holds = Gauge("hami_scheduler_holds", "Decisions not bound yet", ["zone"], registry=self.registry)
        self.waiting = Gauge("hami_scheduler_waiting_pods", "Refused pods", ["zone"], registry=self.registry)
        self.active = Gauge("hami_scheduler_active", "Whether this process decides", ["zone"], registry=self.registry)
        self.problems = Counter(
            "hami_scheduler_unusable_objects", "Unusable annotations told", ["zone"], registry=self.registry
        ).labels(**zone)

    def filtered(self, reason: str = "") -> None:
        self._filters.labels(zone="vGPU", result=REASONS[reason], reason=reason).inc()

    def bound(self, reason: str = "") -> None:
        self._binds.labels(zone="vGPU", result=REASONS[reason], reason=reason).inc()

    @contextmanager
    def timing_filter(self) -> Iterator[None]:
        start = self._clock.monotonic()
        try:
            yield
        finally:
            self._filter_seconds.observe(self._clock.monotonic() - start)

    @contextmanager
    def timing_bind(self) -> Iterator[None]:
        start = self._clock.monotonic()
        try:
            yield
        finally:
            self._bind_seconds.observe(self._clock.monotonic() - start)
