"""Record the draws, scores and weights of every sample of the training set.

Samples that are drawn often are hard, rare or wrongly labelled. The functions of `plotting` plot them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from importance_sampling.callbacks.base import SamplingCallback
from importance_sampling.callbacks.epoch_draws import LEVELS, EpochDraws

BATCHES_PER_COUNT = 64  # between two steps the CPU caches hold the model's data, so that single counts are slow


class SamplingRecorder(SamplingCallback):
    """Record the number of draws, the last score and the sum of the weights of every sample of the training set.

    Pass it to the `callbacks` of one or several calls of a trainer's `fit`. Counts continue from one `fit` to the next
    and are part of the trainer's saved state, so they also continue after `BackupAndRestore` or `load_state`. Row
    indices are positions in the training data, excluding the rows of `validation_split`. A uniform step counts each of
    its samples once, with a weight of 1 and no score. Scores are the predicted scores that a sample was drawn by;
    scores of candidates that were not drawn are not recorded.

    Cost: 20 bytes per sample, up to 24 more for the order of an epoch during `fit`, and little time, because many
    batches are counted at once.

    Attributes:
        draws: int64 `(rows,)`, the number of draws.
        weights: float64 `(rows,)`, the sum of the weights.
        last_score: float32 `(rows,)`, the last score that the sample was drawn by; NaN if there is none.
        score_quantiles: float64 `(epochs, 5)`, the 5, 25, 50, 75 and 95 % quantiles of the scores of each epoch, as
            estimated for the whole training set; NaN for epochs without importance steps. At most the last 512
            importance steps of an epoch are used.
        weight_quantiles: float64 `(epochs, 5)`, the same quantiles of the weights of the drawn samples.

    Raises:
        ValueError: in `fit`, the data have no row indices (streams), or a different number of rows than before.

    Example:
        >>> recorder = SamplingRecorder()
        >>> ImportanceTraining(model).fit(x_train, y_train, batch_size=128, epochs=10, callbacks=[recorder])
        >>> hardest = np.argsort(-recorder.draws)[:100]
        >>> recorder.save("draws.csv")
    """

    needs_rows = True
    is_saved = True

    def __init__(self) -> None:
        super().__init__()
        self._draws = np.zeros(0, "int64")
        self._weights = np.zeros(0, "float64")
        self._last_score = np.zeros(0, "float32")
        self._uncounted: list[tuple] = []
        self._quantiles: list[tuple] = []
        self._epoch = EpochDraws()

    def connect(self, num_rows: int | None, figures: Callable[[], dict[str, float]]) -> None:
        """Allocate the counts at the first `fit`, and check the number of rows at later ones."""
        if num_rows is not None and not len(self._draws):
            self._draws, self._weights = np.zeros(num_rows, "int64"), np.zeros(num_rows, "float64")
            self._last_score = np.full(num_rows, np.nan, "float32")
        elif num_rows not in (None, len(self._draws)):
            raise ValueError(
                "A SamplingRecorder records a single training set. Use a new one for another training set. "
                f"Received: {num_rows} rows, after {len(self._draws)}"
            )
        super().connect(num_rows, figures)

    def on_sample(self, sampler: Any, indices: np.ndarray, weights: np.ndarray, scores: np.ndarray) -> None:
        """Record a batch."""
        self._uncounted.append((indices, weights, scores))
        if len(self._uncounted) >= BATCHES_PER_COUNT:
            self._count()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Reset the quantiles of the epoch."""
        self._count()  # batches of an epoch that was interrupted
        self._epoch.reset()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Record the quantiles of the epoch."""
        self._count()
        self._quantiles.append(self._epoch.quantiles())

    @property
    def draws(self) -> np.ndarray:
        """The number of draws, int64 `(rows,)`."""
        self._count()
        return self._draws

    @property
    def weights(self) -> np.ndarray:
        """The sum of the weights, float64 `(rows,)`."""
        self._count()
        return self._weights

    @property
    def last_score(self) -> np.ndarray:
        """The last score that the sample was drawn by, float32 `(rows,)`."""
        self._count()
        return self._last_score

    @property
    def score_quantiles(self) -> np.ndarray:
        """The quantiles of the scores, float64 `(epochs, 5)`."""
        return np.array([scores for scores, _ in self._quantiles])

    @property
    def weight_quantiles(self) -> np.ndarray:
        """The quantiles of the weights, float64 `(epochs, 5)`."""
        return np.array([weights for _, weights in self._quantiles])

    def state(self) -> dict[str, np.ndarray]:
        """Return everything recorded so far, for the trainer's saved state."""
        quantiles = np.array(self._quantiles, "float64").reshape(-1, 2, len(LEVELS))
        return self.arrays() | dict(quantiles=quantiles)

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from a saved state.

        Raises:
            ValueError: it is of another number of rows.
        """
        if len(state["draws"]) != len(self._draws):
            raise ValueError(
                "A SamplingRecorder continues from the state of a recorder of as many rows. "
                f"Received: a state of {len(state['draws'])} rows, for {len(self._draws)}"
            )
        self._uncounted = []
        self._draws, self._weights = np.array(state["draws"], "int64"), np.array(state["weights"], "float64")
        self._last_score = np.array(state["last_score"], "float32")
        self._quantiles = [(scores, weights) for scores, weights in state["quantiles"]]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return `draws`, `weights` and `last_score` by name."""
        return dict(draws=self.draws, weights=self.weights, last_score=self.last_score)

    def frame(self) -> Any:
        """Return `arrays` as a `pandas.DataFrame` with the index `row`.

        Raises:
            ImportError: pandas isn't installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("`frame` needs pandas: pip install pandas. `arrays` works without it") from error
        frame = pandas.DataFrame(self.arrays())
        frame.index.name = "row"
        return frame

    def save(self, path: str | Path) -> None:
        """Write `arrays` to a file.

        Args:
            path: ends in `.npz`, for `numpy.load`; or in `.csv`, with a line per row and an empty field if there is no
                score.

        Raises:
            ValueError: the path has another ending.
        """
        path = Path(path)
        if path.suffix == ".npz":
            with open(path, "wb") as file:
                np.savez(file, **self.arrays())
        elif path.suffix == ".csv":
            with open(path, "w", encoding="utf-8") as file:
                file.write(",".join(["row", *self.arrays()]) + "\n")
                for row, (draws, weight, score) in enumerate(zip(*self.arrays().values(), strict=True)):
                    file.write(f"{row},{draws},{weight:.7g},{'' if np.isnan(score) else format(score, '.7g')}\n")
        else:
            raise ValueError(f"`path` must end in .npz or .csv. Received: path={str(path)!r}")

    def _count(self) -> None:
        """Add the uncounted batches to the counts."""
        if not self._uncounted:
            return
        batches, self._uncounted = self._uncounted, []
        indices, weights, scores = map(np.concatenate, zip(*batches, strict=True))
        np.add.at(self._draws, indices, 1)
        np.add.at(self._weights, indices, weights.astype("float64"))
        known = np.isfinite(scores)
        self._last_score[indices[known]] = scores[known]  # NumPy assigns the last of several values of a row
        for _, weights, scores in batches:
            self._epoch.add(weights, scores)
