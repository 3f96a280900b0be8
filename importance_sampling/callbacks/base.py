"""A Keras callback that is told what is drawn, and how a trainer's `fit` finds it and tells it.

It is told directly, not by a signal: a signal has no `fit` of its own, and another trainer's draws would be heard with
it. No source. Nothing is recorded here.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras


class SamplingCallback(keras.callbacks.Callback):
    """A callback that a trainer's `fit` tells what it draws. To subclass, fill in what it is to be told.

    Attributes:
        on_sample: `on_sample(sampler, indices, weights, scores)`, as the argument of `fit`; None (default): not told.
        on_scores: `on_scores(sampler, scores)`, as the argument of `fit`; None (default): not told.
        needs_rows: bool, default False; whether `on_sample` is of no use without the numbers of the rows. It is told of
            plain steps too then; the order of every pass is noted for it.

    Example:
        >>> class Largest(SamplingCallback):
        ...     weight = 0.0
        ...     def on_sample(self, sampler, indices, weights, scores):
        ...         self.weight = max(self.weight, weights.max())
    """

    async_safe = True  # without hooks of batches, Keras need not read its logs for it
    on_sample: Callable | None = None
    on_scores: Callable | None = None
    needs_rows = False
    _figures: Callable | None = None

    def connect(self, num_rows: int | None, figures: Callable[[], dict[str, float]]) -> None:
        """A trainer's `fit` begins.

        Args:
            num_rows: int, rows of the training set; None where rows have no numbers.
            figures: returns `score`, `tau` and `importance` as History has them, read anew.
        """
        self._figures = figures

    def disconnect(self) -> None:
        """The `fit` has ended, however it ended."""
        self._figures = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Warn where nobody will tell it anything."""
        if self._figures is None:
            name = type(self).__name__
            warnings.warn(
                f"{name} hears nothing of what is drawn: it must be among the callbacks of a trainer's `fit`, such as "
                f"`ImportanceTraining(model).fit(..., callbacks=[{name}(...)])`. Received: the `fit` of a model",
                stacklevel=2,
            )


def sampling_callbacks(callbacks: Sequence[Any]) -> list[SamplingCallback]:
    """Those that are to be told, each once."""
    return list(dict.fromkeys(callback for callback in callbacks if isinstance(callback, SamplingCallback)))


@contextlib.contextmanager
def connected(callbacks: Sequence[SamplingCallback], source: Any, reason: str | None, reporter: Any) -> Iterator[None]:
    """Tell callbacks of a `fit` that begins, and of its end.

    Args:
        callbacks: as `sampling_callbacks` returns them.
        source: of the data, None where there is none.
        reason: why there can be no importance sampling, None if there can.
        reporter: a `Reporter`.

    Raises:
        ValueError: rows must have numbers for one of them, and have none.
    """

    def figures() -> dict[str, float]:
        reporter.refresh()
        return reporter.figures()

    num_rows = source.num_rows if source is not None and source.has_rows else None
    for callback in callbacks:
        if callback.needs_rows and num_rows is None:
            _without_rows(type(callback).__name__, source, reason)
    try:
        for callback in callbacks:
            callback.connect(num_rows, figures)
        yield
    finally:
        for callback in callbacks:
            callback.disconnect()


def _without_rows(name: str, source: Any, reason: str | None) -> None:
    if source is not None:
        raise ValueError(
            f"{name} needs data whose rows have numbers: arrays, memory maps, a dataset. Leave it out for streams "
            "(tf.data, `PyDataset`, loaders, generators). Received: `x` that is a stream"
        )
    if reason is not None:  # else Keras is about to refuse the data
        warnings.warn(f"{name} records nothing: {reason}.", stacklevel=5)
