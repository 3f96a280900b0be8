"""JAX implementation of the backend protocol: tensors from arrays, and the data that `fit` reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from importance_sampling.backend import keras_data
from importance_sampling.backend.host_data import read_batch

# Keras calls the training function before it draws a batch.
DRAWS_BEFORE_STEP = False
# A compiled function is compiled again for arrays of another number of rows.
STATIC_ROWS = True


def to_tensor(value: Any) -> jax.Array:
    """Convert an array to a tensor, floats in `keras.config.floatx()`."""
    return jnp.asarray(keras_data.to_numpy_array(value))


def as_input(array: np.ndarray) -> np.ndarray:
    """Return rows that were read on the host in the form in which compiled steps take them."""
    return array


def gather(tensor: Any, positions: Any) -> jax.Array:
    """Return rows of a tensor.

    Args:
        tensor: array of JAX or NumPy, `(rows, ...)`.
        positions: int `(n,)`, the positions of the rows.
    """
    return jnp.take(tensor, jnp.asarray(positions), axis=0)


def distribute_rows(structure: Any) -> Any:
    """Split the rows of tensors over the devices of Keras's distribution, as Keras splits the batches of `fit`.

    Tensors whose rows can't be split evenly stay whole: every device then computes all of them.

    Args:
        structure: structure of tensors, inside a compiled function.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return structure

    def distribute(tensor: Any) -> Any:
        if tensor is None or not tensor.ndim:
            return tensor
        layout = distribution.get_data_layout(tensor.shape)
        count = layout.device_mesh.shape[layout.device_mesh.axis_names.index(distribution.batch_dim_name)]
        is_even = tensor.shape[0] % count == 0
        return jax.lax.with_sharding_constraint(tensor, layout.backend_layout) if is_even else tensor

    return keras.tree.map_structure(distribute, structure)


def collect_rows(structure: Any) -> Any:
    """Copy tensors whose rows are split over the devices of Keras's distribution to all devices and processes.

    Args:
        structure: structure of tensors, inside a compiled function.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return structure
    whole = jax.sharding.NamedSharding(distribution.device_mesh.backend_mesh, jax.sharding.PartitionSpec())
    return keras.tree.map_structure(lambda tensor: jax.lax.with_sharding_constraint(tensor, whole), structure)


def whole_batch(batch: Any) -> Any:
    """Return the batch of this process, if every process has passed the same one.

    Keras joins the batches of all processes, and then every row occurs once per process.
    """
    return batch if copies_of_batch() == 1 else keras.tree.map_structure(_rows_of_process, batch)


def copies_of_batch() -> int:
    """Return how often each row of a batch occurs in a step of Keras: once per process that passes the same batch."""
    distribution = keras.distribution.distribution()
    # Keras 3.8 has the attribute with an underscore.
    shards = getattr(distribution, "auto_shard_dataset", getattr(distribution, "_auto_shard_dataset", True))
    return 1 if shards else jax.process_count()


def _rows_of_process(tensor: Any) -> Any:
    if not isinstance(tensor, jax.Array) or tensor.is_fully_addressable:
        return tensor
    parts = {shard.index[0].start or 0: shard.data for shard in tensor.addressable_shards}  # of devices, by first row
    return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])


def concatenate(parts: Any) -> Any:
    """Concatenate a list of structures of arrays or tensors along the first axis."""
    return keras.tree.map_structure(_join, *parts)


def _join(*tensors: Any) -> Any:
    on_host = all(isinstance(tensor, np.ndarray) for tensor in tensors)
    return np.concatenate(tensors) if on_host else jnp.concatenate(tensors)


def as_bytes(tensor: Any) -> bytes:
    """Serialise the values of a tensor."""
    return np.asarray(tensor).tobytes()


def epoch_dataset(source: Any, batch_size: int, shuffle: bool | str, record_order: Callable | None) -> Any:
    """Return data for `fit`: the batches of an epoch, in the order in which Keras's `fit` draws them from arrays.

    Args:
        source: an `ArraySource`, whose `num_rows`, `columns` and `batch` are used.
        batch_size: int.
        shuffle: as for `keras.Model.fit`.
        record_order: called as `record_order(order)` with the row indices of each epoch, int64 `(rows,)`, before its
            first batch. None records nothing.
    """
    index_adapter = keras_data.data_adapter(np.arange(source.num_rows), batch_size=batch_size, shuffle=shuffle)

    def batches() -> Iterator[Any]:
        batches_of_rows = (keras.tree.flatten(rows)[0] for rows in index_adapter.get_jax_iterator())
        order = np.concatenate([np.empty(0, "int64"), *batches_of_rows])  # without batches, Keras raises its own error
        if record_order is not None:
            record_order(order)
        for start in range(0, len(order), batch_size):
            yield read_batch(source, order[start : start + batch_size])

    return keras_data.host_adapter(batches, source.num_rows, batch_size)
