"""torch implementation of the backend protocol: tensors from arrays, and the data that `fit` reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import torch

from importance_sampling.backend import keras_data
from importance_sampling.backend.host_data import read_batch
from importance_sampling.utils.structures import map_leaves

# Keras draws a batch before it calls the training function.
DRAWS_BEFORE_STEP = True
# A compiled function is compiled again for arrays of another number of rows.
STATIC_ROWS = False


def to_tensor(value: Any) -> torch.Tensor:
    """Convert an array to a tensor on Keras's device, floats in `keras.config.floatx()`."""
    return keras.ops.convert_to_tensor(keras_data.to_numpy_array(value))


def as_input(array: np.ndarray) -> torch.Tensor:
    """Return rows that were read on the host in the form in which compiled steps take them."""
    return keras.ops.convert_to_tensor(array)


def gather(tensor: Any, positions: Any) -> torch.Tensor:
    """Return rows of a tensor.

    Args:
        tensor: tensor or NumPy array, `(rows, ...)`.
        positions: int `(n,)`, the positions of the rows.
    """
    tensor = keras.ops.convert_to_tensor(tensor)
    return tensor[torch.as_tensor(positions, device=tensor.device).long()]


def concatenate(parts: Any) -> Any:
    """Concatenate a list of structures of tensors along the first axis."""
    return keras.tree.map_structure(lambda *tensors: torch.cat(tensors), *parts)


def as_bytes(tensor: torch.Tensor) -> bytes:
    """Serialise the values of a tensor."""
    if tensor.dtype == torch.bfloat16:  # NumPy has none
        tensor = tensor.float()
    return tensor.numpy(force=True).tobytes()


def epoch_dataset(source: Any, batch_size: int, shuffle: bool | str, record_order: Callable | None) -> Any:
    """Return data for `fit`: the batches of an epoch, in the order in which Keras's `fit` draws them from arrays.

    Args:
        source: an `ArraySource`, whose `num_rows`, `columns` and `batch` are used.
        batch_size: int.
        shuffle: as for `keras.Model.fit`.
        record_order: called as `record_order(order)` with the row indices of each epoch, int64 `(rows,)`, before its
            first batch. None records nothing.
    """
    adapter = keras_data.data_adapter(np.arange(source.num_rows), batch_size=batch_size, shuffle=shuffle)
    batches = _RecordedBatches(adapter.get_torch_dataloader().batch_sampler, record_order)
    return torch.utils.data.DataLoader(_Rows(source), batch_sampler=batches, collate_fn=lambda batch: batch)


class _Rows(torch.utils.data.Dataset):
    """The rows of a source, read a batch at a time."""

    def __init__(self, source: Any):
        self._source = source

    def __len__(self) -> int:
        return self._source.num_rows

    def __getitems__(self, rows: np.ndarray) -> Any:
        return map_leaves(keras.ops.convert_to_tensor, read_batch(self._source, rows))


class _RecordedBatches(torch.utils.data.Sampler):
    """The row indices of the batches of an epoch, which are drawn, and recorded, before its first batch.

    They are drawn with the first batch: an iterator of PyTorch's loader draws a number of its own before.
    """

    def __init__(self, batches: torch.utils.data.Sampler, record_order: Callable | None):
        self._batches = batches
        self._record_order = record_order

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[np.ndarray]:
        batches = [np.asarray(rows, "int64") for rows in self._batches]
        if self._record_order is not None:
            self._record_order(np.concatenate(batches))
        yield from batches
