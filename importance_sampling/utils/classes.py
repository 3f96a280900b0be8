"""Class labels, and class probabilities from the outputs of a classifier."""

from __future__ import annotations

from typing import Any

import numpy as np


def parse_classes(y: Any) -> tuple[np.ndarray, int | None]:
    """Convert targets to classes.

    Args:
        y: integers >= 0, `(n,)` or `(n, 1)`, of any numeric dtype; or one-hot rows, `(n, classes)`.

    Returns:
        Classes, int32 `(n,)`; and the number of classes if the targets are one-hot, else None.

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
        "Targets must be classes, as integers or one-hot rows, for a method that uses the class of a sample. For other "
        "targets use `HistorySampler` or another sampler without classes, or pass `groups` to `QuotaTraining`. "
        f"Received: y of shape {values.shape} and dtype {values.dtype}, such as {values[:1]!r}"
    )


def as_classes(labels: Any, classes: int) -> np.ndarray:
    """Return labels as classes, int32 `(rows,)`.

    Args:
        labels: as for `parse_classes`.
        classes: int, the number of classes.

    Raises:
        ValueError: the labels aren't classes from 0 to `classes` - 1.
    """
    found, width = parse_classes(np.asarray(labels))
    if width not in (None, classes) or (len(found) and found.max() >= classes):
        raise ValueError(
            f"Labels must be classes from 0 to {classes - 1}, one for each predicted probability, or one-hot. "
            f"Received: labels of shape {np.shape(labels)}, with classes up to {found.max(initial=0)}"
        )
    return found


def log_probabilities(outputs: np.ndarray, from_logits: bool | None = None) -> np.ndarray:
    """Return the logarithms of the class probabilities, float64 `(rows, classes)`.

    Args:
        outputs: float `(rows, classes)`; or `(rows, 1)` or `(rows,)`, of class 1 of two.
        from_logits: bool, whether the outputs are logits; None (default): they are unless all of them are between 0
            and 1.

    Raises:
        ValueError: the outputs are probabilities of several classes that don't exclude each other.

    Example:
        >>> np.exp(log_probabilities(np.array([[0.25], [0.5]])))
        array([[0.75, 0.25],
               [0.5 , 0.5 ]])
    """
    values = np.asarray(outputs, "float64").reshape(len(outputs), -1)
    if from_logits is None:
        from_logits = not ((values >= 0) & (values <= 1)).all()
    if from_logits:
        if values.shape[1] == 1:
            values = np.concatenate([np.zeros_like(values), values], axis=1)
        shifted = values - values.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    if values.shape[1] == 1:
        values = np.concatenate([1 - values, values], axis=1)
    sums = values.sum(axis=1, keepdims=True)
    if not np.allclose(sums[np.isfinite(sums)], 1.0, atol=0.05):  # bfloat16 is off by a hundredth
        raise ValueError(
            "The outputs must be probabilities that add up to 1, or logits: each sample has one class. Use the outputs "
            f"themselves for samples with several classes. Received: outputs that add up to {sums.flat[0]:.3g}"
        )
    tiny = np.finfo("float32").tiny  # the probability 0 of float32 outputs has a finite logarithm
    return np.log(np.maximum(values / sums, tiny))
