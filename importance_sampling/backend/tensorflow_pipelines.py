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

from importance_sampling.backend import keras_data
from importance_sampling.backend.tensorflow_data import gather

PREFETCHED_POOLS = 2
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
    numbers = keras_data.data_adapter(
        np.arange(rows, dtype="int64"), batch_size=batch_size if by_batch else rows, shuffle=shuffle
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

    stream = orders.flat_map(batches).apply(tf.data.experimental.assert_cardinality(-(-rows // batch_size)))
    at_once = tf.data.AUTOTUNE if source.is_resident else None
    stream = _read(stream, source, lambda _, rows: source.batch(rows), at_once)
    # Stores aren't read ahead of the step: a thread that reads by Python when the interpreter ends never ends itself.
    return stream.prefetch(tf.data.AUTOTUNE) if source.is_resident else stream


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

    stream = tf.data.Dataset.range(start // pools_per_pass, np.iinfo(np.int64).max).map(permutation).prefetch(1)
    stream = stream.flat_map(tf.data.Dataset.from_tensor_slices).skip(start % pools_per_pass)
    stream = _read(stream, source, lambda indices, rows: (indices, *rows), 1).prefetch(PREFETCHED_POOLS)
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


def is_of_pipeline(error: Exception) -> bool:
    """Whether an error is a pipeline's, which says that it is at its end, or takes the place of one raised in it."""
    return isinstance(error, (StopIteration, tf.errors.OpError))


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


def _read(stream: tf.data.Dataset, source: Any, put: Callable, at_once: int | None) -> tf.data.Dataset:
    """The rows of a source by a stream of indices, each as `put(indices, rows)`; of stores they are read on the host.

    Tensors come along with the indices: what a function of a pipeline captures lives until Python's collector comes by.
    """
    stores = [column if hasattr(column, "read") else None for column in source.columns]
    tensors = tuple(column for column in source.columns if not hasattr(column, "read"))

    def read(indices: Any, tensors: tuple = ()) -> Any:
        remaining = iter(tensors)
        rows = [gather(next(remaining), indices) if store is None else _stored(store, indices) for store in stores]
        return put(indices, rows)

    if tensors:
        stream = tf.data.Dataset.zip((stream, tf.data.Dataset.from_tensors(tensors).repeat()))
    return stream.map(read, num_parallel_calls=at_once)


def _stored(store: Any, indices: Any) -> Any:
    rows = tf.numpy_function(store.read, [indices], store.dtype)
    rows.set_shape((indices.shape[0], *store.shape[1:]))
    return rows
