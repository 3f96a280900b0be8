"""Record how each sample of the training set is learnt: its margins and how often it is forgotten.

Source: [P20] Pleiss et al., Identifying Mislabeled Data using the Area Under the Margin Ranking, NeurIPS 2020
(arXiv 2001.10528); [T19] Toneva et al., An Empirical Study of Example Forgetting during Deep Neural Network Learning,
ICLR 2019 (arXiv 1812.05159).
"""

from __future__ import annotations

import reprlib
from typing import Any

import keras
import numpy as np

from importance_sampling.backend import keras_internals
from importance_sampling.utils.classes import as_classes, log_probabilities
from importance_sampling.utils.validation import as_array, check_positive


class TrainingDynamics(keras.callbacks.Callback):
    """Predict the training set after every epoch and record how each sample is learnt.

    Works with `model.fit` and with every trainer, for classifiers with one output of shape `(batch, classes)` or
    `(batch, 1)`. Samples with wrong labels have a low `aum`, because the other samples of their true class pull the
    model towards that class. Records continue from one `fit` to the next.

    Cost: a forward pass over the training set after every epoch, a third of the cost of the epoch. Memory: 26 bytes per
    sample.

    Args:
        x: the inputs of the training set, as for `model.predict`, in the order of `y`.
        y: the labels: classes `(rows,)`, or one-hot `(rows, classes)`.
        batch_size: int or None, default None; as for `model.predict`.

    Attributes:
        epochs: int, the number of recorded epochs.
        aum: float64 `(rows,)`, the area under the margin: the mean over the epochs of the logit of the label minus the
            largest other logit. NaN before the first epoch.
        mean_margin: float64 `(rows,)`, the same for probabilities, in [-1, 1].
        forgetting_events: int64 `(rows,)`, how often a sample was classified correctly after one epoch and incorrectly
            after the next.
        learned: bool `(rows,)`, whether the sample was ever classified correctly.

    Raises:
        ValueError: an argument is out of its range, or `x` and `y` have different numbers of rows; in `fit`, the
            model's outputs aren't those of a classifier, or a label isn't one of its classes.

    Example:
        >>> dynamics = TrainingDynamics(x_train, y_train)
        >>> model.fit(x_train, y_train, batch_size=128, epochs=10, callbacks=[dynamics])
        >>> suspects = np.argsort(dynamics.aum)[:100]

    Source: [P20], equation 1; [T19], section 2.
    """

    def __init__(self, x: Any, y: Any, batch_size: int | None = None):
        super().__init__()
        rows = _checked_rows(x, y)
        if batch_size is not None:
            check_positive(batch_size=batch_size)
        self.x, self.y, self.batch_size = x, y, batch_size
        self.epochs = 0
        self.forgetting_events = np.zeros(rows, "int64")
        self.learned = np.zeros(rows, bool)
        self._was_correct = np.zeros(rows, bool)
        self._logit_margins = np.zeros(rows)  # sums over the epochs
        self._margins = np.zeros(rows)

    @property
    def aum(self) -> np.ndarray:
        """The area under the margin, float64 `(rows,)`."""
        return self._mean(self._logit_margins)

    @property
    def mean_margin(self) -> np.ndarray:
        """The mean margin of the probabilities, float64 `(rows,)`."""
        return self._mean(self._margins)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return `aum`, `mean_margin`, `forgetting_events` and `learned` by name."""
        names = ("aum", "mean_margin", "forgetting_events", "learned")
        return {name: getattr(self, name) for name in names}

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Predict the training set and add the epoch."""
        outputs = self.model.predict(self.x, batch_size=self.batch_size, verbose=0)
        if not hasattr(outputs, "shape") or outputs.ndim > 2 or len(outputs) != len(self.y):
            shapes = keras.tree.map_structure(np.shape, outputs)
            raise ValueError(
                "`TrainingDynamics` needs a classifier with one output of shape (batch, classes) and a label for each "
                f"row of `x`. Received: outputs of shape {shapes} for {len(self.y)} labels"
            )
        logarithms = log_probabilities(outputs, keras_internals.expects_logits(self.model))
        labels = as_classes(self.y, logarithms.shape[1])
        self._logit_margins += margins(logarithms, labels)
        own = margins(np.exp(logarithms), labels)
        self._margins += own
        self.forgetting_events += self._was_correct & (own <= 0)
        self._was_correct = own > 0
        self.learned |= self._was_correct
        self.epochs += 1

    def _mean(self, total: np.ndarray) -> np.ndarray:
        return total / self.epochs if self.epochs else np.full(len(total), np.nan)


def _checked_rows(x: Any, y: Any) -> int:
    """Return the number of labels.

    Raises:
        ValueError: `y` isn't an array of labels, or `x` doesn't have as many rows.
    """
    labels = keras.ops.convert_to_numpy(y) if keras.ops.is_tensor(y) else as_array(y)
    if labels.ndim not in (1, 2):
        raise ValueError(
            "`y` must be the labels, an array of shape (rows,), or (rows, classes) if they are one-hot. "
            f"Received: y={reprlib.repr(y)} (of type {type(y)})"
        )
    if x is None or isinstance(x, (str, int, float)):
        raise ValueError(f"`x` must be data that `model.predict` reads. Received: x={x!r}")
    rows = {int(part.shape[0]) for part in keras.tree.flatten(x) if len(getattr(part, "shape", ())) > 0}
    if rows and rows != {len(labels)}:
        raise ValueError(
            "`x` and `y` must have equally many rows. "
            f"Received: x with {', '.join(map(str, sorted(rows)))} rows, y with {len(labels)}"
        )
    return len(labels)


def margins(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the value of each label minus the largest other value, float `(rows,)`.

    Args:
        values: float `(rows, classes)`.
        labels: int `(rows,)`.

    Example:
        >>> margins(np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]]), np.array([0, 1]))
        array([ 1., -2.])
    """
    rows = np.arange(len(values))
    others = values.copy()
    others[rows, labels] = -np.inf
    return values[rows, labels] - others.max(axis=1)
