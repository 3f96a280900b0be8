"""Trains several models, each in its own way, for the same budget and by turns.

Each is one ordinary call of `fit` in a thread of its own; a `Clock` in each hands over the turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from importance_sampling import backend
from importance_sampling.comparison.clock import Clock
from importance_sampling.comparison.data import Data
from importance_sampling.comparison.turns import Turns, by_turns
from importance_sampling.training import ImportanceTraining

TURN = {"seconds": 0.5, "cost": 300.0, "steps": 100.0}
FOREVER = 10**6  # epochs


def alike(build: Callable[[], keras.Model], count: int, seed: int) -> list[keras.Model]:
    """`count` models with the same initial weights and the same random streams.

    Args:
        build: makes a compiled model, its variables built.
        count: int >= 1.
        seed: int; moves the global random generators, through `keras.utils.set_random_seed`.
    """
    models = []
    for _ in range(count):
        keras.utils.set_random_seed(seed)
        models.append(build())
        models[-1].set_weights(models[0].get_weights())
    return models


def train(
    trainers: Sequence[Any],
    data: Data,
    evaluation: Callable[[keras.Model], tuple[float, float, float]],
    budget: float,
    by: str = "seconds",
    batch_size: int = 128,
    done: Callable[[int, Clock], None] = lambda number, clock: None,
    **options: Any,
) -> list[Clock]:
    """Fit all of them for the same budget.

    Args:
        trainers: models, or trainers: whatever has Keras's `fit`.
        data: `Data`.
        evaluation: `Evaluation` of the same data, or the like.
        budget: float > 0, in units of `by`.
        by: "seconds" (default), "cost" or "steps".
        batch_size: int.
        done: called with the number and the clock of whoever has just finished, while the others wait.
        **options: further arguments of `Clock`.

    Returns:
        Their clocks, with what was measured.

    Raises:
        Exception: what one of them raised, once the others have finished.
    """
    turns = Turns(len(trainers))
    clocks = [
        Clock(
            trainer,
            evaluation,
            budget,
            by,
            turn=TURN[by],
            hand_over=lambda number=number: turns.hand_over(number),
            **options,
        )
        for number, trainer in enumerate(trainers)
    ]

    def work(number: int) -> None:
        clock = clocks[number]
        fit = fit_of(trainers[number], data)
        try:
            fit(data.x_train, data.y_train, batch_size=batch_size, epochs=FOREVER, verbose=0, callbacks=[clock])
        finally:
            if clock.model is not None:
                clock.on_train_end()
        if not clock.interrupted:
            done(number, clock)

    def interrupt() -> None:
        for clock in clocks:
            clock.interrupted = True

    with backend.untuned():
        by_turns(turns, [lambda number=number: work(number) for number in range(len(trainers))], interrupt)
    return clocks


def fit_of(trainer: Any, data: Data) -> Callable:
    """The `fit` that trains on those data: a model's own takes none that are read as rows are asked for."""
    if isinstance(trainer, keras.Model) and not data.in_memory:
        return ImportanceTraining(trainer, tau_th=float("inf")).fit  # Keras's steps, on rows in Keras's order
    return trainer.fit
