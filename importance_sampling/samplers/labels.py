"""The class labels of a dataset's samples, for samplers that learn per class."""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.samplers.table import ROWS_PER_READ
from importance_sampling.utils.classes import parse_classes


class Labels:
    """The class of every training sample, from integer or one-hot targets.

    A label is read from the dataset when it is first needed, and cached in 4 bytes per sample.

    Attributes:
        num_classes: int.

    Args:
        dataset: has `train_data`. Its `output_size`, if it has one, is the number of classes.

    Raises:
        ValueError: the targets are not classes.
    """

    def __init__(self, dataset: Any):
        self._rows = dataset.train_data
        self._cached = np.full(len(self._rows), -1, "int32")  # by row index; -1: not read yet
        width = parse_classes(self._targets(np.arange(1)))[1]
        if width is None and hasattr(dataset, "output_size"):
            width = max(2, dataset.output_size)  # binary classifiers have one output
        self.num_classes = width or int(1 + max(self.classes(indices).max() for indices in self._slices()))

    def classes(self, indices: np.ndarray) -> np.ndarray:
        """Return the classes of samples.

        Args:
            indices: int `(n,)`, row indices.

        Returns:
            int32 `(n,)`.

        Raises:
            ValueError: a target is not a class.
        """
        unread = np.unique(indices[self._cached[indices] < 0])
        for missing in np.array_split(unread, -(-len(unread) // ROWS_PER_READ)) if len(unread) else ():
            classes, _ = parse_classes(self._targets(missing))
            if classes.max() >= getattr(self, "num_classes", np.inf):
                raise ValueError(
                    f"Labels must be below the number of classes, {self.num_classes}. Received: label={classes.max()}"
                )
            self._cached[missing] = classes
        return self._cached[indices]

    def _targets(self, indices: np.ndarray) -> Any:
        """Return the targets of samples, without their inputs if the rows can be read so."""
        return self._rows.targets(indices) if hasattr(self._rows, "targets") else self._rows[indices][1]

    def _slices(self) -> list[np.ndarray]:
        """Return all row indices in parts of at most `ROWS_PER_READ`."""
        return np.array_split(np.arange(len(self._rows)), -(-len(self._rows) // ROWS_PER_READ))
