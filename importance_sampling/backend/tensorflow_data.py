"""TensorFlow's side of the rim, the data: rows of arrays and tensors, readings of streams.

Conversions are Keras's own (`keras_data`), so that candidates are what plain steps train on. Nothing is drawn here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from importance_sampling.backend import keras_data, keras_internals


def is_resident(value: Any) -> bool:
    """Whether a value is an array in memory: NumPy's, a framework's (sparse and ragged too), pandas's or scipy's."""
    return keras_data.is_array_in_memory(value)


def has_rows(value: Any) -> bool:
    """Whether a value is an array, to Keras, whose rows can be gathered."""
    if not keras_data.is_array_for_fit(value) or not hasattr(value, "shape") or len(value.shape) == 0:
        return False
    if isinstance(value, np.ndarray) and value.dtype == object:
        return all(isinstance(entry, str) for entry in value)  # the objects that Keras takes
    return True


def is_dataset(value: Any) -> bool:
    """Whether a value is a data set of the framework's own kind."""
    return isinstance(value, tf.data.Dataset)


def is_loader(value: Any) -> bool:
    """Whether a value is a loader of another framework that Keras takes."""
    return keras_data.is_loader_for_fit(value)


def cut(value: Any, start: int, stop: int) -> Any:
    """The rows of an array from `start` up to `stop`, in Keras's dtype, as Keras cuts them."""
    return keras_data.slice_rows(value, start, stop)


def resident(value: Any) -> Any:
    """The array as the tensor that Keras's own pipeline would make of it, so that both can share one."""
    with tf.device("CPU:0"):
        value = keras_data.to_pipeline_array(value)
        if keras_data.is_sparse_rows(value):
            return value.sparse
        return value if keras_data.is_tensorflow_tensor(value) else tf.convert_to_tensor(value)


def column(tensor: Any) -> Any:
    """A tensor as a column that rows are gathered from again and again."""
    return keras_data.to_sparse_rows(tensor) if isinstance(tensor, tf.SparseTensor) else tensor


def kind(column: Any) -> str:
    """What compiled steps depend on in a column: kind, dtype and shape of a row."""
    column = column.sparse if keras_data.is_sparse_rows(column) else column
    return f"{type(column).__name__} {column.dtype} {tuple(column.shape[1:])}"


def as_bytes(tensor: Any) -> bytes:
    """All that a tensor holds, of whatever kind it is."""
    return b"".join(tf.io.serialize_tensor(part).numpy() for part in tf.nest.flatten(tensor, expand_composites=True))


def gather(tensor: Any, positions: Any) -> Any:
    """Rows of a tensor, or of a column."""
    positions = tf.convert_to_tensor(positions)
    if isinstance(tensor, tf.SparseTensor):
        tensor = keras_data.to_sparse_rows(tensor)
    if keras_data.is_sparse_rows(tensor):
        return keras_data.gather_sparse_rows(tensor, positions)
    gathered = tf.gather(tensor, positions)
    if isinstance(gathered, tf.RaggedTensor):  # it forgets how many rows it has, where that is static
        splits = tf.ensure_shape(gathered.row_splits, [None if n is None else n + 1 for n in positions.shape])
        gathered = tf.RaggedTensor.from_row_splits(gathered.values, splits, validate=False)
    return gathered


def with_rows(tensor: Any, rows: int) -> Any:
    """Give a tensor that lost its static number of rows that number, checked when it runs; others stay as they are."""
    if not isinstance(tensor, tf.Tensor) or tensor.shape.rank in (None, 0) or tensor.shape[0] is not None:
        return tensor
    known = tf.ensure_shape(tensor, (rows, *tensor.shape[1:]))
    mask, logits = keras_internals.get_mask(tensor), keras_internals.get_logits(tensor)
    if mask is not None:
        keras_internals.set_mask(known, with_rows(mask, rows))
    if logits is not None:
        keras_internals.set_logits(known, with_rows(logits, rows))
    return known


def concatenate(parts: Any) -> Any:
    """Join structures of tensors along the first axis."""
    return tf.nest.map_structure(_join, *parts)


def _join(*tensors: Any) -> Any:
    if isinstance(tensors[0], tf.SparseTensor):
        return tf.sparse.concat(0, list(tensors))  # of a tuple it makes a generator, and then wants its length
    return tf.concat(tensors, axis=0)


def rows(tensor: Any, start: int, stop: int) -> Any:
    """The rows of a tensor from `start` up to `stop`."""
    return gather(tensor, tf.range(start, stop)) if isinstance(tensor, tf.SparseTensor) else tensor[start:stop]


def without_optionals(batch: Any) -> Any:
    """A batch with None where Keras's pipelines put what stands for it."""
    return tf.nest.map_structure(lambda leaf: None if isinstance(leaf, tf.experimental.Optional) else leaf, batch)


def is_infinite(dataset: tf.data.Dataset) -> bool:
    """Whether a dataset is known to have no end."""
    return int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY


class Reading:
    """A reading of data by Keras's own adapter for them, pass after pass.

    Args:
        x: what `fit` takes as x: a dataset, a `PyDataset`, a loader.
        class_weight: what `fit` takes as that.
    """

    def __init__(self, x: Any, class_weight: dict | None):
        if getattr(x, "persistent_workers", False):  # a loader of torch's that has one iterator at a time
            x = copy.copy(x)
            x._iterator = None
        self._adapter = keras_data.data_adapter(x, class_weight=class_weight)
        self._adapter.on_epoch_begin()
        self._iterator = iter(self._adapter.get_tf_dataset().repeat())

    def __next__(self) -> Any:
        return next(self._iterator)

    def close(self) -> None:
        """Stop reading."""
        self._iterator = None
        self._adapter.on_epoch_end()


def reading_of(iterator: Any) -> Callable | None:
    """Return `again(seed)`, which makes a second reading of the data that Keras's iterator reads; None if it can't."""
    dataset = getattr(iterator, "_dataset", None)  # TensorFlow's reference that keeps the data set alive
    if not isinstance(dataset, tf.data.Dataset):
        return None
    return lambda seed: DatasetReading(dataset)


class DatasetReading:
    """A reading of a data set, pass after pass.

    Args:
        dataset: what Keras's adapter made of the user's data.
    """

    def __init__(self, dataset: tf.data.Dataset):
        self._iterator = iter(dataset.repeat())

    def __next__(self) -> Any:
        return next(self._iterator)

    def close(self) -> None:
        """Stop reading."""
        self._iterator = None
