"""Telling those who listen what was drawn: the `on_sample` and `on_scores` of `fit`, callbacks, and blinker's signals.

`is.sample` is sent `(indices, weights, scores)` of the picked, `is.score` the pool's scores, `is.training` the step's
logs; the sender is the sampler. `is.evaluate_batch` and `is.evaluation` are sent `figures`, the loss and the metrics of
a batch and of a whole evaluation as a float64 array; the sender is the model wrapper.
`is.lstm_comparison_sampler.scores` is sent `scores`, true beside predicted ones. With nobody listening nothing is
computed.
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
    """Who listens during a `fit`.

    Args:
        on_sample: `on_sample(sampler, indices, weights, scores)` or None.
        on_scores: `on_scores(sampler, scores)` or None.
        callbacks: `SamplingCallback`s, told beside them.
    """

    def __init__(self, on_sample: Callable | None, on_scores: Callable | None, callbacks: Sequence[Any] = ()):
        self._samples = _callables(on_sample, *(callback.on_sample for callback in callbacks))
        self._scores = _callables(on_scores, *(callback.on_scores for callback in callbacks))
        self._rows = on_sample is not None or any(callback.needs_rows for callback in callbacks)

    @property
    def want_rows(self) -> bool:
        """Whether anybody wants to know which rows plain steps are on."""
        return self._rows or bool(SAMPLE.receivers)

    @property
    def want_samples(self) -> bool:
        """Whether anybody wants to know what is trained on."""
        return bool(self._samples) or bool(SAMPLE.receivers)

    @property
    def want_draws(self) -> bool:
        """Whether importance steps have to hand out what they drew."""
        return self.want_samples or self.want_scores

    @property
    def want_scores(self) -> bool:
        """Whether anybody wants the pools' scores."""
        return bool(self._scores) or bool(SCORE.receivers)

    def sampled(self, sampler: Any, indices: np.ndarray, weights: np.ndarray, scores: np.ndarray) -> None:
        """A batch was picked."""
        for told in self._samples:
            told(sampler, indices, weights, scores)
        if SAMPLE.receivers:
            SAMPLE.send(sampler, indices=indices, weights=weights, scores=scores)

    def scored(self, sampler: Any, scores: np.ndarray) -> None:
        """Candidates were scored."""
        for told in self._scores:
            told(sampler, scores)
        if SCORE.receivers:
            SCORE.send(sampler, scores=scores)

    def trained(self, sampler: Any, logs: dict) -> None:
        """An execution of steps ended."""
        if TRAINING.receivers:
            TRAINING.send(sampler, logs=logs)


def evaluated_batch(wrapper: Any, figures: np.ndarray) -> None:
    """A model wrapper evaluated a batch."""
    if EVALUATE_BATCH.receivers:
        EVALUATE_BATCH.send(wrapper, figures=figures)


def evaluated(wrapper: Any, figures: np.ndarray) -> None:
    """A model wrapper evaluated samples."""
    if EVALUATION.receivers:
        EVALUATION.send(wrapper, figures=figures)


def _callables(*functions: Callable | None) -> list[Callable]:
    return [function for function in functions if function is not None]
