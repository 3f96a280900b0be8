"""Sources: whatever the user handed to `fit`, as candidates asked for by index, beside what Keras is to be handed.

Keras draws the batches of plain steps by its own means. A source reads the candidates of importance steps from the
same data, without a second copy of it, and never reads a memory map whole. Which rows make up a pool, and when, is
decided elsewhere. Source: `keras.src.trainers.data_adapters.array_data_adapter` for what Keras does with arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from importance_sampling import backend
from importance_sampling.scores import flat

SLICE = 65536


class MappedColumn:
    """A memory-mapped array whose rows are read as they are asked for, in the dtype that Keras would make of them.

    Args:
        array: the memory map; `(rows, ...)`.
    """

    def __init__(self, array: np.ndarray):
        self.array = array
        self.shape = array.shape
        self.dtype = keras_dtype(array.dtype)

    def read(self, indices: Any) -> np.ndarray:
        """Rows, in the order asked for, read in the order they are stored in."""
        order = np.argsort(indices, kind="stable")
        rows = np.empty((len(order), *self.shape[1:]), self.dtype)
        rows[order] = self.array[np.asarray(indices)[order]]
        return rows


class ArraySource:
    """Rows of arrays: NumPy arrays, tensors, memory maps, in lists, tuples and dicts.

    Args:
        data: `(x, y, sample_weight)` of the training set, any of the last two None.

    Attributes:
        num_rows: int.
        columns: list of tensors and `MappedColumn`s, the leaves of the data that aren't None.
        pack: puts a list of such leaves back in place.
    """

    def __init__(self, data: tuple):
        leaves, self.pack = flat(data)
        self.columns = [MappedColumn(leaf) if is_mapped(leaf) else leaf for leaf in leaves]
        self.structure = repr(keras.tree.map_structure(lambda leaf: leaf is not None, data))
        self.num_rows = int(leaves[0].shape[0])

    def read(self, indices: Any) -> tuple:
        """Rows by index, as `(x, y, sample_weight)` of tensors."""
        return self.pack(
            backend.resident(column.read(np.asarray(indices)))
            if isinstance(column, MappedColumn)
            else backend.gather(column, indices)
            for column in self.columns
        )


class Prepared:
    """Data made ready: the source, and what Keras's `fit` gets in its place.

    Attributes:
        source: `ArraySource`, or None where there are no candidates to be had.
        reason: why there are none, a clause; None where Keras will raise anyway.
        arguments: dict, the arguments for `keras.Model.fit`.
        batch: None, or a function from the batch that Keras draws to `(indices, batch)`: Keras drew row numbers.
        num_batches: int, batches in a pass.
    """

    def __init__(self, arguments: dict, reason: str | None = None):
        self.source: ArraySource | None = None
        self.reason = reason
        self.arguments = arguments
        self.batch: Callable | None = None
        self.batch_size = arguments["batch_size"] or 32
        self.num_batches = 0

    @property
    def signature(self) -> tuple:
        """What compiled steps depend on: structure, shapes and dtypes."""
        if self.source is None:
            return ()
        return (self.source.structure, *((str(c.dtype), tuple(c.shape[1:])) for c in self.source.columns))


def prepare(arguments: dict, by_row: bool) -> Prepared:
    """Make the data of a `fit` ready.

    Args:
        arguments: all arguments of `keras.Model.fit`, by name.
        by_row: have Keras draw row numbers, so that it is known which rows plain steps train on. Memory maps always
            are drawn so.

    Returns:
        `Prepared`. Arguments that Keras refuses are left for it to refuse.
    """
    data = tuple(arguments[name] for name in ("x", "y", "sample_weight"))
    leaves, _ = flat(data)
    if arguments["x"] is None or not all(_is_array(leaf) for leaf in leaves):
        return Prepared(arguments, "candidates are only drawn from arrays so far")
    rows = {int(leaf.shape[0]) if len(leaf.shape) else -1 for leaf in leaves}
    if len(rows) != 1 or rows == {0} or rows == {-1}:
        return Prepared(arguments)
    if arguments["class_weight"] is not None and (arguments["sample_weight"] is not None or _nested(data[1])):
        return Prepared(arguments)
    num_rows = rows.pop()
    mapped = any(is_mapped(leaf) for leaf in leaves)
    arguments = unread(arguments)
    if arguments["validation_split"] and arguments["validation_data"] is None:
        split = math.floor(num_rows * (1.0 - arguments["validation_split"]))
        if not 0 < split < num_rows:
            return Prepared(_row_arguments(arguments, data, num_rows) if mapped else arguments)
        held_out = tuple(_map(lambda t: t[split:], part) for part in data)
        data = tuple(_map(lambda t: t[:split], part) for part in data)
        arguments.update(validation_split=0.0, validation_data=_mapped_validation(arguments, held_out))
        num_rows = split
    # Floats become what Keras would make of them, once, and one tensor serves Keras and the candidates.
    data = tuple(_map(lambda t: t if is_mapped(t) else _as_resident(t), part) for part in data)
    arguments.update(zip(("x", "y", "sample_weight"), data, strict=True))

    prepared = Prepared(arguments)
    steps = arguments["steps_per_epoch"]
    prepared.batch_size = arguments["batch_size"] or (math.ceil(num_rows / steps) if steps else 32)
    prepared.num_batches = math.ceil(num_rows / prepared.batch_size)
    weights = _weights(data, arguments["class_weight"])
    prepared.source = ArraySource((data[0], data[1], weights))
    if mapped or by_row:
        prepared.batch = _reader(prepared.source, data[1])
        if any(is_mapped(leaf) for leaf in flat((data[1],))[0]) and arguments["class_weight"] is not None:
            arguments.update(sample_weight=weights, class_weight=None)
        prepared.arguments = _row_arguments(arguments, data, num_rows)
    return prepared


class MappedBatches(keras.utils.PyDataset):
    """Batches of memory-mapped validation data, in order, read as they are asked for."""

    def __init__(self, data: tuple, batch_size: int):
        super().__init__()
        self.leaves, self.pack = flat(data)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(self.leaves[0].shape[0] / self.batch_size)

    def __getitem__(self, index: int) -> tuple:
        start = index * self.batch_size
        rows = [np.asarray(leaf[start : start + self.batch_size]) for leaf in self.leaves]
        x, y, sample_weight = self.pack(rows_.astype(keras_dtype(rows_.dtype), copy=False) for rows_ in rows)
        packed = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
        return packed if isinstance(packed, tuple) else (packed,)


def unread(arguments: dict) -> dict:
    """The arguments of a `fit`, memory-mapped validation data made into what is read as it is asked for."""
    return dict(arguments, validation_data=_mapped_validation(arguments, arguments["validation_data"]))


def is_mapped(array: Any) -> bool:
    """Whether an array is, or looks into, a memory map."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


def keras_dtype(dtype: Any) -> np.dtype:
    """The dtype that Keras's pipeline hands on: floats become `floatx`."""
    dtype = np.dtype(dtype)
    return np.dtype(keras.config.floatx()) if dtype.kind == "f" else dtype


def _is_array(leaf: Any) -> bool:
    if isinstance(leaf, np.ndarray):
        return leaf.dtype.kind in "fiub"
    return backend.is_dense(leaf)


def _nested(structure: Any) -> bool:
    return isinstance(structure, (list, tuple, dict))


def _map(function: Callable, structure: Any) -> Any:
    return keras.tree.map_structure(lambda leaf: None if leaf is None else function(leaf), structure)


def _as_resident(array: Any) -> Any:
    if isinstance(array, np.ndarray):
        array = array.astype(keras_dtype(array.dtype), copy=False)
    return backend.resident(array)


def _weights(data: tuple, class_weight: dict | None) -> Any:
    """The user's weights as Keras deals them out: one array per output, class weights as sample weights."""
    _, y, sample_weight = data
    if class_weight is not None and y is not None:
        weights = np.empty(y.shape[0], keras.config.floatx())
        for start in range(0, len(weights), SLICE):
            weights[start : start + SLICE] = _class_weights(np.asarray(y[start : start + SLICE]), class_weight)
        return backend.resident(weights)
    if sample_weight is not None and _nested(y) and not _nested(sample_weight):
        return _map(lambda _: sample_weight, y)
    return sample_weight


def _class_weights(y: np.ndarray, class_weight: dict) -> np.ndarray:
    if y.ndim > 1:
        y = y.argmax(axis=-1) if y.shape[-1] != 1 else y[..., 0]
    classes, places = np.unique(np.round(y).astype("int32"), return_inverse=True)
    return np.array([class_weight.get(int(c), 1.0) for c in classes], keras.config.floatx())[places.ravel()]


def _mapped_validation(arguments: dict, validation_data: Any) -> Any:
    """Validation data that Keras won't read whole; what isn't memory-mapped stays as it is."""
    if not isinstance(validation_data, (tuple, list)) or not any(map(is_mapped, keras.tree.flatten(validation_data))):
        return validation_data
    batch_size = arguments["validation_batch_size"] or arguments["batch_size"] or 32
    return MappedBatches(keras.utils.unpack_x_y_sample_weight(validation_data), batch_size)


def _row_arguments(arguments: dict, data: tuple, num_rows: int) -> dict:
    """The arguments with row numbers for x, and for whatever of y is memory-mapped."""
    numbers = np.arange(num_rows)
    return dict(arguments, x=numbers, y=_map(lambda t: numbers if is_mapped(t) else t, data[1]))


def _reader(source: ArraySource, y: Any) -> Callable:
    """From the batch of row numbers that Keras drew to the indices and the rows."""

    def read(batch: Any) -> tuple:
        numbers, _, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        x, y, _ = source.read(numbers)
        batch = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
        return np.asarray(numbers), keras.tree.lists_to_tuples(batch)  # as Keras does

    return read
