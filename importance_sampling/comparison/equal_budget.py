"""Training of several models with equal budgets.

Each model is trained by one call of `fit` in a thread. The threads run one at a time, in short turns; a `Clock`
callback switches to the next thread at the end of a turn. A machine that slows down therefore affects all models
equally.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from importance_sampling import backend
from importance_sampling.comparison.callback_copies import copies_of
from importance_sampling.comparison.clock import Clock
from importance_sampling.comparison.round_robin import RoundRobin, run_round_robin
from importance_sampling.data.lazy_arrays import has_lazy_rows
from importance_sampling.training import ImportanceTraining

TURN = {"seconds": 0.5, "cost": 300.0, "epochs": 1.0}  # the length of a turn, in the unit of the budget
MAX_EPOCHS = 10**6  # never reached: the budget ends the training


def identical_models(build: Callable[[], keras.Model], count: int, seed: int) -> list[keras.Model]:
    """Build models with equal initial weights and equal random seeds.

    Args:
        build: function that returns a compiled model. The weights of a model that isn't built yet are equal if its
            layers create their initialisers in their constructors, as those of Keras do.
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
    arguments: Mapping[str, Any],
    evaluation: Callable[[keras.Model], dict[str, float]],
    budget: float,
    by: str = "seconds",
    done: Callable[[int, Clock], None] = lambda index, clock: None,
    **options: Any,
) -> list[Clock]:
    """Train several models with equal budgets.

    Args:
        trainers: models, trainers, or other objects with Keras's `fit`.
        arguments: the arguments of `fit`, by name. Each trainer has its own copies of the callbacks; those of Keras
            that write files write into a temporary folder of this trainer. `epochs` has an effect only with a budget
            in seconds or cost: it ends the training if the budget doesn't end it earlier. None: no limit.
        evaluation: function from a model to a dict of floats.
        budget: float > 0, the budget of each model, in the unit `by`.
        by: "seconds" (default), "cost" or "epochs".
        done: called with the index of the trainer and its `Clock` after its training has finished, while the others
            are paused.
        **options: further arguments of `Clock`.

    Returns:
        List of `Clock`, one per trainer, with the measurements.

    Raises:
        Exception: the error of a trainer; the other trainers stop after their next step.
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
    epochs = int(budget) if by == "epochs" else arguments.get("epochs") or MAX_EPOCHS
    settings = dict(arguments, epochs=epochs, verbose=0)

    def train_one(index: int) -> None:
        clock = clocks[index]
        with copies_of(arguments.get("callbacks") or ()) as callbacks:
            flat = keras.tree.flatten(callbacks)  # Keras takes lists in a list on TensorFlow alone
            fit_of(trainers[index], settings)(**settings | {"callbacks": [*flat, clock]})
        if not clock.interrupted:
            done(index, clock)

    def interrupt() -> None:
        for clock in clocks:
            clock.interrupted = True

    with backend.without_autotune():
        functions = [lambda index=index: train_one(index) for index in range(len(trainers))]
        run_round_robin(scheduler, functions, interrupt)
    return clocks


def fit_of(trainer: Any, arguments: Mapping[str, Any]) -> Callable:
    """Return the `fit` method that can train on the data.

    `fit` of a Keras model doesn't support lazily read arrays. For these, the result is the `fit` of a trainer with
    importance sampling switched off, which takes the same steps on the same batches.
    """
    if isinstance(trainer, keras.Model) and has_lazy_rows({"y": None, "sample_weight": None, **arguments}):
        return ImportanceTraining(trainer, tau_th=float("inf")).fit
    return trainer.fit
