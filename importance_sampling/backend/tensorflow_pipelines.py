"""TensorFlow's side of the rim, what feeds steps: pools, passes in Keras's order, batches that were read already.

The order of a plain pass is drawn by Keras's own adapter (`keras.src.trainers.data_adapters.array_data_adapter`); that
of the pools is drawn here, and nothing else is.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from keras.src.trainers import data_adapters

from importance_sampling.backend.tensorflow_data import gather

PREFETCHED_POOLS = 2
PipelineError = tf.errors.OpError  # what a pipeline raises in the place of what was raised in it
_iterate = tf.data.Dataset.__iter__


def passes(source: Any, batch_size: int, shuffle: bool | str, note: Callable | None) -> Any:
    """Passes over `source` as Keras makes them of arrays: its batches, in its order, for a `fit` to be handed as x.

    Args:
        source: has `num_rows`, `columns`, `is_resident`, and `batch`, which puts rows of the columns in place.
        batch_size: int.
        shuffle: as for `keras.Model.fit`.
        note: None, or called with the order of every pass ahead of its first batch, int64 `(rows,)`.
    """
    rows, whole = source.num_rows, source.num_rows // batch_size
    by_batch = shuffle == "batch"  # Keras shuffles within the batches then; what it hands out are those, joined here
    numbers = data_adapters.get_data_adapter(
        x=np.arange(rows, dtype="int64"), batch_size=batch_size if by_batch else rows, shuffle=shuffle
    )
    orders = numbers.get_tf_dataset()
    if by_batch:
        orders = orders.padded_batch(whole + 1, batch_size, np.int64(-1)).map(lambda x: x[x >= 0])

    def batches(order: Any) -> Any:
        if note is not None:
            order = tf.numpy_function(note, [order], tf.int64)
        order = tf.ensure_shape(order, (rows,))
        cut = tf.data.Dataset.from_tensor_slices(tf.reshape(order[: whole * batch_size], (whole, batch_size)))
        rest = order[whole * batch_size :]
        return cut.concatenate(tf.data.Dataset.from_tensors(rest)) if rows % batch_size else cut

    def read(indices: Any) -> Any:
        return source.batch(_read(column, indices) for column in source.columns)

    stream = orders.flat_map(batches).apply(tf.data.experimental.assert_cardinality(-(-rows // batch_size)))
    if not source.is_resident:
        # Not ahead of the step: a thread that is reading by Python when the interpreter ends would never end itself.
        return stream.map(read)
    return stream.map(read, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def pools(source: Any, pool_size: int, seed: int, start: int) -> Any:
    """An endless iterator of `(indices, *columns)`: pool after pool, cut from shuffled passes over `source`.

    Every pass is a permutation that depends on (seed, number of the pass) alone, so that the stream can be taken up
    anywhere (`start` pools in) and no global generator is touched. Rows that don't fill a pool wait for another pass.
    """
    rows = source.num_rows
    pools_per_pass = rows // pool_size

    def permutation(number):
        key = tf.stack([tf.constant(seed, tf.int64), number])
        order = tf.random.experimental.stateless_shuffle(tf.range(rows, dtype=tf.int64), seed=key)
        return tf.reshape(order[: pools_per_pass * pool_size], (pools_per_pass, pool_size))

    def read(indices):
        return (indices, *(_read(column, indices) for column in source.columns))

    stream = tf.data.Dataset.range(start // pools_per_pass, np.iinfo(np.int64).max).map(permutation).prefetch(1)
    stream = stream.flat_map(tf.data.Dataset.from_tensor_slices).skip(start % pools_per_pass)
    stream = stream.map(read, num_parallel_calls=1, deterministic=True).prefetch(PREFETCHED_POOLS)
    return iter(stream.with_options(_unoptimised()))


def feed(queue: deque, pack: Callable, static: bool = False) -> Any:
    """An iterator over what is put into `queue` as tuples of tensors, one now, until it is found empty.

    `pack` puts such a tuple in place. To whoever traces a step on it the number of rows is unknown, as with an iterator
    of Keras's own pipeline, unless `static`.
    """

    def produce():
        while queue:
            yield queue.popleft()

    specs = tuple(_spec(leaf, static) for leaf in queue[0])
    dataset = tf.data.Dataset.from_generator(produce, output_signature=specs).map(lambda *leaves: pack(leaves))
    return iter(dataset.with_options(_unoptimised()))


def _spec(leaf: Any, static: bool) -> Any:
    shape = (leaf.shape[0] if static else None, *leaf.shape[1:])
    if isinstance(leaf, tf.RaggedTensor):
        return tf.RaggedTensorSpec(shape, leaf.dtype, leaf.ragged_rank, leaf.row_splits.dtype)
    return (tf.SparseTensorSpec if isinstance(leaf, tf.SparseTensor) else tf.TensorSpec)(shape, leaf.dtype)


@contextlib.contextmanager
def untuned() -> Iterator[None]:
    """Iterators that are made in here, Keras's own among them, do without TensorFlow's tuning of their pipelines.

    For each of them a thread sleeps between looks, for up to a minute once it has run for long, and now and then it
    isn't woken when the iterator goes: whoever lets go of it waits, at the end of an epoch. Where several fits take
    turns their iterators run for long. What Keras feeds a model with is no slower without. A pipeline whose options
    ask for tuning has it.
    """
    iterate = tf.data.Dataset.__iter__
    first = iterate is _iterate  # those that come while one is there add nothing, and take nothing away

    def without(dataset: tf.data.Dataset) -> Any:
        if dataset.options().autotune.enabled is None:
            dataset = dataset.with_options(_without_tuning())
        return iterate(dataset)

    if first:
        tf.data.Dataset.__iter__ = without
    try:
        yield
    finally:
        if first:
            tf.data.Dataset.__iter__ = iterate


def _without_tuning() -> tf.data.Options:
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _unoptimised() -> tf.data.Options:
    """Options that leave a pipeline as it was written: rewriting and tuning it costs more than it saves."""
    options = _without_tuning()
    options.experimental_optimization.apply_default_optimizations = False
    return options


def _read(column: Any, indices: Any) -> Any:
    """Rows of a column, inside a `tf.data` pipeline; one that stays on the host is read there."""
    if not hasattr(column, "read"):
        return gather(column, indices)
    rows = tf.numpy_function(column.read, [indices], column.dtype)
    rows.set_shape((indices.shape[0], *column.shape[1:]))
    return rows
