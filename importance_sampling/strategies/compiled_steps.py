"""Keep Keras's training function and the strategies from one `fit` to the next: `fit` in a loop compiles once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.backend.scopes import replaced_attribute
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.strategies.base import Strategy

MOST_STRATEGIES = 8  # that are kept; one for each batch size and, where compiled steps depend on it, number of rows


class KerasFunction:
    """Keras's training function for a model as compiled.

    Args:
        model: the user's model.
        function: as `model.make_train_function` makes it; None: it is made at the first call, once the model is built.

    Attributes:
        is_traced: bool, True once the function has run on an iterator.
    """

    def __init__(self, model: keras.Model, function: Callable | None):
        self.model = model
        self.function = function
        self.is_traced = False
        self._tracker = keras_internals.loss_tracker(model)
        self._steps_per_execution = model.steps_per_execution

    def __call__(self, iterator: Any) -> dict:
        """Take one execution of steps; return the logs of the last."""
        if self.function is None:
            with replaced_attribute(self.model, "train_function", None):
                self.model.make_train_function()
                self.function = self.model.train_function
        return backend.training_function(self.model, self.function)(iterator)

    def is_of(self, model: keras.Model) -> bool:
        """Return True if the model is compiled as it was: `compile` makes another loss tracker.

        On JAX, the function takes a fixed number of steps per execution.
        """
        is_same = keras_internals.loss_tracker(model) is self._tracker
        return is_same and model.steps_per_execution == self._steps_per_execution


class CompiledSteps:
    """Keras's training function and the strategies of a model; `compile` makes them outdated.

    Args:
        model: the user's model.

    Attributes:
        keras_function: Keras's training function; None before the first `update`.
        strategies: the strategies used last, by batch size, signature of the data, whether rows are read by index, and
            number of rows where that matters.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self.keras_function: KerasFunction | None = None
        self.strategies: dict[tuple, Strategy] = {}
        self._tracker: Any = None

    def update(self) -> bool:
        """Drop what belongs to a model compiled otherwise; return False if the model was compiled again."""
        tracker = keras_internals.loss_tracker(self.model)  # `compile` makes another one
        is_same = not self.strategies or tracker is self._tracker
        if not is_same:
            self.strategies = {}
        self._tracker = tracker
        function = self.model.train_function
        is_current = self.keras_function is not None and self.keras_function.is_of(self.model)
        if not is_current or (function is not None and function is not self.keras_function.function):
            self.keras_function = KerasFunction(self.model, function)
        return is_same

    def strategy(
        self, make: Callable[[FitPlan, int], Strategy], plan: FitPlan, batch_size: int, is_indexed: bool
    ) -> Strategy:
        """Return the strategy for data and a batch size, made by `make(plan, batch_size)` on the first call.

        Args:
            is_indexed: bool, True if importance steps read rows of these data by index. Compiled steps then take the
                whole arrays.
        """
        is_by_size = is_indexed and (backend.STATIC_ROWS or self.model.jit_compile)
        rows = plan.source.num_rows if is_by_size else 0
        key = (batch_size, plan.signature, is_indexed, rows)
        strategy = self.strategies.pop(key, None) or make(plan, batch_size)
        self.strategies[key] = strategy  # the latest comes last
        while len(self.strategies) > MOST_STRATEGIES:
            del self.strategies[next(iter(self.strategies))]
        return strategy

    def use(self, strategy: Strategy, plan: FitPlan) -> Strategy:
        """Set the data of a strategy, and drop those of the others.

        Raises:
            Unsupported: the samples can't be weighted.
        """
        self.release()  # the data of an earlier `fit`
        strategy.check_replicas()
        strategy.use(plan)
        return strategy

    def release(self) -> None:
        """Drop all references to data."""
        for strategy in self.strategies.values():
            strategy.release()
