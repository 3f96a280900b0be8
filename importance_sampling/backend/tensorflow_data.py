"""TensorFlow implementation of the backend protocol: rows of arrays and tensors, and readers of streams.

Arrays are converted by Keras's own functions (`keras_data`), so that candidates equal the samples of uniform steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from importance_sampling.backend import defaults, keras_data, keras_internals

# Keras calls the training function before it draws a batch.
DRAWS_BEFORE_STEP = False
# A compiled function is compiled again for arrays of another number of rows.
STATIC_ROWS = False


def is_in_memory(value: Any) -> bool:
    """Return True for an array of NumPy, a framework (also sparse or ragged), pandas or scipy."""
    return keras_data.is_array_in_memory(value)


def has_rows(value: Any) -> bool:
    """Return True if Keras accepts a value as an array and its rows can be gathered."""
    if not keras_data.is_array_for_fit(value) or not hasattr(value, "shape") or len(value.shape) == 0:
        return False
    if isinstance(value, np.ndarray) and value.dtype == object:
        return all(isinstance(entry, str) for entry in value)  # the only objects that Keras accepts
    return True


def is_dataset(value: Any) -> bool:
    """Return True for a `tf.data.Dataset`."""
    return isinstance(value, tf.data.Dataset)


def is_loader(value: Any) -> bool:
    """Return True for a data loader of another framework that Keras accepts."""
    return keras_data.is_loader_for_fit(value)


def slice_rows(value: Any, start: int, stop: int) -> Any:
    """Return the rows of an array from `start` up to `stop` as Keras slices it, floats in `keras.config.floatx()`."""
    return keras_data.slice_rows(value, start, stop)


def to_tensor(value: Any) -> Any:
    """Convert an array to the tensor that Keras's own pipeline uses, so that both share one tensor."""
    with tf.device("CPU:0"):
        value = keras_data.to_pipeline_array(value)
        if keras_data.is_sparse_rows(value):
            return value.sparse
        return value if keras_data.is_tensorflow_tensor(value) else tf.convert_to_tensor(value)


to_fit_array = to_tensor  # Keras's pipeline and importance steps share one tensor
as_input = to_tensor


def as_column(array: Any) -> Any:
    """Convert an array to a tensor from which `gather` takes rows quickly."""
    tensor = to_tensor(array)
    return keras_data.to_sparse_rows(tensor) if isinstance(tensor, tf.SparseTensor) else tensor


def row_spec(tensor: Any) -> str:
    """Return the type, dtype and row shape of a tensor as text; compiled steps depend on them."""
    tensor = tensor.sparse if keras_data.is_sparse_rows(tensor) else tensor
    return f"{type(tensor).__name__} {tensor.dtype} {tuple(tensor.shape[1:])}"


def as_bytes(tensor: Any) -> bytes:
    """Serialise the values of a dense, sparse or ragged tensor."""
    return b"".join(tf.io.serialize_tensor(part).numpy() for part in tf.nest.flatten(tensor, expand_composites=True))


def gather(tensor: Any, positions: Any) -> Any:
    """Return rows of a tensor.

    Args:
        tensor: dense, sparse or ragged, or a result of `as_gatherable`.
        positions: int `(n,)`, the positions of the rows.

    Returns:
        A tensor of the same type with n rows.
    """
    positions = tf.convert_to_tensor(positions)
    if isinstance(tensor, tf.SparseTensor):
        tensor = keras_data.to_sparse_rows(tensor)
    if keras_data.is_sparse_rows(tensor):
        return keras_data.gather_sparse_rows(tensor, positions)
    gathered = tf.gather(tensor, positions)
    if isinstance(gathered, tf.RaggedTensor):  # `tf.gather` loses the static number of rows
        splits = tf.ensure_shape(gathered.row_splits, [None if n is None else n + 1 for n in positions.shape])
        gathered = tf.RaggedTensor.from_row_splits(gathered.values, splits, validate=False)
    return gathered


def with_rows(tensor: Any, rows: int) -> Any:
    """Set the static number of rows of a tensor if it is unknown; the number is checked at run time.

    Args:
        tensor: any value; values that aren't dense tensors, or whose number of rows is static, are returned unchanged.
        rows: int.

    Returns:
        The tensor, with the mask and logits that Keras attached to it.
    """
    if not isinstance(tensor, tf.Tensor) or tensor.shape.rank in (None, 0) or tensor.shape[0] is not None:
        return tensor
    static = tf.ensure_shape(tensor, (rows, *tensor.shape[1:]))
    mask, logits = keras_internals.get_mask(tensor), keras_internals.get_logits(tensor)
    if mask is not None:
        keras_internals.set_mask(static, with_rows(mask, rows))
    if logits is not None:
        keras_internals.set_logits(static, with_rows(logits, rows))
    return static


def concatenate(parts: Any) -> Any:
    """Concatenate a list of structures of tensors along the first axis."""
    return tf.nest.map_structure(_join, *parts)


def _join(*tensors: Any) -> Any:
    if isinstance(tensors[0], tf.SparseTensor):
        return tf.sparse.concat(0, list(tensors))  # TensorFlow fails on a tuple: it needs the length
    return tf.concat(tensors, axis=0)


def slice_tensor(tensor: Any, start: int, stop: int) -> Any:
    """Return the rows of a dense, sparse or ragged tensor from `start` up to `stop`."""
    return gather(tensor, tf.range(start, stop)) if isinstance(tensor, tf.SparseTensor) else tensor[start:stop]


def without_optionals(batch: Any) -> Any:
    """Replace the `tf.experimental.Optional` values by which Keras's pipelines represent None with None."""
    return tf.nest.map_structure(lambda leaf: None if isinstance(leaf, tf.experimental.Optional) else leaf, batch)


def whole_batch(batch: Any) -> Any:
    """Join the parts of a batch that a `tf.distribute` strategy has split, and replace Keras's optionals with None."""

    def join(leaf: Any) -> Any:
        parts = leaf.values if isinstance(leaf, tf.distribute.DistributedValues) else (leaf,)
        if isinstance(parts[0], tf.experimental.Optional):
            return None
        return leaf if len(parts) == 1 else concatenate(parts)

    return tf.nest.map_structure(join, batch)


def is_infinite(dataset: tf.data.Dataset) -> bool:
    """Return True if a dataset is known to be infinite."""
    return int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY


class BatchReader(defaults.BatchReader):
    """Read batches through the `tf.data` pipeline of Keras's own data adapter, epoch after epoch."""

    def _batches(self) -> Iterator:
        return iter(self._adapter.get_tf_dataset().repeat())


def batch_reader_factory(iterator: Any) -> Callable | None:
    """Return a function that creates another reader of the data that an iterator reads.

    Args:
        iterator: Keras's iterator over a `tf.data.Dataset`.

    Returns:
        `create(seed) -> DatasetReader`, which ignores the seed; None if the iterator has no dataset.
    """
    dataset = getattr(iterator, "_dataset", None)  # TensorFlow's reference to the dataset
    if not isinstance(dataset, tf.data.Dataset):
        return None
    return lambda seed: DatasetReader(dataset)


class DatasetReader:
    """Read batches of a dataset, epoch after epoch.

    Args:
        dataset: the dataset that Keras's data adapter created from the user's data.
    """

    def __init__(self, dataset: tf.data.Dataset):
        self._iterator = iter(dataset.repeat())

    def __next__(self) -> Any:
        return next(self._iterator)

    def close(self) -> None:
        """Stop reading and release the iterator."""
        self._iterator = None
