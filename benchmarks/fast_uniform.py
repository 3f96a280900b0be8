"""The fast yardstick: the fastest uniform training that can be built on the library's own input pipeline.

Its steps are compiled, keep no metrics but the loss, and take batches that were gathered ahead; so that a faster
pipeline is not sold as importance sampling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from importance_sampling import backend
from importance_sampling.sources import ArraySource


class FastUniform:
    """Uniform training by `fit`, with the callbacks of Keras's own.

    Args:
        model: a compiled and built `keras.Model`.
        seed: int, of the order of the rows.
    """

    def __init__(self, model: keras.Model, seed: int = 0):
        self.model = model
        self.seed = seed

    def fit(self, x: Any, y: Any, batch_size: int = 32, **arguments: Any) -> keras.callbacks.History:
        """As `keras.Model.fit`; rows that don't fill a batch wait for the next pass."""
        step = self.steps(x, y, batch_size)
        self.model.train_function = lambda iterator: step()
        try:
            return self.model.fit(x, y, batch_size=batch_size, **arguments)
        finally:
            self.model.train_function = None

    def steps(self, x: Any, y: Any, batch_size: int) -> Callable[[], dict]:
        """A function that takes a step and returns its logs."""
        model = self.model
        source = ArraySource((backend.resident(x), backend.resident(y), None))
        batches = backend.pools(source, batch_size, self.seed, 0)
        model._symbolic_build(data_batch=(x[:1], y[:1]))

        def step(indices: Any, x: Any, y: Any) -> tuple:
            def forward() -> tuple:
                loss = model.compute_loss(x, y, model(x, training=True))
                return model.optimizer.scale_loss(loss), model.trainable_weights, loss

            gradients, _, loss = backend.differentiate(forward, ())
            model.optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))
            return {"loss": loss}, ()

        run = backend.run_steps(step, model)
        return lambda: run(batches, 1)[0]
