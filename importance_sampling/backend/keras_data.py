"""The private names of Keras's data: its adapters for `fit`, and how it slices and converts arrays.

As in `keras_internals`, each function stands for one thing that Keras has no public name for, on every Keras from 3.8
on, and has a test of its contract. Source: `keras.src.trainers.data_adapters`, of Keras 3.8, 3.15 and the nightly build
of 3.16.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from importance_sampling.backend.keras_internals import private_module

_adapters = private_module("keras.src.trainers.data_adapters", "get_data_adapter", "is_torch_dataloader")
_adapter = private_module("keras.src.trainers.data_adapters.data_adapter", "DataAdapter")
_slicing = private_module(
    "keras.src.trainers.data_adapters.array_slicing",
    "TensorflowSparseWrapper",
    "can_slice_array",
    "convert_to_sliceable",
    "slice_tensorflow_sparse_wrapper",
    "to_tensorflow_sparse_wrapper",
    "train_validation_split",
)
_types = private_module(
    "keras.src.trainers.data_adapters.data_adapter_utils",
    "class_weight_to_sample_weights",
    "is_jax_array",
    "is_jax_sparse",
    "is_scipy_sparse",
    "is_tensorflow_ragged",
    "is_tensorflow_sparse",
    "is_tensorflow_tensor",
    "is_torch_tensor",
)


# The method of an adapter by which `fit` reads its batches.
_BATCHES = {"tensorflow": "get_tf_dataset", "jax": "get_jax_iterator", "torch": "get_torch_dataloader"}


def is_array_in_memory(value: Any) -> bool:
    """Return True for an array of NumPy, a framework (sparse and ragged ones too), pandas or scipy."""
    return (
        isinstance(value, np.ndarray)
        or _is_pandas(value)
        or is_tensorflow_tensor(value)
        or _types.is_jax_array(value)
        or _types.is_torch_tensor(value)
        or _types.is_scipy_sparse(value)
    )


def _is_pandas(value: Any) -> bool:
    return any(
        cls.__name__ in ("DataFrame", "Series") and cls.__module__.split(".")[0] == "pandas"
        for cls in type(value).__mro__
    )


def is_tensorflow_tensor(value: Any) -> bool:
    """Return True for a tensor of TensorFlow, dense, sparse or ragged."""
    return _types.is_tensorflow_tensor(value)


def is_sparse_or_ragged(value: Any) -> bool:
    """Return True for a sparse or ragged array of a framework or scipy."""
    return (
        _types.is_scipy_sparse(value)
        or _types.is_tensorflow_sparse(value)
        or _types.is_tensorflow_ragged(value)
        or _types.is_jax_sparse(value)
        or bool(getattr(value, "is_sparse", False))
    )


def is_array_for_fit(value: Any) -> bool:
    """Return True for an array that `fit` takes as such: anything with rows that Keras can slice."""
    return _slicing.can_slice_array(value)


def is_loader_for_fit(value: Any) -> bool:
    """Return True for a loader of batches, of PyTorch or Grain, that `fit` takes (of Grain since Keras 3.11)."""
    is_grain = getattr(_adapters, "is_grain_dataset", lambda value: False)
    return _adapters.is_torch_dataloader(value) or is_grain(value)


def slice_rows(array: Any, start: int, stop: int) -> Any:
    """Return the rows of an array from `start` up to `stop`, floats in `keras.config.floatx()`, as `fit` slices it."""
    return _slicing.convert_to_sliceable(array)[start:stop]


def to_numpy_array(array: Any) -> np.ndarray:
    """Return a dense array of NumPy, a framework or pandas as `fit` converts it, floats in the default dtype."""
    sliceable = _slicing.convert_to_sliceable(array, target_backend="numpy")
    return np.asarray(sliceable.convert_to_numpy(sliceable[:]))


def to_pipeline_array(array: Any) -> Any:
    """Return an array in the form in which `fit` puts it into its `tf.data` pipeline, floats in the default dtype.

    Returns:
        A NumPy array or tensor; a sparse array as `to_sparse_rows` returns it.
    """
    return _slicing.convert_to_sliceable(array, target_backend="tensorflow")


def is_sparse_rows(value: Any) -> bool:
    """Return True for a result of `to_sparse_rows`."""
    return isinstance(value, _slicing.TensorflowSparseWrapper)


def to_sparse_rows(tensor: Any) -> Any:
    """Return a sparse tensor in a form that rows can be gathered from; its field `sparse` is the tensor."""
    return _slicing.to_tensorflow_sparse_wrapper(tensor)


def gather_sparse_rows(rows: Any, indices: Any) -> Any:
    """Return rows of a result of `to_sparse_rows`, by index, as a sparse tensor."""
    return _slicing.slice_tensorflow_sparse_wrapper(rows, indices)


def data_adapter(x: Any, **arguments: Any) -> Any:
    """Return the object by which `fit` reads `x`; it has `get_tf_dataset`, `on_epoch_begin` and `on_epoch_end`.

    Args:
        x: as for `keras.Model.fit`.
        **arguments: `batch_size`, `shuffle` and `class_weight`, as for `fit`.
    """
    return _adapters.get_data_adapter(x=x, **arguments)


def host_adapter(batches: Callable[[], Iterator], rows: int, batch_size: int) -> Any:
    """Return an object by which `fit` on JAX reads batches on the host; an epoch of it may end early.

    Args:
        batches: function that returns an iterator over the batches of an epoch, structures of NumPy arrays.
        rows: int, the number of rows of an epoch.
        batch_size: int.
    """
    return _HostAdapter(batches, rows, batch_size)


class _HostAdapter(_adapter.DataAdapter):
    def __init__(self, batches: Callable[[], Iterator], rows: int, batch_size: int):
        self.batches = batches
        self.rows = rows
        self.size = batch_size

    def get_jax_iterator(self) -> Iterator:
        return self.batches()

    @property
    def num_batches(self) -> int:
        return -(-self.rows // self.size)

    @property
    def batch_size(self) -> int:
        return self.size

    @property
    def has_partial_batch(self) -> bool:
        return self.rows % self.size > 0

    @property
    def partial_batch_size(self) -> int | None:
        return self.rows % self.size or None


def adapter_batches(adapter: Any) -> Any:
    """Return an iterable of the batches of an epoch, as `fit` reads them from a result of `data_adapter`."""
    return getattr(adapter, _BATCHES[keras.config.backend()])()


def unshared(loader: Any) -> Any:
    """Return a copy of a PyTorch loader whose users would share one iterator; any other value as it is."""
    if not getattr(loader, "persistent_workers", False):
        return loader
    loader = copy.copy(loader)
    loader._iterator = None
    return loader


def class_weights_to_sample_weights(targets: Any, class_weight: dict) -> np.ndarray:
    """Return the sample weights that `fit` derives from class weights, float `(n,)`; raise its errors."""
    return _types.class_weight_to_sample_weights(targets, class_weight)


def split_rows(rows: int, validation_split: float) -> tuple[int, int]:
    """Return how many of the first rows `fit` trains on, and how many of the last rows it validates on.

    Raises:
        ValueError: one of them is none, as `fit` raises it.
    """
    stand_in = np.broadcast_to(np.False_, (rows,))
    first, last = _slicing.train_validation_split(stand_in, validation_split=validation_split)
    return len(first), len(last)


def check_arrays(x: Any, y: Any, sample_weight: Any, class_weight: dict | None = None) -> None:
    """Raise the errors that `fit` raises for arrays and weights that it refuses; read no more than a row.

    Args:
        x, y, sample_weight: as for `keras.Model.fit`, arrays in memory or memory maps.
        class_weight: as for `keras.Model.fit`; weights that aren't numbers are not checked.
    """
    if class_weight is not None:
        row = keras.tree.map_structure(_first_row, y)
        weight = None if sample_weight is None else np.ones(1)
        _adapters.get_data_adapter(x=np.zeros(1), y=row, sample_weight=weight, class_weight=class_weight)
    _adapters.get_data_adapter(x=x, y=y, sample_weight=sample_weight)


def check_batch_size(rows: int, batch_size: Any) -> None:
    """Raise the errors that `fit` raises for a batch size that it refuses."""
    next(iter(adapter_batches(_adapters.get_data_adapter(x=np.arange(rows), batch_size=batch_size))), None)


def _first_row(array: Any) -> Any:
    if array is None or isinstance(array, np.ndarray):
        return array if array is None else array[:1]
    return slice_rows(array, 0, 1)
