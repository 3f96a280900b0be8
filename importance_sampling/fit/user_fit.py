"""Call the `fit` that runs the training loop, Keras's own or one that the model defines in front of it, with callbacks.

A model may define `fit` to preprocess its data before it calls Keras's, and a trainer may be used inside such a `fit`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.callbacks.base import SamplingCallback

KERAS_FIT = keras.Model.fit


def is_model(value: Any) -> bool:
    """Return True for a `keras.Model`, and for another layer that inherits Keras's trainer."""
    return isinstance(value, keras.Layer) and isinstance(value, keras_internals.TRAINER_CLASS)


def reads_its_own_data(model: keras.Model) -> bool:
    """Return True if Keras must be given the data exactly as the user passed them."""
    return has_own_fit(model) or keras_internals.overrides_methods(model, ("make_train_function",))


def has_own_fit(model: keras.Model) -> bool:
    """Return True if the model defines a `fit` that runs between a trainer and Keras's `fit`."""
    return keras_internals.overrides_methods(model, ("fit",)) and not is_inside_fit(model)


def is_inside_fit(model: keras.Model) -> bool:
    """Return True if the caller was called by the model's own `fit`, which then trains through a trainer."""
    return _code(model.fit) in _running()


def fit_of(model: keras.Model) -> Callable:
    """Return the `fit` that runs the loop: the first one that is not running already.

    The order is the model's own, then those of its classes, then Keras's.
    """
    running = _running()
    kinds = itertools.takewhile(lambda kind: kind is not keras_internals.TRAINER_CLASS, type(model).__mro__)
    above = (vars(kind)["fit"].__get__(model) for kind in kinds if "fit" in vars(kind))
    for fit in (model.fit, *above):
        if _code(fit) not in running or getattr(fit, "__func__", None) is KERAS_FIT:
            return fit
    return KERAS_FIT.__get__(model)


def run(model: keras.Model, arguments: dict) -> keras.callbacks.History:
    """Call the `fit` that runs the loop, with those of its arguments that differ from Keras's defaults.

    The model's own `fit` may have fewer arguments than Keras's, or other defaults.
    """
    defaults = inspect.signature(KERAS_FIT).parameters
    return fit_of(model)(**{name: value for name, value in arguments.items() if value is not defaults[name].default})


@contextlib.contextmanager
def one_at_a_time(lock: threading.Lock, trainer: Any) -> Iterator[None]:
    """Refuse a `fit` of a trainer while another one is running: both would use its state and random stream.

    Args:
        lock: of the trainer; it is held during a `fit`.
        trainer: for the message.

    Raises:
        RuntimeError: another `fit` is running.
    """
    if not lock.acquire(blocking=False):
        raise RuntimeError(
            "`fit` was called while another `fit` of this trainer is running, in a callback or another thread. "
            "There, call `model.fit` or the `fit` of another trainer. "
            f"Received: trainer={type(trainer).__name__} of model={trainer.model.name!r}"
        )
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def trained_by(model: keras.Model, function: Callable) -> Iterator[None]:
    """Let a function stand in for the model's training function; then put back what was there."""
    before = model.train_function
    model.train_function = function = backend.stand_in(model, function)
    try:
        yield
    finally:
        if model.train_function is function:  # and not a function that a callback put in its place
            model.train_function = before


def as_list(callbacks: Any) -> list:
    """Return the callbacks passed to `fit`, which may be nested or a `CallbackList`, as a list."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    return keras.tree.flatten(callbacks) if callbacks else []


@contextlib.contextmanager
def with_callbacks(callbacks: Any, arranged: list) -> Iterator[Any]:
    """Yield the callbacks for `fit`: a list, or the user's `CallbackList`, which is restored afterwards.

    Args:
        callbacks: the user's callbacks, as passed to `fit`.
        arranged: the callbacks to call, the user's among them.
    """
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        yield arranged
        return
    added = set(map(id, arranged)) - set(map(id, callbacks.callbacks))
    callbacks.callbacks[:] = arranged
    try:
        yield callbacks
    finally:
        callbacks.callbacks[:] = [callback for callback in callbacks.callbacks if id(callback) not in added]


def sampling_callbacks(callbacks: Any) -> list[SamplingCallback]:
    """Return the `SamplingCallback`s among the callbacks passed to `fit`, without duplicates."""
    return list({id(one): one for one in as_list(callbacks) if isinstance(one, SamplingCallback)}.values())


@contextlib.contextmanager
def connected(
    callbacks: Sequence[SamplingCallback], source: Any, reason: str | None, reporter: Any, warn: Callable[[str], None]
) -> Iterator[None]:
    """Connect callbacks for the duration of a `fit`.

    Args:
        callbacks: as returned by `sampling_callbacks`.
        source: the source of the training data, or None.
        reason: the reason why importance sampling is impossible, or None.
        reporter: a `LogCallback`.
        warn: called with the warning if a callback can't record anything.

    Raises:
        ValueError: a callback needs row indices, and the data have none.
    """

    def figures() -> dict[str, float]:
        reporter.refresh()
        return reporter.figures()

    num_rows = source.num_rows if source is not None and source.has_rows else None
    for callback in callbacks:
        if callback.needs_rows and num_rows is None:
            _refuse_without_rows(type(callback).__name__, source, reason, warn)
    with contextlib.ExitStack() as stack:
        for callback in callbacks:
            stack.callback(callback.disconnect)  # also if another one raises, or this one while it connects
            callback.connect(num_rows, figures)
        yield


def _code(fit: Any) -> Any:
    while isinstance(fit, functools.partial):
        fit = fit.func
    return getattr(fit, "__code__", None)


def _running() -> set:
    """Return the code objects of all functions on the call stack."""
    found, frame = set(), sys._getframe()
    while frame is not None:
        found.add(frame.f_code)
        frame = frame.f_back
    return found


def _refuse_without_rows(name: str, source: Any, reason: str | None, warn: Callable[[str], None]) -> None:
    """Raise for a stream; warn if the library doesn't read the data at all."""
    if source is not None:
        raise ValueError(
            f"{name} needs row indices: pass arrays, memory maps or a dataset, or leave the callback out for streams "
            "(tf.data, `PyDataset`, loaders, generators). Received: `x` that is a stream"
        )
    if reason is not None:  # without a reason, Keras raises an error for the data
        warn(f"{name} records nothing: {reason}.")
