"""Lets several threads run one at a time, by turns, so that a machine that slows down slows all alike.

It knows nothing of training.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait


class Turns:
    """Whose turn it is, of `count` threads; they take it in the order of their numbers.

    Args:
        count: int >= 1.
    """

    def __init__(self, count: int):
        self._gates = [threading.Semaphore(int(number == 0)) for number in range(count)]
        self._left = [False] * count

    def enter(self, number: int) -> None:
        """Wait for the first turn."""
        self._gates[number].acquire()

    def hand_over(self, number: int) -> None:
        """Let the next one run, and wait for another turn."""
        following = self._following(number)
        if following is not None:
            self._gates[following].release()
            self._gates[number].acquire()

    def leave(self, number: int) -> None:
        """Let the others run for good."""
        self._left[number] = True
        following = self._following(number)
        if following is not None:
            self._gates[following].release()

    def _following(self, number: int) -> int | None:
        count = len(self._gates)
        others = ((number + step) % count for step in range(1, count))
        return next((other for other in others if not self._left[other]), None)


def by_turns(turns: Turns, functions: Sequence[Callable[[], None]], interrupt: Callable[[], None]) -> None:
    """Run the functions in threads of their own, each of which hands over its turns.

    Args:
        turns: of as many as there are functions.
        functions: each calls `turns.hand_over(number)` with its place in the sequence, as often as it likes.
        interrupt: called on Ctrl-C; it should make the functions return soon.

    Raises:
        Exception: what the first function to fail raised, once all have ended.
    """

    def run(number: int) -> None:
        turns.enter(number)
        try:
            functions[number]()
        finally:
            turns.leave(number)

    with ThreadPoolExecutor(len(functions)) as executor:
        futures: list[Future] = [executor.submit(run, number) for number in range(len(functions))]
        try:
            wait(futures)
        except KeyboardInterrupt:
            interrupt()
            raise
    for future in futures:
        future.result()
