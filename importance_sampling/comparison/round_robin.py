"""Round-robin scheduling of threads: one thread runs at a time, so that all are equally affected by a slow machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait


class RoundRobin:
    """A scheduler that lets one of `count` threads run at a time, in the order of their indices.

    Args:
        count: int >= 1, the number of threads.
    """

    def __init__(self, count: int):
        self._semaphores = [threading.Semaphore(int(index == 0)) for index in range(count)]
        self._finished = [False] * count

    def start(self, index: int) -> None:
        """Block until the first turn of the thread."""
        self._semaphores[index].acquire()

    def switch(self, index: int) -> None:
        """Let the next thread run, and block until the next turn of this thread."""
        successor = self._next(index)
        if successor is not None:
            self._semaphores[successor].release()
            self._semaphores[index].acquire()

    def finish(self, index: int) -> None:
        """Remove the thread from the schedule and let the next thread run."""
        self._finished[index] = True
        successor = self._next(index)
        if successor is not None:
            self._semaphores[successor].release()

    def _next(self, index: int) -> int | None:
        """Return the index of the next unfinished thread, or None if there is no other."""
        count = len(self._semaphores)
        others = ((index + offset) % count for offset in range(1, count))
        return next((other for other in others if not self._finished[other]), None)


def run_round_robin(
    scheduler: RoundRobin, functions: Sequence[Callable[[], None]], interrupt: Callable[[], None]
) -> None:
    """Run each function in a thread, one at a time.

    Args:
        scheduler: `RoundRobin` of as many threads as there are functions.
        functions: each calls `scheduler.switch(index)` with its index to let the next one run.
        interrupt: called after an error and on Ctrl-C; it should make the other functions return soon.

    Raises:
        Exception: the error of the first function that failed, after all functions have ended.
    """

    def run(index: int) -> None:
        scheduler.start(index)
        try:
            functions[index]()
        except BaseException:
            interrupt()
            raise
        finally:
            scheduler.finish(index)

    with ThreadPoolExecutor(len(functions)) as executor:
        futures: list[Future] = [executor.submit(run, index) for index in range(len(functions))]
        try:
            wait(futures)
        except KeyboardInterrupt:
            interrupt()
            raise
    for future in futures:
        future.result()
