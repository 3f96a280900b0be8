"""The loss of each sample that training can't reduce: that of a model which hasn't seen its label."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from importance_sampling.data.arrays import ArraySource
from importance_sampling.labels.model_copy import ModelCopy
from importance_sampling.labels.out_of_sample import OutOfSample, array_source, cross_fit, fit_holdout

SHARE_OF_EPOCHS = 4  # a copy is trained for at most a quarter of the epochs of the `fit`
MOST_EPOCHS = 10


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
    """

    def __init__(self, values: np.ndarray | None, holdout: tuple | None, epochs: int | None):
        self.losses: np.ndarray | None = None
        self.measured: OutOfSample | None = None
        self._values = values
        self._holdout = holdout
        self._epochs = epochs
        self._digest = ""
        self._copy: ModelCopy | None = None

    def use(self, source: ArraySource) -> None:
        """Set the training set; the losses of another one are dropped.

        Raises:
            ValueError: the user's losses have another number of rows.
        """
        if self._values is not None and len(self._values) != source.num_rows:
            raise ValueError(
                "`irreducible_loss` must have one number for each row of the training data, without the rows of "
                f"`validation_split`. Received: {len(self._values)} numbers for {source.num_rows} rows"
            )
        if self._digest != source.digest:
            self._digest = source.digest
            self.measured = None
            self.losses = self._values

    def copy(self, model: keras.Model) -> None:
        """Copy the model, with the weights that it has now, if its copies will have to be trained.

        Raises:
            ValueError: Keras can't copy it.
        """
        self._copy = ModelCopy(model) if self.losses is None else None

    def measure(self, model: keras.Model, source: ArraySource, batch_size: int, epochs: int, seed: int) -> float:
        """Train the copies unless the losses are known; return the cost in forward passes of a sample.

        Args:
            model: the user's model.
            source: the training set.
            batch_size: int.
            epochs: int, of the `fit`.
            seed: int, of the split into halves.
        """
        if self.losses is not None:
            return 0.0
        most = self._epochs or max(1, min(epochs // SHARE_OF_EPOCHS, MOST_EPOCHS))
        copy, self._copy = self._copy, None
        if self._holdout is None:
            self.measured = cross_fit(copy, source, batch_size, most, seed)
        else:
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(self._holdout)
            holdout = array_source(model, (x, y, sample_weight))
            self.measured = fit_holdout(copy, holdout, source, batch_size, most)
        self.losses = self.measured.losses
        return self.measured.cost

    def state(self) -> dict[str, np.ndarray]:
        """Return the losses, for a saved state."""
        return {"losses": np.zeros(0, "float32") if self.losses is None else self.losses}

    def restore(self, state: dict[str, Any]) -> None:
        """Set the losses to those of a saved state, if it has any."""
        if len(state["losses"]):
            self.losses = np.asarray(state["losses"], "float32")
