"""How fast and how often: retry delays and the client's own rate limit."""

import random
from collections.abc import Callable, Iterator

import anyio

Backoff = Callable[[], Iterator[float]]
"""Makes a fresh sequence of delays in seconds; a caller starts a new one after every success."""


def backoff(first_s: float = 0.2, most_s: float = 30.0, *, jitter: Callable[[], float] = random.random) -> Backoff:
    """Doubling delays, each shortened by up to half at random so that many clients do not return together."""

    def delays() -> Iterator[float]:
        delay = first_s
        while True:
            yield delay * (1 - jitter() / 2)
            delay = min(delay * 2, most_s)

    return delays


class RateLimit:
    """At most `per_second` requests on average and `burst` at once; waiters are served in order of arrival."""

    def __init__(self, per_second: float, burst: int) -> None:
        if per_second <= 0 or burst < 1:
            raise ValueError("a rate limit lets something through")
        self._interval = 1 / per_second
        self._burst = burst
        self._next = float("-inf")
        """When the bucket would be full again, on the event loop's clock."""

    async def wait(self) -> None:
        now = anyio.current_time()
        # The bucket as one number: each request moves the moment of fullness by one interval; more than `burst`
        # intervals ahead of now means that the bucket is empty.
        self._next = max(self._next, now) + self._interval
        delay = self._next - now - self._burst * self._interval
        if delay > 0:
            await anyio.sleep(delay)
