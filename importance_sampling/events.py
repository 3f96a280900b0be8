"""Notify listeners of the samples drawn, of scores and of logs.

There are three kinds of listeners: the arguments `on_sample` and `on_scores` of `fit`, callbacks, and receivers of
[blinker](https://blinker.readthedocs.io) signals. Nothing is computed if there are no listeners.

| signal | sender | payload |
| --- | --- | --- |
| `is.sample` | sampler | `indices`, `weights` and `scores` of the batch |
| `is.score` | sampler | `scores` of the candidates |
| `is.training` | sampler | `logs` of the step, or of the last of `steps_per_execution` steps |
| `is.evaluate_batch` | model wrapper | `figures`: loss and metrics of a batch, float64 `(1 + metrics,)` |
| `is.evaluation` | model wrapper | `figures`: loss and metrics of a whole evaluation, float64 `(1 + metrics,)` |
| `is.lstm_comparison_sampler.scores` | sampler | `scores`: true and predicted scores, float32 `(subset, 2)` |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import blinker
import numpy as np

SAMPLE = blinker.signal("is.sample")
SCORE = blinker.signal("is.score")
TRAINING = blinker.signal("is.training")
LSTM_COMPARISON = blinker.signal("is.lstm_comparison_sampler.scores")
EVALUATE_BATCH = blinker.signal("is.evaluate_batch")
EVALUATION = blinker.signal("is.evaluation")


class Listeners:
    """The listeners of one `fit`, and the receivers of signals.

    Args:
        on_sample: `on_sample(sampler, indices, weights, scores)`, or None.
        on_scores: `on_scores(sampler, scores)`, or None.
        callbacks: the `SamplingCallback`s of the `fit`.

    Attributes:
        callbacks: the same.

    Raises:
        ValueError: an argument isn't a function.
    """

    def __init__(self, on_sample: Callable | None, on_scores: Callable | None, callbacks: Sequence[Any] = ()):
        for name, listener in dict(on_sample=on_sample, on_scores=on_scores).items():
            if listener is not None and not callable(listener):
                raise ValueError(f"`{name}` must be a function, or None. Received: {name}={listener!r}")
        self.callbacks = callbacks
        self._on_sample = _without_none(on_sample, *(one.on_sample for one in callbacks if one.needs_rows))
        self._on_importance_sample = _without_none(*(one.on_sample for one in callbacks if not one.needs_rows))
        self._on_scores = _without_none(on_scores, *(callback.on_scores for callback in callbacks))
        self._needs_rows = on_sample is not None or any(callback.needs_rows for callback in callbacks)

    @property
    def is_empty(self) -> bool:
        """True if there are no listeners of any kind."""
        signals = (SAMPLE, SCORE, TRAINING)
        return not (self.needs_draws or self.callbacks or any(one.receivers for one in signals))

    @property
    def needs_row_indices(self) -> bool:
        """True if a listener needs the row indices of the batches of uniform steps."""
        return self._needs_rows or bool(SAMPLE.receivers)

    @property
    def needs_samples(self) -> bool:
        """True if a listener needs the batches of importance steps."""
        return bool(self._on_sample) or bool(self._on_importance_sample) or bool(SAMPLE.receivers)

    @property
    def needs_scores(self) -> bool:
        """True if a listener needs the scores of candidates."""
        return bool(self._on_scores) or bool(SCORE.receivers)

    @property
    def needs_draws(self) -> bool:
        """True if importance steps must return their batches and scores to the host."""
        return self.needs_samples or self.needs_scores

    def notify_execution(self, sampler: Any, result: Any, is_importance: bool) -> None:
        """Notify listeners of every step of an execution, and of its logs.

        Args:
            sampler: the sender.
            result: a `StepResult` on the host.
            is_importance: bool, True for importance steps.
        """
        for scores in result.pool_scores:
            self.notify_scores(sampler, scores)
        for sample in zip(result.indices, result.weights, result.scores, strict=True):
            self._notify_sample(sampler, *sample, is_importance)
        self.notify_training(sampler, result.logs)

    def notify_scores(self, sampler: Any, scores: np.ndarray) -> None:
        """Notify listeners of the scores of candidates."""
        for listener in self._on_scores:
            listener(sampler, scores)
        if SCORE.receivers:
            SCORE.send(sampler, scores=scores)

    def notify_training(self, sampler: Any, logs: dict) -> None:
        """Notify listeners of the logs of an execution of one or several steps."""
        if TRAINING.receivers:
            TRAINING.send(sampler, logs=logs)

    def _notify_sample(
        self, sampler: Any, indices: np.ndarray, weights: np.ndarray, scores: np.ndarray, is_importance: bool
    ) -> None:
        """Notify listeners of the batch of a gradient step."""
        for listener in [*self._on_sample, *self._on_importance_sample] if is_importance else self._on_sample:
            listener(sampler, indices, weights, scores)
        if SAMPLE.receivers:
            SAMPLE.send(sampler, indices=indices, weights=weights, scores=scores)


def notify_batch_evaluation(wrapper: Any, figures: np.ndarray) -> None:
    """Notify listeners that a model wrapper has evaluated a batch."""
    if EVALUATE_BATCH.receivers:
        EVALUATE_BATCH.send(wrapper, figures=figures)


def notify_evaluation(wrapper: Any, figures: np.ndarray) -> None:
    """Notify listeners that a model wrapper has finished an evaluation."""
    if EVALUATION.receivers:
        EVALUATION.send(wrapper, figures=figures)


def _without_none(*functions: Callable | None) -> list[Callable]:
    return [function for function in functions if function is not None]
