"""The compiled steps of a trainer, kept from one `fit` to the next for one model as compiled."""

from __future__ import annotations

from collections.abc import Callable

import keras

from importance_sampling.fit.plan import FitPlan
from importance_sampling.strategies.base import Strategy
from importance_sampling.strategies.uniform import KerasFunction


class CompiledSteps:
    """Keras's training function and the strategies of a model; `compile` makes them outdated.

    Args:
        model: the user's model.

    Attributes:
        keras_function: Keras's training function; None before the first `update`.
        strategies: the strategies, by batch size, signature of the data, and number of rows where that matters.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self.keras_function: KerasFunction | None = None
        self.strategies: dict[tuple, Strategy] = {}

    def update(self) -> bool:
        """Drop what belongs to a model compiled otherwise; return False if the model was compiled again."""
        outdated = {key for key, strategy in self.strategies.items() if not strategy.is_of(self.model)}
        was_current = not outdated or len(outdated) < len(self.strategies)
        self.strategies = {key: one for key, one in self.strategies.items() if key not in outdated}
        function = self.model.train_function
        is_current = self.keras_function is not None and self.keras_function.is_of(self.model)
        if function is None and not is_current:
            self.model.make_train_function()
            function, self.model.train_function = self.model.train_function, None
        if function is not None and not (is_current and function is self.keras_function.function):
            self.keras_function = KerasFunction(self.model, function)
        return was_current

    def strategy(self, make: Callable[[FitPlan, int], Strategy], plan: FitPlan, batch_size: int, rows: int) -> Strategy:
        """Return the strategy for data and a batch size, made by `make(plan, batch_size)` on the first call.

        Args:
            rows: int, the number of rows if the strategy depends on it, else 0.
        """
        key = (batch_size, plan.signature, rows)
        if key not in self.strategies:
            self.strategies[key] = make(plan, batch_size)
        return self.strategies[key]

    def use(self, strategy: Strategy, plan: FitPlan) -> Strategy:
        """Set the data of a strategy, drop those of the others, and check its scores before the first step.

        Raises:
            Unsupported: the samples can't be weighted.
        """
        self.release()  # the data of an earlier `fit`
        strategy.use(plan)
        strategy.check_scores()
        return strategy

    def release(self) -> None:
        """Drop all references to data."""
        for strategy in self.strategies.values():
            strategy.release()
