"""Rank samples by how suspicious their labels are, from predictions that were made without the labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.utils.classes import as_classes


def label_suspicion(labels: Any, probabilities: Any) -> np.ndarray:
    """Compute how suspicious the label of each sample is: labels with the highest values are most likely wrong.

    T[j, y] is the share of the samples of predicted class j that are labelled y. If a sample is of class j with
    probability p_j, its label y is wrong with probability

        w = 1 - p_y T[y, y] / sum_j(p_j T[j, y]).

    Models are overconfident on unusual samples, so w is computed with p^(1/2), rescaled. The suspicion is w times the
    largest probability of another class: a label is suspicious if it is often mistaken and another class is likely.

    Args:
        labels: int `(rows,)`, or one-hot `(rows, classes)`.
        probabilities: float `(rows, classes)`, of models that haven't seen the labels, such as
            `OutOfSample.probabilities`.

    Returns:
        float64 `(rows,)`, in [0, 1], for ranking the samples; not a probability.

    Raises:
        ValueError: the shapes don't match, or a label isn't a class.

    Example:
        >>> suspicion = label_suspicion(labels, out_of_sample(model, x_train, labels).probabilities)
        >>> suspects = np.argsort(-suspicion)[:100]

    Source: specific to this library. Confident Learning (Northcutt et al., 2021, arXiv 1911.00068) uses the same
    confusion, counted above a threshold for each class, and ranks by the margin of the probabilities.
    """
    p = np.asarray(probabilities, "float64")
    if p.ndim != 2 or p.shape[1] < 2 or len(np.atleast_1d(labels)) != len(p):
        raise ValueError(
            "`probabilities` must have one row for each label, and one column for each of two or more classes. "
            f"Received: probabilities of shape {p.shape} for labels of shape {np.shape(labels)}"
        )
    classes, rows = p.shape[1], np.arange(len(p))
    labels = as_classes(labels, classes)
    counts = np.zeros((classes, classes))
    np.add.at(counts, (p.argmax(axis=1), labels), 1.0)
    confusion = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    joint = np.sqrt(p) * confusion[:, labels].T  # of the class and the label, up to a factor
    total = joint.sum(axis=1)
    right = np.divide(joint[rows, labels], total, out=np.zeros(len(p)), where=total > 0)
    others = p.copy()
    others[rows, labels] = 0.0
    return (1.0 - right) * others.max(axis=1)
