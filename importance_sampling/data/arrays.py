"""Read rows of arrays by index: arrays in memory, and lazily read arrays, of which only these rows are read."""

from __future__ import annotations

import copy
import functools
import hashlib
from typing import Any

import keras
import numpy as np

from importance_sampling import backend
from importance_sampling.data.batches import PeekableBatches, flatten
from importance_sampling.data.lazy_arrays import LazyArray, as_lazy_array, is_lazy

DIGEST_ROWS = 64


class ArraySource:
    """Arrays whose rows are read by index, in lists, tuples and dicts.

    Supported are NumPy arrays, tensors (also sparse and ragged ones) and lazily read arrays.

    Args:
        data: `(x, y, sample_weight)` of the training set; `y` and `sample_weight` may be None.

    Attributes:
        has_rows: bool, True: rows have an index.
        num_rows: int, the number of rows.
        columns: list of tensors and of objects that read rows on the host, among them `LazyArray`s: the leaves of the
            data that are not None; `(num_rows, ...)` each.
        pack: function from a list of leaves to `(x, y, sample_weight)`.
        structure: str, describes the nesting of the data.
        is_in_memory: bool, True if no leaf is lazily read.
    """

    has_rows = True

    def __init__(self, data: tuple):
        leaves, self.pack = flatten(data)
        self.columns = [as_lazy_array(leaf) if is_lazy(leaf) else backend.as_column(leaf) for leaf in leaves]
        self.structure = repr(keras.tree.map_structure(lambda leaf: leaf is not None, data))
        self.num_rows = int(leaves[0].shape[0])
        self.is_in_memory = not any(isinstance(column, LazyArray) for column in self.columns)

    @property
    def signature(self) -> tuple:
        """The structure, shapes and dtypes that compiled steps depend on."""
        return (self.structure, *map(backend.row_spec, self.columns))

    def raise_read_error(self) -> None:
        """Raise the error that a lazily read array raised when it was read, if there was one."""
        for column in self.columns:
            error = getattr(column, "failure", None)
            if isinstance(error, StopIteration):  # not the end of an epoch
                raise RuntimeError("Reading rows of the data passed to `fit` raised StopIteration") from error
            if error is not None:
                raise error from None

    @functools.cached_property
    def digest(self) -> str:
        """A hash of 64 rows and of the signature, str; equal arrays have equal digests."""
        rows = np.linspace(0, self.num_rows - 1, DIGEST_ROWS).astype("int64")
        digest = hashlib.blake2b(repr((self.num_rows, self.signature)).encode(), digest_size=16)
        for leaf in flatten(self.read(rows))[0]:
            digest.update(backend.as_bytes(leaf))
        return digest.hexdigest()

    def read(self, indices: Any) -> tuple:
        """Return rows as `(x, y, sample_weight)` of tensors.

        Args:
            indices: int `(n,)`, row indices.
        """
        return self.pack(
            backend.to_tensor(column.read(indices)) if is_on_host(column) else backend.gather(column, indices)
            for column in self.columns
        )

    def with_column(self, values: np.ndarray) -> ArraySource:
        """Return the same rows with one more column, which `pack` doesn't take.

        Args:
            values: `(num_rows, ...)`.
        """
        other = copy.copy(self)
        other.columns = [*self.columns, backend.as_column(values)]
        return other

    def batch(self, leaves: Any) -> Any:
        """Return rows of all columns as a batch in Keras's format, in which lists become tuples."""
        return keras.tree.lists_to_tuples(keras.utils.pack_x_y_sample_weight(*self.pack(leaves)))

    def example(self, size: int) -> tuple:
        """Return the first `size` rows, or all rows if there are fewer, as `(x, y, sample_weight)`."""
        return self.read(np.arange(min(size, self.num_rows)))

    def begin_pass(self, iterator: Any) -> None:
        """Do nothing: rows are read by index, independently of Keras's iterator."""

    def release(self) -> None:
        """Drop all references to the data."""
        self.columns = []

    def pools(self, pool_size: int, seed: int, start: int) -> ArrayPools:
        """Return an endless sequence of pools of candidates, independent of the batches that Keras draws.

        Args:
            pool_size: int, rows per pool.
            seed: int, determines the order of the rows.
            start: int >= 0, the number of the first pool; earlier pools are skipped.
        """
        return ArrayPools(backend.pool_iterator(self, pool_size, seed, start))


def read_column(column: Any, indices: np.ndarray) -> Any:
    """Return rows of a column of `ArraySource`: an array on the host, or a tensor.

    Args:
        column: one of `ArraySource.columns`.
        indices: int `(n,)`, row indices.
    """
    return column.read(indices) if is_on_host(column) else backend.gather(column, indices)


def is_on_host(column: Any) -> bool:
    """Return True if the rows of a column of `ArraySource` are read on the host, False for a tensor."""
    return hasattr(column, "read")


class ArrayPools:
    """An endless sequence of pools for compiled steps.

    Args:
        iterator: yields pools as `(indices, *columns)`: int64 `(pool_size,)`, and tensors `(pool_size, ...)`.
    """

    def __init__(self, iterator: Any):
        self.iterator = iterator

    def take(self, batches: PeekableBatches) -> None:
        """Do nothing: pools of arrays take no batches from Keras's iterator."""

    def fill(self, n: int, batches: PeekableBatches) -> int:
        """Return n: the iterator supplies any number of pools."""
        return n

    def resize(self, pool_size: int) -> None:
        """Stop reading and return None: pools of another size need another iterator."""
        self.close()

    def close(self) -> None:
        """Stop prefetching."""
        self.iterator = None


class EpochOrder:
    """The order in which the current epoch reads the rows.

    Attributes:
        rows: int64 `(num_rows,)`, row indices; empty before the first epoch.
    """

    def __init__(self) -> None:
        self.rows = np.zeros(0, "int64")

    def record(self, rows: np.ndarray) -> np.ndarray:
        """Record the order of an epoch that begins, and return it; called by the pipeline that reads the rows."""
        self.rows = np.array(rows)  # a copy: the pipeline may reuse its memory
        self.rows.flags.writeable = False
        return rows
