"""Guards for asynchronous tests: no task is left over, and nothing blocks the event loop."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

LONGEST_S = 0.5
"""CPU seconds that one callback may take; far above what a decision needs, far below what a person would not notice."""


@asynccontextmanager
async def guarded_loop() -> AsyncIterator[None]:
    """Fail when the block leaves tasks behind or one step of it held the loop for LONGEST_S of CPU time."""
    before = asyncio.all_tasks()
    worst = 0.0

    async def beat() -> None:
        nonlocal worst
        while True:
            spent = time.thread_time()
            await asyncio.sleep(0)
            worst = max(worst, time.thread_time() - spent)
            await asyncio.sleep(0.02)

    heart = asyncio.create_task(beat(), name="heart")
    try:
        yield
        # Connections that were closed on purpose need a few turns of the loop to say so.
        for _ in range(50):
            left = {task for task in asyncio.all_tasks() - before if task is not heart and not _of_the_runner(task)}
            if not left:
                break
            await asyncio.sleep(0.01)
        assert not left, f"tasks left over: {left}"
        assert worst < LONGEST_S, f"the event loop was blocked for {worst:.2f} s"
    finally:
        heart.cancel()
        await asyncio.gather(heart, return_exceptions=True)


async def eventually(true: Callable[[], bool], within_s: float = 5.0) -> None:
    """Wait until something is true, or fail after `within_s`."""
    with anyio.fail_after(within_s):
        while not true():  # noqa: ASYNC110 -- what is waited for has no event of its own
            await anyio.sleep(0.005)


def _of_the_runner(task: asyncio.Task[object]) -> bool:
    """Whether the task is anyio's own way of running this test or fixture."""
    return getattr(task.get_coro(), "__qualname__", "").startswith("TestRunner.")
