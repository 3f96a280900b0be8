"""`fit_generator` and `fit_dataset`: batches cut anew, a dataset as arrays that stay where they are.

The two methods are those of earlier versions of the method's library, in front of the `fit` of Keras. Nothing is
sampled here.
"""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from importance_sampling.datasets.base import check_dataset
from importance_sampling.datasets.generator import StreamRows
from importance_sampling.fit.user_fit import KERAS_FIT
from importance_sampling.scores import flat


class Fronts:
    """What has a `fit` of Keras's arguments, with two more methods in front of it."""

    def fit_generator(
        self,
        train: Any,
        steps_per_epoch: int | None = None,
        batch_size: int = 32,
        epochs: int = 1,
        verbose: str | int = 1,
        callbacks: Any = None,
        validation_data: Any = None,
        validation_steps: int | None = None,
        on_sample: Callable | None = None,
        on_scores: Callable | None = None,
    ) -> keras.callbacks.History:
        """`fit` on batches as they come, cut anew to `batch_size`.

        Args:
            train: a `keras.utils.PyDataset`, or a generator of `(x, y)` or `(x, y, sample_weight)`.
            steps_per_epoch: int; None: a pass over `train`, which must end.
            batch_size: int, default 32; of a gradient step, whatever the size of the batches that come.
            Others: as for `fit`.

        Returns:
            Keras's `History`, as `fit` does.
        """
        x, length = batches_of(train, batch_size)
        return self.fit(
            x,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_data=validation_data,
            shuffle=isinstance(x, keras.utils.PyDataset),  # batches that are cut anew come in their own order
            steps_per_epoch=steps_per_epoch or length,
            validation_steps=validation_steps,
            on_sample=on_sample,
            on_scores=on_scores,
        )

    def fit_dataset(
        self,
        dataset: Any,
        steps_per_epoch: int | None = None,
        batch_size: int = 32,
        epochs: int = 1,
        verbose: str | int = 1,
        callbacks: Any = None,
        on_sample: Callable | None = None,
        on_scores: Callable | None = None,
    ) -> keras.callbacks.History:
        """`fit` on the training rows of a dataset, validated on its test rows, read as they are asked for.

        Args:
            dataset: a `datasets.BaseDataset`; a `GeneratorDataset` is read as `fit_generator` reads.
            batch_size: int, default 32.
            Others: as for `fit`.

        Returns:
            Keras's `History`, as `fit` does.

        Raises:
            ValueError: `dataset` is of another kind.
        """
        check_dataset(dataset)
        streams = isinstance(dataset.train_data, StreamRows)
        x, y = (_cut(dataset.train_data.batches(), batch_size), None) if streams else arrays_of(dataset.train_data)
        return self.fit(
            x,
            y,
            batch_size=None if streams else batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_data=arrays_of(dataset.test_data) if len(dataset.test_data) else None,
            shuffle=not streams,
            steps_per_epoch=steps_per_epoch,
            on_sample=on_sample,
            on_scores=on_scores,
        )


def given(arguments: dict) -> dict:
    """The arguments of a `fit` without those at their defaults.

    A `fit` of the model's own may know fewer of them, and one that wraps Keras's may tell the two apart.
    """
    defaults = inspect.signature(KERAS_FIT).parameters
    return {name: value for name, value in arguments.items() if value is not defaults[name].default}


def arrays_of(rows: Any) -> tuple:
    """The rows of a dataset as `(x, y)` of arrays that are read as rows are asked for.

    Args:
        rows: `rows[idxs]` is `(x, y)`, and `len(rows)` their number.

    Returns:
        `(x, y)`, the structures of a row with a `RowsOf` in the place of every array.
    """
    reader = _Reader(rows)
    example = rows[np.array([0])]
    leaves = [RowsOf(reader, number, np.asarray(leaf)) for number, leaf in enumerate(keras.tree.flatten(example))]
    x, y = keras.tree.pack_sequence_as(example, leaves)
    return x, y


class RowsOf:
    """One array of a dataset: it has `shape`, `dtype` and `len`, and `array[idxs]` reads rows.

    Args:
        reader: reads rows of all arrays.
        number: int, which of them this is.
        example: `(1, ...)`, a row of it.
    """

    def __init__(self, reader: _Reader, number: int, example: np.ndarray):
        self._reader = reader
        self._number = number
        self.shape = (len(reader.rows), *example.shape[1:])
        self.dtype = example.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, idxs: Any) -> np.ndarray:
        return np.asarray(self._reader.read(idxs)[self._number])


class _Reader:
    """Reads rows; whoever asks for the same rows of another array right after gets what was read."""

    def __init__(self, rows: Any):
        self.rows = rows
        self._lock = threading.Lock()  # Keras's pipeline and ours may read at a time
        self._idxs: Any = None
        self._leaves: list = []

    def read(self, idxs: Any) -> list:
        with self._lock:
            if self._idxs is None or not np.array_equal(self._idxs, idxs):
                self._leaves = keras.tree.flatten(self.rows[idxs])
                self._idxs = np.array(idxs)
            return self._leaves


def batches_of(train: Any, batch_size: int) -> tuple[Any, int | None]:
    """Batches of one size, cut from batches of any size, in their order.

    Args:
        train: a `keras.utils.PyDataset`, or an iterable of `(x, y)` or `(x, y, sample_weight)`.
        batch_size: int.

    Returns:
        What `fit` takes as `x`, and how many batches a pass has, None where only `train` knows.
    """
    if not isinstance(train, keras.utils.PyDataset):
        return _cut(train, batch_size), None
    length = train.num_batches
    if length is None:
        return _cut(_endless(train), batch_size), None
    first = _rows(train[0])
    if first == batch_size or not length:
        return train, None
    rows = first * (length - 1) + _rows(train[length - 1])
    return _cut(_endless(train), batch_size), math.ceil(rows / batch_size)


def _endless(train: keras.utils.PyDataset) -> Iterator[tuple]:
    while True:
        number = 0
        while train.num_batches is None or number < train.num_batches:
            yield train[number]
            number += 1
        train.on_epoch_end()


def _cut(batches: Iterable[tuple], batch_size: int) -> Iterator[tuple]:
    held: list = []
    for batch in batches:
        held.append(keras.tree.map_structure(np.asarray, batch))
        if sum(map(_rows, held)) < batch_size:
            continue
        joined = keras.tree.map_structure(lambda *parts: np.concatenate(parts), *held) if len(held) > 1 else held[0]
        rows = _rows(joined)
        for start in range(0, rows - batch_size + 1, batch_size):
            yield keras.tree.map_structure(lambda part, start=start: part[start : start + batch_size], joined)
        rest = rows % batch_size
        held = [keras.tree.map_structure(lambda part, rest=rest: part[len(part) - rest :], joined)] if rest else []
    if held:
        yield keras.tree.map_structure(lambda *parts: np.concatenate(parts), *held)


def _rows(batch: tuple) -> int:
    return len(flat(batch)[0][0])
