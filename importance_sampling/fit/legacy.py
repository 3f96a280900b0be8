"""`fit_generator` and `fit_dataset`, the methods of earlier versions of the method's library, on top of `fit`.

`fit_generator` rearranges batches to the requested size. `fit_dataset` passes a data set to `fit` as lazily read
arrays. And the deprecated name of an attribute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from importance_sampling.data.batches import flatten
from importance_sampling.datasets.base import check_dataset
from importance_sampling.datasets.generator import StreamRows
from importance_sampling.datasets.rows_as_arrays import lazy_arrays
from importance_sampling.utils.warn import warn_renamed


class LegacyFit:
    """Adds `fit_generator`, `fit_dataset` and `open_steps` to a class that has a `fit` with Keras's arguments."""

    importance_steps: int

    @property
    def open_steps(self) -> int:
        """Deprecated name of `importance_steps`."""
        warn_renamed("trainer.open_steps", "trainer.importance_steps")
        return self.importance_steps

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
        """Train on batches of any size, rearranged into batches of `batch_size`.

        Args:
            train: a `keras.utils.PyDataset`, or a generator of `(x, y)` or `(x, y, sample_weight)`.
            steps_per_epoch: int or None, default None; steps per epoch. None: an epoch is one pass over `train`, which
                must be finite.
            batch_size: int >= 1, default 32; rows per step.
            Others: as for `fit`.

        Returns:
            Keras's `History`, as `fit` does.
        """
        x, length = rebatch(train, batch_size)
        return self.fit(
            x,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_data=validation_data,
            shuffle=isinstance(x, keras.utils.PyDataset),  # rearranged batches arrive in a fixed order
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
        """Train on the training rows of a data set and validate on its test rows. Rows are read on demand.

        Args:
            dataset: a `datasets.BaseDataset`. A `GeneratorDataset` is read as by `fit_generator`.
            batch_size: int >= 1, default 32; rows per step.
            Others: as for `fit`.

        Returns:
            Keras's `History`, as `fit` does.

        Raises:
            ValueError: `dataset` isn't a `BaseDataset`.
        """
        check_dataset(dataset)
        rows = dataset.train_data
        streams = isinstance(rows, StreamRows)
        x, y = (_rebatched(rows.batches(), batch_size), None) if streams else lazy_arrays(rows)
        return self.fit(
            x,
            y,
            batch_size=None if streams else batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_data=lazy_arrays(dataset.test_data) if len(dataset.test_data) else None,
            shuffle=not streams,
            steps_per_epoch=steps_per_epoch,
            on_sample=on_sample,
            on_scores=on_scores,
        )


def rebatch(train: Any, batch_size: int) -> tuple[Any, int | None]:
    """Rearrange batches of any size into batches of one size, in the same order.

    Args:
        train: a `keras.utils.PyDataset`, or an iterable of `(x, y)` or `(x, y, sample_weight)`.
        batch_size: int >= 1, rows per batch; the last batch may have fewer.

    Returns:
        A tuple: the argument `x` for `fit`, and the number of batches per epoch, None if it is unknown or if `train`
        itself determines it.
    """
    if not isinstance(train, keras.utils.PyDataset):
        return _rebatched(train, batch_size), None
    length = train.num_batches
    if length is None:
        return _rebatched(_repeated(train), batch_size), None
    first = _rows(train[0])
    if first == batch_size or not length:
        return train, None
    rows = first * (length - 1) + _rows(train[length - 1])
    return _rebatched(_repeated(train), batch_size), math.ceil(rows / batch_size)


def _repeated(train: keras.utils.PyDataset) -> Iterator[tuple]:
    while True:
        i = 0
        while train.num_batches is None or i < train.num_batches:
            yield train[i]
            i += 1
        train.on_epoch_end()


def _rebatched(batches: Iterable[tuple], batch_size: int) -> Iterator[tuple]:
    pending: list = []
    for batch in batches:
        pending.append(keras.tree.map_structure(np.asarray, batch))
        if sum(map(_rows, pending)) < batch_size:
            continue
        joined = _joined(pending)
        rows = _rows(joined)
        for start in range(0, rows - batch_size + 1, batch_size):
            yield keras.tree.map_structure(lambda part, start=start: part[start : start + batch_size], joined)
        rest = rows % batch_size
        pending = [keras.tree.map_structure(lambda part, rest=rest: part[len(part) - rest :], joined)] if rest else []
    if pending:
        yield _joined(pending)


def _joined(batches: list[tuple]) -> tuple:
    if len(batches) == 1:
        return batches[0]
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *batches)


def _rows(batch: tuple) -> int:
    return len(flatten(batch)[0][0])
