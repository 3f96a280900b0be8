"""Training of several models with equal budgets.

Each model is trained by one call of `fit` in a thread. The threads run one at a time, in short turns; a `Clock`
callback switches to the next thread at the end of a turn. Hence a machine that slows down affects all models equally.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from importance_sampling import backend
from importance_sampling.comparison.clock import Clock
from importance_sampling.comparison.data import Data
from importance_sampling.comparison.round_robin import RoundRobin, run_round_robin
from importance_sampling.training import ImportanceTraining

TURN = {"seconds": 0.5, "cost": 300.0, "steps": 100.0}  # the length of a turn, in the unit of the budget
MAX_EPOCHS = 10**6  # never reached: the budget ends the training


def identical_models(build: Callable[[], keras.Model], count: int, seed: int) -> list[keras.Model]:
    """Build models with equal initial weights and equal random seeds.

    Args:
        build: function that returns a compiled and built model.
        count: int >= 1, the number of models.
        seed: int, passed to `keras.utils.set_random_seed` before each model is built.
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
    done: Callable[[int, Clock], None] = lambda index, clock: None,
    **options: Any,
) -> list[Clock]:
    """Train several models with equal budgets.

    Args:
        trainers: models, trainers, or other objects with Keras's `fit`.
        data: `Data`.
        evaluation: function from a model to `(train_loss, test_loss, test_error)`, such as an `Evaluation`.
        budget: float > 0, the budget of each model, in the unit `by`.
        by: "seconds" (default), "cost" or "steps".
        batch_size: int, default 128.
        done: called with the index of the trainer and its `Clock` after its training has finished, while the others
            are paused.
        **options: further arguments of `Clock`.

    Returns:
        List of `Clock`, one per trainer, with the measurements.

    Raises:
        Exception: the error of a trainer, after the other trainers have finished.
    """
    scheduler = RoundRobin(len(trainers))
    clocks = [
        Clock(
            trainer,
            evaluation,
            budget,
            by,
            turn=TURN[by],
            hand_over=lambda index=index: scheduler.switch(index),
            **options,
        )
        for index, trainer in enumerate(trainers)
    ]

    def train_one(index: int) -> None:
        clock = clocks[index]
        fit = fit_of(trainers[index], data)
        try:
            fit(data.x_train, data.y_train, batch_size=batch_size, epochs=MAX_EPOCHS, verbose=0, callbacks=[clock])
        finally:
            if clock.model is not None:
                clock.on_train_end()
        if not clock.interrupted:
            done(index, clock)

    def interrupt() -> None:
        for clock in clocks:
            clock.interrupted = True

    with backend.without_autotune():
        functions = [lambda index=index: train_one(index) for index in range(len(trainers))]
        run_round_robin(scheduler, functions, interrupt)
    return clocks


def fit_of(trainer: Any, data: Data) -> Callable:
    """Return the `fit` method that can train on the data.

    `fit` of a Keras model doesn't support lazily read arrays. In that case the result is the `fit` of a trainer with
    importance sampling switched off, which takes the same steps on the same batches.
    """
    if isinstance(trainer, keras.Model) and not data.in_memory:
        return ImportanceTraining(trainer, tau_th=float("inf")).fit
    return trainer.fit
