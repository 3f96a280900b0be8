"""The classes of a dataset's samples, for samplers that learn something of each class.

No source. Labels are read when they are first wanted and kept, 4 bytes a sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.samplers.table import READ_AT_ONCE


class Labels:
    """The class of every training sample, from integer or one-hot labels.

    Attributes:
        count: int, number of classes.

    Args:
        dataset: has `train_data`; its `output_size`, if it has one, is the number of classes.

    Raises:
        ValueError: its targets aren't classes.
    """

    def __init__(self, dataset: Any):
        self.rows = dataset.train_data
        self._known = np.full(len(self.rows), -1, "int32")
        width = classes_of(self.rows[:1][1])[1]
        if width is None and hasattr(dataset, "output_size"):
            width = max(2, dataset.output_size)  # two classes often share an output
        self.count = width or int(1 + max(self.of(idxs).max() for idxs in self._slices()))

    def of(self, indices: np.ndarray) -> np.ndarray:
        """Classes, int32 `(n,)`, of the samples `indices`, int `(n,)`.

        Raises:
            ValueError: a target is no class.
        """
        unknown = np.unique(indices[self._known[indices] < 0])
        if unknown.size:
            classes, _ = classes_of(self.rows[unknown][1])
            if classes.max() >= getattr(self, "count", np.inf):
                raise ValueError(
                    f"Labels must be below the number of classes, {self.count}. Received: label={classes.max()}"
                )
            self._known[unknown] = classes
        return self._known[indices]

    def _slices(self) -> list[np.ndarray]:
        return np.array_split(np.arange(len(self.rows)), -(-len(self.rows) // READ_AT_ONCE))


def classes_of(y: Any) -> tuple[np.ndarray, int | None]:
    """Classes from targets, int32 `(n,)`, and how many there are if the targets are one-hot.

    Args:
        y: whole numbers >= 0, `(n,)` or `(n, 1)`; or one-hot rows, `(n, classes)`.

    Raises:
        ValueError: the targets are neither.
    """
    values = np.asarray(y) if not isinstance(y, (list, tuple, dict)) else np.empty((0, 0, 0))
    if values.ndim == 2 and values.shape[1] > 1:
        if (((values == 0) | (values == 1)).all(axis=1) & (values.sum(axis=1) == 1)).all():
            return values.argmax(axis=1).astype("int32"), values.shape[1]
    elif values.ndim in (1, 2) and values.dtype.kind in "iufb" and ((values >= 0) & (values % 1 == 0)).all():
        return values.reshape(-1).astype("int32"), None
    raise ValueError(
        "Targets must be classes, as whole numbers or one-hot rows, for a sampler that learns by class; for others "
        f"take `HistorySampler` or `ModelSampler`. Received: y of shape {values.shape} and dtype {values.dtype}, "
        f"such as {values[:1]!r}"
    )
