"""The evaluation of a model in a benchmark: training loss, test loss and test error."""

from __future__ import annotations

from collections.abc import Callable

import keras

from importance_sampling.comparison import Data


class Evaluation:
    """Evaluates a model with `model.evaluate`.

    Args:
        data: `Data`.
        error: function from the dict that `model.evaluate` returns for the test set to the test error. None (default)
            means 100 (1 - accuracy), in per cent; this needs a metric named `accuracy`.
        rows: int, default 10000; the number of training samples for the training loss, the first ones.
    """

    def __init__(self, data: Data, error: Callable[[dict], float] | None = None, rows: int = 10000):
        self.train, self.test = (data.x_train[:rows], data.y_train[:rows]), (data.x_test, data.y_test)
        self.error = error or (lambda results: 100.0 * (1.0 - results["accuracy"]))

    def __call__(self, model: keras.Model) -> dict[str, float]:
        """Return training loss, test loss and test error."""
        train = model.evaluate(*self.train, batch_size=1000, verbose=0, return_dict=True)
        test = model.evaluate(*self.test, batch_size=1000, verbose=0, return_dict=True)
        return {"train_loss": train["loss"], "test_loss": test["loss"], "test_error": self.error(test)}
