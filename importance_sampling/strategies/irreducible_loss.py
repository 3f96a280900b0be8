"""The loss of each sample that training can't reduce: that of a model which hasn't seen its label."""

from __future__ import annotations

import hashlib
from typing import Any

import keras
import numpy as np

from importance_sampling import backend
from importance_sampling.data.arrays import ArraySource, is_on_host
from importance_sampling.data.batches import flatten
from importance_sampling.labels.model_copy import ModelCopy
from importance_sampling.labels.out_of_sample import OutOfSample, array_source, cross_fit, fit_holdout

SHARE_OF_EPOCHS = 4  # a copy is trained for at most a quarter of the epochs of the `fit`
MOST_EPOCHS = 10
BYTES_PER_READ = 2**24


class IrreducibleLoss:
    """The irreducible losses of a training set: the user's own, or those of copies of the model.

    Copies are made before the first step of a `fit`, and trained in it, so that a saved state with the losses makes the
    training superfluous.

    Args:
        values: float `(rows,)`, the losses; None: they are measured.
        holdout: `(x, y)` or `(x, y, sample_weight)`, a data set for a copy to train on; None: two copies are trained on
            a half of the training set each.
        epochs: int >= 1, the largest number of epochs of a copy; None: a quarter of the epochs of the `fit`, at most
            10.

    Attributes:
        losses: float32 `(rows,)`; None before they are measured.
        measured: `OutOfSample`, what the copies found; None if the losses are the user's own or from a saved state.
        was_measured: bool, True if the copies were trained in the current `fit`.
        copies_trained_model: bool, True if the copies start from weights that have been trained before.
    """

    def __init__(self, values: np.ndarray | None, holdout: tuple | None, epochs: int | None):
        self.losses: np.ndarray | None = None
        self.measured: OutOfSample | None = None
        self.was_measured = self.copies_trained_model = False
        self._values = values
        self._holdout_data = holdout
        self._holdout: ArraySource | None = None
        self._epochs = epochs
        self._digest = ""
        self._copy: ModelCopy | None = None

    def use(self, model: keras.Model, source: ArraySource, class_weight: dict | None) -> None:
        """Set the training set. The losses of another one, or of other labels, are dropped.

        Raises:
            ValueError: the user's losses have another number of rows, or the holdout set can't be read.
        """
        if self._values is not None and len(self._values) != source.num_rows:
            raise ValueError(
                "`irreducible_loss` must have one number for each row of the training data, without the rows of "
                f"`validation_split`. Received: {len(self._values)} numbers for {source.num_rows} rows"
            )
        self.was_measured = False
        if self._values is not None:
            self.losses = self._values
            return
        digests = [source.digest, labels_digest(source)]
        if self._holdout_data is not None:
            parts = keras.utils.unpack_x_y_sample_weight(self._holdout_data)
            self._holdout = array_source(model, parts, class_weight)
            digests += [self._holdout.digest, labels_digest(self._holdout)]
        if self._digest != "".join(digests):
            self._digest = "".join(digests)
            self.measured = self.losses = None

    def prepare_copies(self, model: keras.Model) -> None:
        """Copy the model, with the weights that it has now, if copies will have to be trained.

        Raises:
            ValueError: Keras can't copy it.
        """
        self._copy = ModelCopy(model, keeps_outputs=False) if self.losses is None else None
        self.copies_trained_model = self._copy is not None and int(model.optimizer.iterations) > 0

    def measure(self, source: ArraySource, batch_size: int, epochs: int, seed: int) -> float:
        """Train the copies unless the losses are known; return the cost in forward passes of a sample.

        Args:
            source: the training set.
            batch_size: int.
            epochs: int, of the `fit`.
            seed: int, of the split into halves.
        """
        copy, self._copy = self._copy, None
        if self.losses is not None:
            return 0.0
        most = self._epochs or max(1, min(epochs // SHARE_OF_EPOCHS, MOST_EPOCHS))
        if self._holdout is None:
            self.measured = cross_fit(copy, source, batch_size, most, seed)
        else:
            self.measured = fit_holdout(copy, self._holdout, source, batch_size, most)
        self.losses, self.was_measured = self.measured.losses, True
        return self.measured.cost

    def release(self) -> None:
        """Drop all references to the data and to copies of the model."""
        self._copy = self._holdout = None

    def state(self) -> dict[str, np.ndarray]:
        """Return the losses, and a digest of the data that they belong to, for a saved state."""
        losses = np.zeros(0, "float32") if self.losses is None else self.losses
        return {"losses": losses, "digest": np.array(self._digest)}

    def restore(self, state: dict[str, Any]) -> None:
        """Set the losses to those of a saved state, if it has those of the current data."""
        if self._values is None and len(state["losses"]) and str(state["digest"]) == self._digest:
            self.losses, self.measured = np.asarray(state["losses"], "float32"), None


def labels_digest(source: ArraySource) -> str:
    """Return a hash of all targets and sample weights, str.

    `ArraySource.digest` is of some rows only, and would not notice a few corrected labels.
    """
    _, y, sample_weight = source.pack(range(len(source.columns)))
    digest = hashlib.blake2b(digest_size=16)
    for position in flatten((y, sample_weight))[0]:
        column = source.columns[position]
        row_bytes = max(int(np.prod(column.shape[1:])), 1) * 8
        step = max(BYTES_PER_READ // row_bytes, 1)
        for start in range(0, source.num_rows, step):
            rows = np.arange(start, min(start + step, source.num_rows))
            if is_on_host(column):
                digest.update(np.ascontiguousarray(column.read(rows)).tobytes())
            else:
                digest.update(backend.as_bytes(backend.gather(column, rows)))
    return digest.hexdigest()
