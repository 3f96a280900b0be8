"""A fast baseline: uniform training on the input pipeline of the library.

The steps are compiled, compute no metrics except the loss, and read prefetched batches. The comparison with this
baseline separates the gain of importance sampling from that of the faster pipeline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.data import ArraySource


class FastUniform:
    """A trainer with uniform steps, whose `fit` supports the callbacks of Keras.

    Args:
        model: compiled and built `keras.Model`.
        seed: int, the seed of the order of the samples.
    """

    def __init__(self, model: keras.Model, seed: int = 0):
        self.model = model
        self.seed = seed

    def fit(self, x: Any, y: Any, batch_size: int = 32, **arguments: Any) -> keras.callbacks.History:
        """Train as `keras.Model.fit`. Samples that don't fill a batch are used in the next epoch."""
        step = self.steps(x, y, batch_size)
        self.model.train_function = backend.stand_in(self.model, lambda iterator: step())
        try:
            return self.model.fit(x, y, batch_size=batch_size, **arguments)
        finally:
            self.model.train_function = None

    def steps(self, x: Any, y: Any, batch_size: int) -> Callable[[], dict]:
        """Return a function that takes a step and returns its logs."""
        model = self.model
        source = ArraySource((backend.to_tensor(x), backend.to_tensor(y), None))
        batches = backend.pool_iterator(source, batch_size, self.seed, 0)
        keras_internals.build_on_batch(model, (x[:1], y[:1]))

        def step(indices: Any, x: Any, y: Any) -> tuple:
            def forward(extra: list, tap: Callable) -> tuple:
                loss = model.compute_loss(x, y, model(x, training=True))
                return model.optimizer.scale_loss(loss), loss

            gradients, _, loss = backend.differentiate(forward, model.trainable_variables, [])
            backend.apply_gradients(model, gradients.variables)
            return {"loss": loss}, ()

        one = backend.compile_step(step, model)
        run = backend.repeat_steps(lambda _, batches: one(*next(batches)), model)
        return lambda: run(1, batches)[0]
