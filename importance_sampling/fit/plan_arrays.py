"""Plan a `fit` on arrays.

Keras and importance steps read the same arrays, without a second copy, and lazily read arrays never as a whole. For
these, or if a listener needs row indices, a pipeline of this library replaces Keras's and shuffles in the same way.
Source: `keras.src.trainers.data_adapters.array_data_adapter`.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import keras
import numpy as np

from importance_sampling import backend
from importance_sampling.backend import keras_data
from importance_sampling.data.arrays import ArraySource, EpochOrder
from importance_sampling.data.batches import DEFAULT_BATCH_SIZE, flatten
from importance_sampling.data.lazy_arrays import LazyArray, as_lazy_array, is_lazy, with_lazy_validation_data
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.utils.structures import map_leaves

ROWS_PER_SLICE = 65536  # labels converted to class weights at once
READ_WHOLE_WARNING = (
    "Memory maps and other lazily read arrays are read into memory as a whole, as by `keras.Model.fit`, because a "
    "`tf.distribute` strategy distributes the data. To read them in batches, create the model outside its scope"
)


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
    data = tuple(map_leaves(lambda leaf: leaf if is_lazy(leaf) else backend.to_fit_array(leaf), part) for part in data)
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
        map_leaves(lambda leaf: as_lazy_array(leaf).read(np.arange(leaf.shape[0])) if is_lazy(leaf) else leaf, part)
        for part in data
    )


def _in_memory(data: tuple) -> tuple:
    """Return the data with zeros, which need no memory, instead of lazily read arrays that Keras refuses."""

    def stand_in(leaf: Any) -> Any:
        if backend.has_rows(leaf):
            return leaf
        return np.broadcast_to(np.zeros((), LazyArray(leaf).dtype), leaf.shape)

    return tuple(map_leaves(stand_in, part) for part in data)


def _slice(data: tuple, start: int, stop: int) -> tuple:
    def slice_leaf(leaf: Any) -> Any:
        if not is_lazy(leaf):
            return backend.slice_rows(leaf, start, stop)
        rows = range(leaf.shape[0])[start:stop]
        return as_lazy_array(leaf).slice(rows.start, rows.stop)

    return tuple(map_leaves(slice_leaf, part) for part in data)


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
        return map_leaves(lambda _: sample_weight, y)
    return sample_weight


def _class_weights(y: np.ndarray, class_weight: dict) -> np.ndarray:
    if y.ndim > 1:
        y = y.argmax(axis=-1) if y.shape[-1] != 1 else y[..., 0]
    classes, positions = np.unique(np.round(y).astype("int32"), return_inverse=True)
    return keras_data.class_weights_to_sample_weights(classes, class_weight)[positions.ravel()]
