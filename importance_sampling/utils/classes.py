"""Class probabilities from the outputs of a classifier, whether they are probabilities or logits."""

from __future__ import annotations

import numpy as np


def log_probabilities(outputs: np.ndarray) -> np.ndarray:
    """Return the logarithms of the class probabilities, float64 `(rows, classes)`.

    Outputs between 0 and 1 that add up to 1 are probabilities; other outputs are taken as logits. A single output
    between 0 and 1 is the probability of class 1, another one its logit.

    Args:
        outputs: float `(rows, classes)`, `(rows, 1)` or `(rows,)`.

    Example:
        >>> np.exp(log_probabilities(np.array([[0.25], [0.5]])))
        array([[0.75, 0.25],
               [0.5 , 0.5 ]])
    """
    values = np.asarray(outputs, "float64").reshape(len(outputs), -1)
    tiny = np.finfo("float32").tiny  # the probability 0 of float32 outputs has a finite logarithm
    in_range = bool(((values >= 0) & (values <= 1)).all())
    if values.shape[1] == 1:
        if in_range:
            return np.log(np.maximum(np.concatenate([1 - values, values], axis=1), tiny))
        values = np.concatenate([np.zeros_like(values), values], axis=1)
    elif in_range and np.allclose(values.sum(axis=1), 1.0, atol=1e-3):
        return np.log(np.maximum(values / values.sum(axis=1, keepdims=True), tiny))
    shifted = values - values.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def as_classes(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return labels as classes, int64 `(rows,)`.

    Args:
        labels: classes `(rows,)` or `(rows, 1)`, or one-hot `(rows, classes)`.
        classes: int, the number of classes.

    Raises:
        ValueError: the labels have another shape, or aren't classes from 0 to `classes` - 1.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == classes and classes > 1:
        return labels.argmax(axis=1)
    if labels.ndim > 2 or (labels.ndim == 2 and labels.shape[1] != 1) or labels.ndim == 0:
        raise ValueError(
            f"Labels must be classes of shape (rows,), or one-hot of shape (rows, {classes}). "
            f"Received: labels of shape {labels.shape}"
        )
    found = labels.reshape(-1).astype("int64")
    if len(found) and (found.min() < 0 or found.max() >= classes):
        raise ValueError(
            f"Labels must be classes from 0 to {classes - 1}, one for each predicted probability. "
            f"Received: labels from {found.min()} to {found.max()}"
        )
    return found
