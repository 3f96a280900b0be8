"""The evaluation of a model in a benchmark: training loss, test loss and test error."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from importance_sampling.comparison import Data
from importance_sampling.utils.classes import parse_classes


class Evaluation:
    """Evaluates a model with `model.evaluate`.

    Args:
        data: `Data`.
        error: function from the dict that `model.evaluate` returns for the test set to the test error. None (default)
            means 100 (1 - accuracy), in per cent; this needs a metric named `accuracy`.
        rows: int, default 10000; the number of training samples for the training loss, the first ones.
        balanced: bool, default False; True adds the balanced error of a classifier.
    """

    def __init__(
        self,
        data: Data,
        error: Callable[[dict], float] | None = None,
        rows: int = 10000,
        balanced: bool = False,
    ):
        self.train, self.test = (data.x_train[:rows], data.y_train[:rows]), (data.x_test, data.y_test)
        self.error = error or (lambda results: 100.0 * (1.0 - results["accuracy"]))
        self.balanced = balanced

    def __call__(self, model: keras.Model) -> dict[str, float]:
        """Return training loss, test loss and test error, and `balanced_error` if requested."""
        train = model.evaluate(*self.train, batch_size=1000, verbose=0, return_dict=True)
        test = model.evaluate(*self.test, batch_size=1000, verbose=0, return_dict=True)
        results = {"train_loss": train["loss"], "test_loss": test["loss"], "test_error": self.error(test)}
        if self.balanced:
            x, y = self.test
            results["balanced_error"] = balanced_error(np.asarray(y), model.predict(x, batch_size=1000, verbose=0))
        return results


def balanced_error(targets: np.ndarray, predictions: np.ndarray) -> float:
    """Return the mean of the errors of the classes, in per cent.

    Args:
        targets: `(n, classes)`, one-hot; or `(n, 1)`, 0 or 1.
        predictions: `(n, classes)` or `(n, 1)`, probabilities.

    Example:
        >>> balanced_error(np.array([[0], [0], [0], [1]]), np.array([[0.1], [0.2], [0.9], [0.3]]))  # 1/3 and 1
        66.666...
    """
    labels = parse_classes(targets)[0]
    predicted = predictions[:, 0] > 0.5 if predictions.shape[1] == 1 else predictions.argmax(axis=1)
    return 100.0 * float(np.mean([(predicted[labels == label] != label).mean() for label in np.unique(labels)]))
