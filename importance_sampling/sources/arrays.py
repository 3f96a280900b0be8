"""Arrays as a source: rows asked for by index, beside what Keras is to be handed in their place.

The batches of plain steps are Keras's own, or, of stores and where somebody listens, in Keras's order. The source reads
the candidates of importance steps from the same data, without a second copy of it, and never reads a store whole. Which
rows make up a pool, and when, is decided elsewhere. Source: `keras.src.trainers.data_adapters.array_data_adapter` for
what Keras does with arrays.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from importance_sampling import backend
from importance_sampling.backend import keras_data
from importance_sampling.scores import flat
from importance_sampling.sources.prepared import Prepared, as_batch_size
from importance_sampling.sources.stores import StoreColumn, as_column, is_store, with_stores_unread
from importance_sampling.utils.validation import is_int

SLICE = 65536
DIGESTED = 64  # rows
READ_WHOLE = (
    "Memory maps and other stores are read into memory whole, as by `keras.Model.fit`: a `tf.distribute` strategy "
    "feeds the model. To have them read batch by batch, make the model outside of the strategy's scope"
)


class ArraySource:
    """Rows of arrays: NumPy arrays, tensors (sparse and ragged too) and stores, in lists, tuples and dicts.

    Args:
        data: `(x, y, sample_weight)` of the training set, any of the last two None.

    Attributes:
        num_rows: int.
        columns: list of tensors and `StoreColumn`s, the leaves of the data that aren't None.
        pack: puts a list of such leaves back in place.
        is_resident: bool, whether all of them are in memory.
    """

    has_rows = True

    def __init__(self, data: tuple):
        leaves, self.pack = flat(data)
        self.columns = [
            as_column(leaf) if is_store(leaf) else backend.column(backend.resident(leaf)) for leaf in leaves
        ]
        self.structure = repr(keras.tree.map_structure(lambda leaf: leaf is not None, data))
        self.num_rows = int(leaves[0].shape[0])
        self.is_resident = not any(isinstance(column, StoreColumn) for column in self.columns)

    @property
    def signature(self) -> tuple:
        """What compiled steps depend on: structure, shapes and dtypes."""
        return (self.structure, *map(backend.kind, self.columns))

    @property
    def failure(self) -> BaseException | None:
        """What a store raised when it was read."""
        return next((column.failure for column in self.columns if getattr(column, "failure", None)), None)

    @functools.cached_property
    def digest(self) -> str:
        """Tells these data from others, by some of their rows: the same arrays, or equal ones, have the same."""
        rows = np.linspace(0, self.num_rows - 1, DIGESTED).astype("int64")
        digest = hashlib.blake2b(repr((self.num_rows, self.signature)).encode(), digest_size=16)
        for leaf in flat(self.read(rows))[0]:
            digest.update(backend.as_bytes(leaf))
        return digest.hexdigest()

    def read(self, indices: Any) -> tuple:
        """Rows by index, as `(x, y, sample_weight)` of tensors."""
        return self.pack(
            backend.resident(column.read(indices))
            if isinstance(column, StoreColumn)
            else backend.gather(column, indices)
            for column in self.columns
        )

    def batch(self, leaves: Any) -> Any:
        """Rows of the columns as a batch of Keras's; lists become tuples, as Keras has it."""
        return keras.tree.lists_to_tuples(keras.utils.pack_x_y_sample_weight(*self.pack(leaves)))

    def example(self, size: int) -> tuple:
        """The first rows, `size` of them or all."""
        return self.read(np.arange(min(size, self.num_rows)))

    def begin_pass(self, iterator: Any) -> None:
        """Do nothing: rows are read by index, whatever Keras's iterator reads."""

    def forget(self) -> None:
        """Let go of the data."""
        self.columns = []

    def pools(self, pool_size: int, seed: int, start: int, draw: Callable, give_back: Callable) -> ArrayPools:
        """Pools of candidates from the one numbered `start` on, whatever Keras draws in the meantime."""
        return ArrayPools(backend.pools(self, pool_size, seed, start))


class ArrayPools:
    """Pools without end, on their way to the compiled steps.

    Args:
        iterator: hands them over, as `(indices, *columns)`.
    """

    def __init__(self, iterator: Any):
        self.iterator = iterator

    def fill(self, n: int) -> int:
        """Have n pools ready."""
        return n

    def resized(self, pool_size: int) -> None:
        """Pools of another size are cut of passes anew."""
        self.close()

    def close(self) -> None:
        """Stop reading ahead."""
        self.iterator = None


class Order:
    """The order of the rows in a pass.

    Attributes:
        rows: int64 `(rows,)`, as the pass that began last has it.
    """

    def __init__(self) -> None:
        self.rows = np.zeros(0, "int64")

    def note(self, rows: np.ndarray) -> np.ndarray:
        """A pass begins; called by the pipeline that reads it."""
        self.rows = np.array(rows)  # what is handed over is the pipeline's own memory
        self.rows.flags.writeable = False
        return rows


def prepare_arrays(arguments: dict, model: keras.Model, by_row: bool) -> Prepared:
    """Make the arrays of a `fit` ready; see `prepare`."""
    data = tuple(arguments[name] for name in ("x", "y", "sample_weight"))
    leaves, _ = flat(data)
    warning = None
    if backend.is_distributed(model) and any(map(is_store, leaves)):
        data, warning = _read_whole(data), READ_WHOLE
        leaves, _ = flat(data)
    stored = any(map(is_store, leaves))
    arguments = with_stores_unread(arguments)
    num_rows = int(leaves[0].shape[0])
    validation_data = None
    if arguments["validation_split"] and arguments["validation_data"] is None:
        first, last = keras_data.split_rows(num_rows, arguments["validation_split"])
        validation_data, data, num_rows = _cut(data, num_rows - last, num_rows), _cut(data, 0, first), first
    keras_data.check_arrays(*_in_memory(data), class_weight=arguments["class_weight"])
    if validation_data is not None:
        keras_data.check_arrays(*_in_memory(validation_data))
        if not last:
            validation_data = _read_whole(validation_data)
        arguments = with_stores_unread(dict(arguments, validation_split=0.0, validation_data=validation_data))
    if not num_rows:
        return Prepared(dict(arguments, **dict(zip(("x", "y", "sample_weight"), _read_whole(data), strict=True))))
    batch_size = _batch_size(arguments, num_rows)
    # Floats become what Keras would make of them, once, and one tensor serves Keras and the candidates.
    data = tuple(_map(lambda leaf: leaf if is_store(leaf) else backend.resident(leaf), part) for part in data)
    source = ArraySource((*data[:2], _weights(data, arguments["class_weight"])))
    order = Order() if by_row else None
    if stored or by_row:
        x = backend.passes(source, batch_size, arguments["shuffle"], order and order.note)
        arguments.update(x=x, y=None, sample_weight=None, class_weight=None, shuffle=False)
    else:
        arguments.update(zip(("x", "y", "sample_weight"), data, strict=True))
    prepared = Prepared(arguments, source=source)
    prepared.batch_size = batch_size
    prepared.num_batches = math.ceil(num_rows / batch_size)
    prepared.order = order
    prepared.warning = warning
    return prepared


def _batch_size(arguments: dict, num_rows: int) -> int:
    """Return the batch size of Keras; raise its error for one that it refuses."""
    steps = arguments["steps_per_epoch"]
    batch_size = arguments["batch_size"] or (math.ceil(num_rows / steps) if steps else 32)
    if not is_int(batch_size) or batch_size < 1:
        keras_data.check_batch_size(num_rows, batch_size)
    return as_batch_size(batch_size)


def _read_whole(data: tuple) -> tuple:
    """The data without stores: a strategy's iterators read ahead, in threads that don't end where they call Python."""
    return tuple(
        _map(lambda leaf: as_column(leaf).read(np.arange(leaf.shape[0])) if is_store(leaf) else leaf, part)
        for part in data
    )


def _in_memory(data: tuple) -> tuple:
    """Return the data with arrays of zeros, which take no memory, in the place of stores that Keras doesn't take."""

    def stand_in(leaf: Any) -> Any:
        if backend.has_rows(leaf):
            return leaf
        return np.broadcast_to(np.zeros((), StoreColumn(leaf).dtype), leaf.shape)

    return tuple(_map(stand_in, part) for part in data)


def _cut(data: tuple, start: int, stop: int) -> tuple:
    def cut(leaf: Any) -> Any:
        if not is_store(leaf):
            return backend.cut(leaf, start, stop)
        rows = range(leaf.shape[0])[start:stop]
        return as_column(leaf).cut(rows.start, rows.stop)

    return tuple(_map(cut, part) for part in data)


def _map(function: Callable, structure: Any) -> Any:
    return keras.tree.map_structure(lambda leaf: None if leaf is None else function(leaf), structure)


def _weights(data: tuple, class_weight: dict | None) -> Any:
    """The user's weights as Keras deals them out: one array per output, class weights as sample weights."""
    _, y, sample_weight = data
    if class_weight is not None:
        y = as_column(y) if is_store(y) else y
        weights = np.empty(y.shape[0], keras.config.floatx())
        for start in range(0, len(weights), SLICE):
            stop = min(start + SLICE, len(weights))
            rows = y.read(np.arange(start, stop)) if isinstance(y, StoreColumn) else y[start:stop]
            weights[start:stop] = _class_weights(keras.ops.convert_to_numpy(rows), class_weight)
        return weights
    if sample_weight is not None and keras.tree.is_nested(y) and not keras.tree.is_nested(sample_weight):
        return _map(lambda _: sample_weight, y)
    return sample_weight


def _class_weights(y: np.ndarray, class_weight: dict) -> np.ndarray:
    if y.ndim > 1:
        y = y.argmax(axis=-1) if y.shape[-1] != 1 else y[..., 0]
    classes, places = np.unique(np.round(y).astype("int32"), return_inverse=True)
    return keras_data.class_weights_to_sample_weights(classes, class_weight)[places.ravel()]
