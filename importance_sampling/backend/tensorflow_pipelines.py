"""TensorFlow implementation of the backend protocol: `tf.data` pipelines that pass batches and pools to the steps.

The order of uniform batches is drawn by Keras's own adapter, `keras.src.trainers.data_adapters.array_data_adapter`. The
order of pools is drawn from a separate, stateless random stream.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from importance_sampling.backend import keras_data
from importance_sampling.backend.tensorflow_data import gather

PREFETCHED_POOLS = 2
ITERATE = tf.data.Dataset.__iter__  # as TensorFlow defines it


def epoch_dataset(source: Any, batch_size: int, shuffle: bool | str, record_order: Callable | None) -> Any:
    """Return a dataset of the batches of an epoch, in the order in which Keras's `fit` draws them from arrays.

    Args:
        source: an `ArraySource`, whose `num_rows`, `columns`, `is_in_memory` and `batch` are used.
        batch_size: int.
        shuffle: as for `keras.Model.fit`.
        record_order: method, called as `record_order(order)` with the row indices of each epoch, int64 `(rows,)`,
            before its first batch; returns them. None records nothing.
    """
    num_rows, full_batches = source.num_rows, source.num_rows // batch_size
    by_batch = shuffle == "batch"  # Keras then shuffles within batches, which are joined here to the order of an epoch
    index_adapter = keras_data.data_adapter(
        np.arange(num_rows, dtype="int64"), batch_size=batch_size if by_batch else num_rows, shuffle=shuffle
    )
    orders = index_adapter.get_tf_dataset()
    if by_batch:
        orders = orders.padded_batch(full_batches + 1, batch_size, np.int64(-1)).map(lambda x: x[x >= 0])

    def batches(order: Any) -> Any:
        if record_order is not None:
            order = _on_host(record_order, order, tf.int64)
        order = tf.ensure_shape(order, (num_rows,))
        num_full = full_batches * batch_size
        full = tf.data.Dataset.from_tensor_slices(tf.reshape(order[:num_full], (full_batches, batch_size)))
        rest = order[num_full:]
        return full.concatenate(tf.data.Dataset.from_tensors(rest)) if num_rows % batch_size else full

    stream = orders.flat_map(batches).apply(tf.data.experimental.assert_cardinality(-(-num_rows // batch_size)))
    parallel_calls = tf.data.AUTOTUNE if source.is_in_memory else None
    stream = _read(stream, source, lambda _, rows: source.batch(rows), parallel_calls)
    # Lazily read arrays aren't prefetched: a thread that runs Python code doesn't end when the interpreter exits.
    return stream.prefetch(tf.data.AUTOTUNE) if source.is_in_memory else stream


def pool_iterator(source: Any, pool_size: int, seed: int, start: int) -> Any:
    """Return an infinite iterator over pools of uniformly drawn rows, as `(indices, *tensors)`.

    Pools are consecutive parts of a permutation of the rows. Each permutation depends only on the seed and its number,
    so that the sequence can be continued at any pool and no global generator is used. Rows at the end of a permutation
    that don't fill a pool are skipped.

    Args:
        source: an `ArraySource`, whose `num_rows` and `columns` are used.
        pool_size: int, the number of rows of a pool, at most `source.num_rows`.
        seed: int.
        start: int >= 0, the number of pools to skip.
    """
    num_rows = source.num_rows
    pools_per_epoch = num_rows // pool_size

    def permutation(number):
        key = tf.stack([tf.constant(seed, tf.int64), number])
        order = tf.random.experimental.stateless_shuffle(tf.range(num_rows, dtype=tf.int64), seed=key)
        return tf.reshape(order[: pools_per_epoch * pool_size], (pools_per_epoch, pool_size))

    stream = tf.data.Dataset.range(start // pools_per_epoch, np.iinfo(np.int64).max).map(permutation).prefetch(1)
    stream = stream.flat_map(tf.data.Dataset.from_tensor_slices).skip(start % pools_per_epoch)
    stream = _read(stream, source, lambda indices, rows: (indices, *rows), 1).prefetch(PREFETCHED_POOLS)
    return iter(stream.with_options(_unoptimised()))


def queue_iterator(queue: deque, pack: Callable, static: bool = False) -> Any:
    """Return an iterator over the entries of a queue, which ends when the queue is empty.

    Args:
        queue: of tuples of tensors, with at least one entry; entries may be added later. The caller keeps it.
        pack: function from a tuple of tensors to the structure that the iterator yields.
        static: bool, default False. True gives tensors the static number of rows of the first entry; False leaves the
            number of rows dynamic, as in iterators of Keras's own pipeline.
    """
    specs = tuple(_spec(leaf, static) for leaf in queue[0])
    dataset = tf.data.Dataset.from_generator(_taken_from(queue), output_signature=specs)
    return iter(dataset.map(lambda *leaves: pack(leaves)).with_options(_unoptimised()))


def queued_batches(queue: deque, iterator: Any) -> Any:
    """Return an iterator over the batches in a queue that were read from another iterator.

    Where the other one is a plain iterator of `tf.data`, this one has its type, so that Keras's function runs as it was
    traced. Otherwise it is an iterator of Python.

    Args:
        queue: of batches; more may be added later. The caller keeps it.
        iterator: Keras's iterator.
    """
    has_spec = isinstance(iterator, tf.data.Iterator) and all(
        isinstance(spec, tf.TensorSpec) for spec in tf.nest.flatten(iterator.element_spec)
    )
    if not has_spec:
        return _taken_from(queue)()
    dataset = tf.data.Dataset.from_generator(_taken_from(queue), output_signature=iterator.element_spec)
    return iter(dataset.with_options(_unoptimised()))


def is_pipeline_error(error: Exception) -> bool:
    """Return True for an error of a pipeline: its end, or an error that replaces one raised inside it."""
    return isinstance(error, (StopIteration, tf.errors.OpError))


def _taken_from(queue: deque) -> Callable[[], Iterator]:
    """Return a function that makes a generator of the entries of a queue, which ends when the queue is empty."""
    reference = weakref.ref(queue)  # for the same reason as in `_on_host`

    def produce() -> Iterator:
        while reference():
            yield reference().popleft()

    return produce


def _spec(leaf: Any, static: bool) -> Any:
    """Return the type specification of a tensor, with a static or dynamic number of rows."""
    shape = (leaf.shape[0] if static else None, *leaf.shape[1:])
    if isinstance(leaf, tf.RaggedTensor):
        return tf.RaggedTensorSpec(shape, leaf.dtype, leaf.ragged_rank, leaf.row_splits.dtype)
    return (tf.SparseTensorSpec if isinstance(leaf, tf.SparseTensor) else tf.TensorSpec)(shape, leaf.dtype)


@contextlib.contextmanager
def without_autotune() -> Iterator[None]:
    """Create `tf.data` iterators inside this context, also Keras's own, without autotuning.

    Autotuning starts a thread per iterator that sleeps for up to a minute. Sometimes it isn't woken when the iterator
    is deleted, and the deletion at the end of an epoch waits for it. Iterators that run for a long time are affected
    most, as in several alternating calls of `fit`. Keras's pipelines are not slower without autotuning. Datasets whose
    options set `autotune.enabled` are not changed.
    """
    iterate = tf.data.Dataset.__iter__
    is_outermost = iterate is ITERATE  # nested contexts have no effect

    def iterate_untuned(dataset: tf.data.Dataset) -> Any:
        if dataset.options().autotune.enabled is None:
            dataset = dataset.with_options(_without_tuning())
        return iterate(dataset)

    if is_outermost:
        tf.data.Dataset.__iter__ = iterate_untuned
    try:
        yield
    finally:
        if is_outermost:
            tf.data.Dataset.__iter__ = iterate


def clear_later(box: list) -> threading.Thread:
    """Empty a list that holds the last reference to an iterator of `tf.data`, without waiting for it.

    Args:
        box: the list.

    Returns:
        The thread that deletes the iterator: with autotuning (see `without_autotune`) that can take seconds.
    """
    thread = threading.Thread(target=box.clear, name="importance_sampling: delete an iterator")
    thread.start()
    return thread


def _without_tuning() -> tf.data.Options:
    """Return options that turn autotuning off."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _unoptimised() -> tf.data.Options:
    """Return options that turn off graph optimisation and autotuning, which take longer than they save here."""
    options = _without_tuning()
    options.experimental_optimization.apply_default_optimizations = False
    return options


def _read(stream: tf.data.Dataset, source: Any, pack: Callable, parallel_calls: int | None) -> tf.data.Dataset:
    """Read the rows of a source for each element of a dataset of row indices.

    In-memory tensors are elements of the dataset: tensors that a pipeline function captures are only freed by Python's
    garbage collector. Lazily read arrays are read on the host.

    Args:
        stream: dataset of row indices, int64 `(n,)`.
        source: an `ArraySource`.
        pack: called as `pack(indices, rows)` with the rows of each column, returns the element of the result.
        parallel_calls: as `num_parallel_calls` of `tf.data.Dataset.map`.
    """
    lazy_arrays = [array if hasattr(array, "read") else None for array in source.columns]
    tensors = tuple(array for array in source.columns if not hasattr(array, "read"))

    def read(indices: Any, tensors: tuple = ()) -> Any:
        remaining = iter(tensors)
        rows = [
            gather(next(remaining), indices) if array is None else _read_lazily(array, indices) for array in lazy_arrays
        ]
        return pack(indices, rows)

    if tensors:
        stream = tf.data.Dataset.zip((stream, tf.data.Dataset.from_tensors(tensors).repeat()))
    return stream.map(read, num_parallel_calls=parallel_calls)


def _read_lazily(array: Any, indices: Any) -> Any:
    """Return rows of a `LazyArray` as a tensor, read on the host when the pipeline runs."""
    rows = _on_host(array.read, indices, array.dtype)
    rows.set_shape((indices.shape[0], *array.shape[1:]))
    return rows


def _on_host(method: Callable, value: Any, dtype: Any) -> Any:
    """Return the result of a method that is called on the host when the pipeline runs.

    TensorFlow never drops the Python functions of a pipeline, so the function has a weak reference to the object: a
    memory map would stay open, and its file locked, until the process ends.
    """
    reference = weakref.WeakMethod(method)

    def call(value: np.ndarray) -> np.ndarray:
        current = reference()
        if current is None:
            raise StopIteration  # a thread reads ahead after the end of `fit`
        return current(value)

    return tf.numpy_function(call, [value], dtype)
