"""The base class of Keras callbacks that receive the samples drawn in a trainer's `fit`.

Callbacks are called directly, not by signals, because a signal would also deliver the draws of other trainers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from importance_sampling.utils.warn import warn_caller

# On JAX a hook that Keras calls in another thread, after the step, finds the state of the trainer donated to the next.
BATCH_HOOKS = tuple(f"on_{kind}batch_{end}" for kind in ("", "train_", "test_") for end in ("begin", "end"))


class SamplingCallback(keras.callbacks.Callback):
    """A Keras callback that receives samples and scores from a trainer's `fit`.

    A subclass implements `on_sample` or `on_scores`, or both, in addition to any of Keras's hooks.

    Attributes:
        on_sample: `on_sample(sampler, indices, weights, scores)`, called after every importance step, and after every
            uniform step if `needs_rows` is True; None (default): not called. Indices are int `(b,)`; weights and scores
            float32 `(b,)`. In uniform steps, weights are 1 and scores are NaN.
        on_scores: `on_scores(sampler, scores)`, called with the scores of candidates, float32 `(n,)`; None (default):
            not called.
        needs_rows: bool, default False. True: row indices are required, so `fit` rejects streams and records the order
            of each epoch.
        is_saved: bool, default False. True: `state()`, a dict of arrays, is saved with the trainer's state, and
            `restore(state)` is called with it when a `fit` continues from it.

    Example:
        >>> class LargestWeight(SamplingCallback):
        ...     weight = 0.0
        ...     def on_sample(self, sampler, indices, weights, scores):
        ...         self.weight = max(self.weight, weights.max())
    """

    async_safe = True  # has no batch hooks, so Keras need not wait for the logs of a batch; see `__init_subclass__`
    on_sample: Callable | None = None
    on_scores: Callable | None = None
    needs_rows = False
    is_saved = False
    _figures: Callable | None = None

    def __init_subclass__(cls, **options: Any):
        """Let Keras wait for the batch hooks of a subclass, unless the subclass sets `async_safe` itself."""
        super().__init_subclass__(**options)
        subclasses = cls.__mro__[: cls.__mro__.index(SamplingCallback)]
        is_set = any("async_safe" in vars(subclass) for subclass in subclasses)
        if not is_set and any(
            getattr(cls, hook) is not getattr(keras.callbacks.Callback, hook) for hook in BATCH_HOOKS
        ):
            cls.async_safe = False

    def connect(self, num_rows: int | None, figures: Callable[[], dict[str, float]]) -> None:
        """Prepare for a trainer's `fit`, which calls this method before training.

        Args:
            num_rows: int, the number of rows of the training set; None if the data have no row indices.
            figures: returns the current `score`, `tau` and `importance`, as in History.
        """
        self._figures = figures

    def disconnect(self) -> None:
        """Release what `connect` set. A trainer's `fit` calls this method at its end, also after an error."""
        self._figures = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Warn if training was started by `model.fit` instead of a trainer's `fit`."""
        if self._figures is None:
            name = type(self).__name__
            warn_caller(
                f"{name} receives no samples: pass it to the `callbacks` of a trainer's `fit`, such as "
                f"`ImportanceTraining(model).fit(..., callbacks=[{name}(...)])`. Received: the `fit` of a model"
            )
