"""Plan a `fit`: find the source of its samples, or the reason if they can't be drawn or weighted.

Keras and importance steps read the same arrays, without a second copy, and lazily read arrays never as a whole. For
these, or if a listener needs row indices, a pipeline of this library replaces Keras's and shuffles in the same way.
Source: `keras.src.trainers.data_adapters.array_data_adapter`.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import threading
import types
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from importance_sampling import backend
from importance_sampling.backend import keras_data
from importance_sampling.core import eligibility
from importance_sampling.data.arrays import ArraySource, EpochOrder
from importance_sampling.data.batches import flatten
from importance_sampling.data.lazy_arrays import (
    LazyArray,
    as_lazy_array,
    has_lazy_rows,
    is_lazy,
    with_lazy_validation_data,
)
from importance_sampling.data.py_dataset import LockedDataset, ShuffledBatches, has_workers, is_finite
from importance_sampling.data.streams import DRAWN_BY_KERAS, StreamSource
from importance_sampling.fit import user_fit

DEFAULT_BATCH_SIZE = 32  # Keras's
ROWS_PER_SLICE = 65536  # labels converted to class weights at once
READ_WHOLE_WARNING = (
    "Memory maps and other lazily read arrays are read into memory as a whole, as by `keras.Model.fit`, because a "
    "`tf.distribute` strategy distributes the data. To read them in batches, create the model outside its scope"
)


@dataclasses.dataclass(frozen=True)
class FitPlan:
    """Everything that is known about a `fit` before its first step.

    Attributes:
        arguments: the arguments for `keras.Model.fit`, by name.
        source: where importance steps read samples from; None if they can't.
        batch_size: int, rows of a uniform step; None if only the batches of a stream show it.
        batches_per_pass: int, uniform steps of a pass over the data; 0 if only Keras's iterator knows.
        order: the order of the rows in the current pass; None if no listener needs it or rows have no indices.
        reason: why importance sampling is impossible, as a clause; None if it is possible, if the trainer is switched
            off, or if Keras raises an error.
        warning: a warning about the data; None if there is none.
        full_epoch_steps: int, steps of an epoch of `fit`, if the strategy may take fewer; 0 if Keras alone sets them.
        class_weight: the user's argument, which `arguments` may have as a part of the sample weights.
        is_weighted: bool, True if the user passed sample weights or class weights.
    """

    arguments: dict[str, Any]
    source: Any = None
    batch_size: int | None = DEFAULT_BATCH_SIZE
    batches_per_pass: int = 0
    order: Any = None
    reason: str | None = None
    warning: str | None = None
    full_epoch_steps: int = 0
    class_weight: dict | None = None
    is_weighted: bool = False

    @property
    def has_validation_data(self) -> bool:
        """True if Keras evaluates the model on validation data."""
        return bool(self.arguments.get("validation_split")) or self.arguments.get("validation_data") is not None

    @property
    def signature(self) -> tuple:
        """The structure, shapes and dtypes that compiled steps depend on."""
        return () if self.source is None else self.source.signature


def make_plan(
    model: keras.Model,
    arguments: dict,
    name: str,
    is_on: bool,
    needs_rows: bool,
    needs_indices: bool,
    accepts_train_step: bool,
) -> FitPlan:
    """Return the plan of a `fit`.

    Args:
        model: the user's model.
        arguments: all arguments of `keras.Model.fit`, by name.
        name: of the trainer, for the error.
        is_on: bool, False if the trainer is switched off.
        needs_rows: bool, True if importance steps always read rows by index.
        needs_indices: bool, True if a listener needs the row indices of uniform steps.
        accepts_train_step: bool, True if importance steps can be taken by a `train_step` that the model defines.

    Raises:
        ValueError: rows are needed by index, and the data are a stream.
    """
    needs_source = is_on or needs_indices or has_lazy_rows(arguments)
    prepares_data = user_fit.has_own_fit(model)
    if prepares_data and is_on and not needs_rows:
        plan = plan_custom_fit(arguments)
    elif user_fit.reads_its_own_data(model) or not needs_source:
        plan = FitPlan(with_lazy_validation_data(arguments))
    else:
        plan = plan_data(arguments, model, needs_indices)
    is_weighted = arguments["class_weight"] is not None or arguments["sample_weight"] is not None
    plan = dataclasses.replace(plan, class_weight=arguments["class_weight"], is_weighted=is_weighted)
    if not is_on:
        return dataclasses.replace(plan, reason=None)
    if needs_rows and plan.source is not None and not plan.source.has_rows:
        raise ValueError(
            f"`x` must be data whose rows can be read by index (arrays, memory maps, a dataset) for {name}; streams "
            f"are for the pools of `ImportanceTraining`. Received: x={arguments['x']!r}"
        )
    reason = eligibility.unsupported_reason(model, accepts_train_step) or plan.reason
    if reason is None and needs_rows and prepares_data:
        reason = (
            f"{type(model).__name__} defines a `fit` that prepares the data, whose rows can't be read by index. Use "
            "the pools of `ImportanceTraining`, which sample the prepared batches"
        )
    return dataclasses.replace(plan, reason=reason)


def plan_data(arguments: dict, model: keras.Model, with_order: bool) -> FitPlan:
    """Return a plan with the source of the samples, or with the reason why there is none.

    Args:
        arguments: all arguments of `keras.Model.fit`, by name.
        model: the user's model.
        with_order: bool, True to record which rows uniform steps train on.

    Returns:
        `FitPlan`. Arguments that Keras refuses are passed on unchanged, so that Keras raises its error.
    """
    x, class_weight = arguments["x"], arguments["class_weight"]
    leaves, _ = flatten(tuple(arguments[name] for name in ("x", "y", "sample_weight")))
    if x is not None and all(backend.has_rows(leaf) or is_lazy(leaf) for leaf in leaves):
        return plan_arrays(arguments, model, with_order)
    if _keras_refuses(arguments):
        return FitPlan(arguments)
    arguments = with_lazy_validation_data(arguments)
    reread = None
    if isinstance(x, keras.utils.PyDataset):
        if is_finite(x):
            # A dataset without workers may not be safe for two threads.
            lock = None if has_workers(x) else threading.Lock()

            def reread(seed: int) -> backend.BatchReader:
                return backend.BatchReader(ShuffledBatches(x, seed, lock), class_weight)

            if lock is not None:
                arguments.update(x=LockedDataset(x, lock))
    elif backend.is_dataset(x) or backend.is_loader(x):
        if backend.is_loader(x) or not backend.is_infinite(x):

            def reread(seed: int) -> backend.BatchReader:
                return backend.BatchReader(x, class_weight)

    elif not isinstance(x, types.GeneratorType):
        return FitPlan(arguments, reason=f"candidates can't be drawn from data of type {type(x).__name__}")
    reason = DRAWN_BY_KERAS if reread is None and backend.DRAWS_BEFORE_STEP else None
    return FitPlan(arguments, StreamSource(reread), batch_size=None, reason=reason)


def plan_custom_fit(arguments: dict) -> FitPlan:
    """Return the plan for a model with its own `fit`: samples are drawn from the batches that it passes on to Keras."""
    return FitPlan(with_lazy_validation_data(arguments), StreamSource(None, rereads_iterator=True), batch_size=None)


def _keras_refuses(arguments: dict) -> bool:
    """Return True if `keras.Model.fit` raises an error for arguments that can't be passed with a stream."""
    x, class_weight = arguments["x"], arguments["class_weight"]
    is_stream = isinstance(x, (keras.utils.PyDataset, types.GeneratorType))
    if not (is_stream or backend.is_dataset(x) or backend.is_loader(x)):
        return False
    if arguments["validation_split"] and arguments["validation_data"] is None:
        return True
    if arguments["y"] is not None or arguments["sample_weight"] is not None:
        return True
    if class_weight is None:
        return False
    try:
        keras_data.data_adapter(x, class_weight=class_weight)
        keras_data.class_weights_to_sample_weights(np.zeros(1, "int32"), class_weight)
    except Exception:  # of any type; Keras raises it again
        return True
    return False


def plan_arrays(arguments: dict, model: keras.Model, with_order: bool) -> FitPlan:
    """Return the plan of a `fit` on arrays.

    Args:
        arguments: all arguments of `keras.Model.fit`, by name.
        model: the user's model.
        with_order: bool, True to record the order of the rows for listeners.

    Raises:
        Exception: the error of Keras for arrays that it refuses.
    """
    data = tuple(arguments[name] for name in ("x", "y", "sample_weight"))
    leaves, _ = flatten(data)
    warning = None
    if backend.is_distributed(model) and any(map(is_lazy, leaves)):
        data, warning = _read_whole(data), READ_WHOLE_WARNING
        leaves, _ = flatten(data)
    has_lazy = any(map(is_lazy, leaves))
    arguments = with_lazy_validation_data(arguments)
    num_rows = int(leaves[0].shape[0])
    validation_data = None
    if arguments["validation_split"] and arguments["validation_data"] is None:
        first, last = keras_data.split_rows(num_rows, arguments["validation_split"])
        validation_data, data, num_rows = _slice(data, num_rows - last, num_rows), _slice(data, 0, first), first
    keras_data.check_arrays(*_in_memory(data), class_weight=arguments["class_weight"])
    if validation_data is not None:
        keras_data.check_arrays(*_in_memory(validation_data))
        if not last:
            validation_data = _read_whole(validation_data)
        arguments = with_lazy_validation_data(dict(arguments, validation_split=0.0, validation_data=validation_data))
    if not num_rows:
        return FitPlan(dict(arguments, **dict(zip(("x", "y", "sample_weight"), _read_whole(data), strict=True))))
    batch_size = _batch_size(arguments, num_rows)
    # Convert floats to `floatx` once, as Keras does, and share one tensor between Keras and the candidates.
    data = tuple(_map_leaves(lambda leaf: leaf if is_lazy(leaf) else backend.to_fit_array(leaf), part) for part in data)
    source = ArraySource((*data[:2], _sample_weights(data, arguments["class_weight"])))
    order = EpochOrder() if with_order else None
    if has_lazy or with_order:
        x = backend.epoch_dataset(source, batch_size, arguments["shuffle"], order and order.record)
        arguments.update(x=x, y=None, sample_weight=None, class_weight=None, shuffle=False)
    else:
        arguments.update(zip(("x", "y", "sample_weight"), data, strict=True))
    return FitPlan(
        arguments,
        source,
        batch_size=batch_size,
        batches_per_pass=math.ceil(num_rows / batch_size),
        order=order,
        warning=warning,
    )


def _batch_size(arguments: dict, num_rows: int) -> int:
    """Return the batch size that Keras uses; raise Keras's error for an invalid one."""
    steps = arguments["steps_per_epoch"]
    batch_size = arguments["batch_size"] or (math.ceil(num_rows / steps) if steps else DEFAULT_BATCH_SIZE)
    if type(batch_size) is not int or batch_size < 1:  # also True, and integers of NumPy, which not every Keras takes
        keras_data.check_batch_size(num_rows, batch_size)
    try:
        return operator.index(batch_size)
    except TypeError:  # which Keras refuses later
        return DEFAULT_BATCH_SIZE


def _read_whole(data: tuple) -> tuple:
    """Return the data with lazily read arrays read into memory.

    A `tf.distribute` strategy prefetches in threads that don't end while they call Python.
    """
    return tuple(
        _map_leaves(lambda leaf: as_lazy_array(leaf).read(np.arange(leaf.shape[0])) if is_lazy(leaf) else leaf, part)
        for part in data
    )


def _in_memory(data: tuple) -> tuple:
    """Return the data with zeros, which need no memory, instead of lazily read arrays that Keras refuses."""

    def stand_in(leaf: Any) -> Any:
        if backend.has_rows(leaf):
            return leaf
        return np.broadcast_to(np.zeros((), LazyArray(leaf).dtype), leaf.shape)

    return tuple(_map_leaves(stand_in, part) for part in data)


def _slice(data: tuple, start: int, stop: int) -> tuple:
    def slice_leaf(leaf: Any) -> Any:
        if not is_lazy(leaf):
            return backend.slice_rows(leaf, start, stop)
        rows = range(leaf.shape[0])[start:stop]
        return as_lazy_array(leaf).slice(rows.start, rows.stop)

    return tuple(_map_leaves(slice_leaf, part) for part in data)


def _map_leaves(function: Callable, structure: Any) -> Any:
    return keras.tree.map_structure(lambda leaf: None if leaf is None else function(leaf), structure)


def _sample_weights(data: tuple, class_weight: dict | None) -> Any:
    """Return the user's sample weights as Keras uses them: one array per output, class weights as sample weights."""
    _, y, sample_weight = data
    if class_weight is not None:
        y = as_lazy_array(y) if is_lazy(y) else y
        weights = np.empty(y.shape[0], keras.config.floatx())
        for start in range(0, len(weights), ROWS_PER_SLICE):
            stop = min(start + ROWS_PER_SLICE, len(weights))
            rows = y.read(np.arange(start, stop)) if isinstance(y, LazyArray) else y[start:stop]
            weights[start:stop] = _class_weights(keras.ops.convert_to_numpy(rows), class_weight)
        return weights
    if sample_weight is not None and keras.tree.is_nested(y) and not keras.tree.is_nested(sample_weight):
        return _map_leaves(lambda _: sample_weight, y)
    return sample_weight


def _class_weights(y: np.ndarray, class_weight: dict) -> np.ndarray:
    if y.ndim > 1:
        y = y.argmax(axis=-1) if y.shape[-1] != 1 else y[..., 0]
    classes, positions = np.unique(np.round(y).astype("int32"), return_inverse=True)
    return keras_data.class_weights_to_sample_weights(classes, class_weight)[positions.ravel()]
