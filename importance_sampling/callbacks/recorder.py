"""Records what was drawn of every sample of the training set: how often, by what score, with what weights.

A sample that is drawn again and again is hard, rare, or wrongly labelled: worth a look. No source. Nothing is drawn
here, neither samples nor pictures; those are in `plotting`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from importance_sampling.callbacks.base import SamplingCallback
from importance_sampling.callbacks.epoch import EpochDraws

AT_A_TIME = 64  # batches: what runs between two steps runs slowly, as caches are full of the model's


class SamplingRecorder(SamplingCallback):
    """Per sample of the training set: how often it was drawn, its scores when it was, the sum of its weights.

    Put it into the `callbacks` of a trainer's `fit`, of as many `fit`s as you like: it goes on counting. Rows count
    from 0 in the order of the data that were handed over, without the rows of `validation_split`. A plain step draws
    its rows once, with weights of 1 and without scores. Scores are those that samples were drawn by, as the sampler
    knew them then; those that it drew and those that it passed over are known to it, only the former to the recorder.

    It costs 20 bytes a sample, up to 24 more for the order of the rows while `fit` runs, and little time: batches are
    counted many at a time.

    Attributes:
        draws: int64 `(rows,)`, how often each was drawn.
        weights: float64 `(rows,)`, the sum of its weights.
        last_score: float32 `(rows,)`, by which it was drawn last; NaN where it never was by a score.
        score_quantiles: float64 `(epochs, 5)`, the 5, 25, 50, 75 and 95 % quantiles of the scores in each epoch, as a
            fair sample has them, and `weight_quantiles` those of the weights drawn; NaN where no importance step was
            taken. Of long epochs the last 512 importance steps count.

    Raises:
        ValueError: in `fit`, data whose rows have no numbers (streams), or another number of rows than before.

    Example:
        >>> recorder = SamplingRecorder()
        >>> ImportanceTraining(model).fit(x_train, y_train, epochs=10, callbacks=[recorder])
        >>> hardest = np.argsort(-recorder.draws)[:100]
        >>> recorder.save("drawn.csv")
    """

    needs_rows = True

    def __init__(self) -> None:
        super().__init__()
        self._draws = np.zeros(0, "int64")
        self._weights = np.zeros(0, "float64")
        self._last_score = np.zeros(0, "float32")
        self._uncounted: list[tuple] = []
        self._quantiles: list[tuple] = []
        self._epoch = EpochDraws()

    def connect(self, num_rows: int | None, figures: Callable[[], dict[str, float]]) -> None:
        """Make room for the rows of a `fit`, or go on with those that there are."""
        if num_rows is not None and not len(self._draws):
            self._draws, self._weights = np.zeros(num_rows, "int64"), np.zeros(num_rows, "float64")
            self._last_score = np.full(num_rows, np.nan, "float32")
        elif num_rows not in (None, len(self._draws)):
            raise ValueError(
                "A SamplingRecorder goes on with the training set that it knows: use a new one for another. "
                f"Received: {num_rows} rows, after {len(self._draws)}"
            )
        super().connect(num_rows, figures)

    def on_sample(self, sampler: Any, indices: np.ndarray, weights: np.ndarray, scores: np.ndarray) -> None:
        """Take note of a batch; many are counted at a time."""
        self._uncounted.append((indices, weights, scores))
        if len(self._uncounted) >= AT_A_TIME:
            self._count()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Begin an epoch's quantiles."""
        self._count()  # what an epoch left that was broken off
        self._epoch.begin()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Keep an epoch's quantiles."""
        self._count()
        self._quantiles.append(self._epoch.quantiles())

    @property
    def draws(self) -> np.ndarray:
        """How often each was drawn."""
        self._count()
        return self._draws

    @property
    def weights(self) -> np.ndarray:
        """The sums of their weights."""
        self._count()
        return self._weights

    @property
    def last_score(self) -> np.ndarray:
        """By which each was drawn last."""
        self._count()
        return self._last_score

    @property
    def score_quantiles(self) -> np.ndarray:
        """Of the scores, by epoch."""
        return np.array([scores for scores, _ in self._quantiles])

    @property
    def weight_quantiles(self) -> np.ndarray:
        """Of the weights, by epoch."""
        return np.array([weights for _, weights in self._quantiles])

    def arrays(self) -> dict[str, np.ndarray]:
        """`draws`, `weights` and `last_score` by name."""
        return dict(draws=self.draws, weights=self.weights, last_score=self.last_score)

    def frame(self) -> Any:
        """The same as a `pandas.DataFrame`, indexed by `row`.

        Raises:
            ImportError: pandas isn't installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("`frame` needs pandas: pip install pandas. `arrays` does without") from error
        frame = pandas.DataFrame(self.arrays())
        frame.index.name = "row"
        return frame

    def save(self, path: str | Path) -> None:
        """Write `arrays` to a file.

        Args:
            path: ends in `.npz`, for `numpy.load`, or in `.csv`: a line a row, empty where there is no score.

        Raises:
            ValueError: the path ends otherwise.
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
        """Add up the batches that were taken note of."""
        if not self._uncounted:
            return
        batches, self._uncounted = self._uncounted, []
        indices, weights, scores = map(np.concatenate, zip(*batches, strict=True))
        np.add.at(self._draws, indices, 1)
        np.add.at(self._weights, indices, weights.astype("float64"))
        known = np.isfinite(scores)
        self._last_score[indices[known]] = scores[known]  # of several of a row, the last
        for _, weights, scores in batches:
            self._epoch.add(weights, scores)
