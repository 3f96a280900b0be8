"""Losses and predictions of copies of a model that haven't seen a sample's label.

Source: cross-fitting, as in Northcutt et al., Confident Learning, JAIR 2021 (arXiv 1911.00068); two halves, as in [M22]
Mindermann et al., Prioritized Training on Points that are Learnable, Worth Learning, and Not Yet Learnt, ICML 2022
(arXiv 2206.07137), section 4.2.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from importance_sampling.core import eligibility
from importance_sampling.data.arrays import ArraySource
from importance_sampling.data.batches import flatten
from importance_sampling.data.subset import subset
from importance_sampling.fit import user_fit
from importance_sampling.fit.plan_arrays import plan_arrays
from importance_sampling.labels.model_copy import ModelCopy
from importance_sampling.utils.classes import log_probabilities
from importance_sampling.utils.validation import check_positive, check_seed, seed_from_python


@dataclasses.dataclass(frozen=True)
class OutOfSample:
    """The losses and outputs for every sample, from models that haven't seen its label.

    Attributes:
        losses: float32 `(rows,)`, the compiled loss of each sample.
        outputs: the outputs of the model, a structure of float32 `(rows, ...)` arrays; None if they weren't kept.
        epochs: tuple of int, the number of epochs that each copy was trained for.
        cost: float, in forward passes of a sample; a training step counts as 3 for each sample.
        from_logits: bool or None, whether the outputs are logits; None if the loss doesn't say.
    """

    losses: np.ndarray
    outputs: Any
    epochs: tuple[int, ...]
    cost: float
    from_logits: bool | None = None

    @property
    def probabilities(self) -> np.ndarray:
        """The probabilities of the classes, float32 `(rows, classes)`, in the form that cleanlab's functions take.

        A single output is that of class 1 of two classes. If the loss doesn't say whether the outputs are logits, they
        are taken as logits unless all of them are between 0 and 1.

        Raises:
            ValueError: the model has several outputs, or more than one prediction per sample, or the probabilities of a
                sample don't add up to 1.
        """
        outputs = [output for output in keras.tree.flatten(self.outputs) if output is not None]
        if len(outputs) != 1 or outputs[0].ndim > 2:
            raise ValueError(
                "`probabilities` needs a classifier with one output of shape (batch, classes), and for a trainer at "
                "most 1,000 classes. Use `outputs`, or `out_of_sample(model, ...).outputs`. "
                f"Received: outputs of the shapes {[output.shape for output in outputs]}"
            )
        return np.exp(log_probabilities(outputs[0], self.from_logits)).astype("float32")


def out_of_sample(
    model: keras.Model,
    x: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    batch_size: int = 32,
    epochs: int = 10,
    seed: int | None = None,
) -> OutOfSample:
    """Predict every sample with a copy of the model that wasn't trained on it.

    The data are split into two halves at random. Two copies of the model are trained, each on one half, and each
    predicts the other half. A copy is trained until the mean loss on the other half has had no new minimum for two
    epochs, and predicts as it did at the minimum. The model itself isn't trained.

    Args:
        model: a compiled `keras.Model` that hasn't been trained on these labels. The copies start from its weights.
        x, y, sample_weight: as for `model.fit`; arrays, memory maps and other data whose rows have an index.
        batch_size: int >= 1, default 32.
        epochs: int >= 1, default 10; the largest number of epochs of each copy on its half.
        seed: int in [0, 2**31) or None, default None; the seed of the split. None follows
            `keras.utils.set_random_seed`.

    Returns:
        `OutOfSample`.

    Raises:
        ValueError: an argument is out of its range, the rows have no index, the samples of the model can't be weighted,
            or Keras can't copy it.

    Example:
        >>> from cleanlab.filter import find_label_issues
        >>> predicted = out_of_sample(model, x_train, labels, batch_size=128)
        >>> issues = find_label_issues(labels, predicted.probabilities)

    Source: cross-fitting; [M22], section 4.2, for two halves.
    """
    check_positive(batch_size=batch_size, epochs=epochs)
    check_seed(seed)
    if not user_fit.is_model(model):
        raise ValueError(f"`model` must be a `keras.Model`. Received: model={model!r} (of type {type(model)})")
    if not model.compiled:
        raise ValueError(
            "`model` must be compiled: its copies are trained with its loss and optimizer. "
            f"Received: model={model.name!r}, not compiled"
        )
    reason = eligibility.unsupported_reason(model)
    if reason is not None:
        raise ValueError(f"`model` must have a loss for each sample: {reason}. Received: model={model.name!r}")
    source = array_source(model, (x, y, sample_weight))
    if source.num_rows < 2:
        raise ValueError(f"`x` must have two rows or more, for two halves. Received: {source.num_rows} rows")
    seed = seed_from_python() if seed is None else seed
    return cross_fit(ModelCopy(model, keeps_outputs=True), source, batch_size, epochs, seed)


def cross_fit(copy: ModelCopy, source: ArraySource, batch_size: int, epochs: int, seed: int) -> OutOfSample:
    """Train on each half of the data and predict the other half.

    Args:
        copy: of the model.
        source: the data, two samples or more.
        batch_size, epochs: as for `out_of_sample`.
        seed: int, of the split.
    """
    order = np.random.default_rng(seed).permutation(source.num_rows)
    halves = [np.sort(half) for half in np.array_split(order, 2)]
    first, second = (subset(source, half) for half in halves)
    predicted = [
        copy.fit_predict(second, first, batch_size, epochs),
        copy.fit_predict(first, second, batch_size, epochs),
    ]
    positions = np.argsort(np.concatenate(halves))  # of the rows in the joined halves

    def join(*arrays: Any) -> Any:
        return None if arrays[0] is None else np.concatenate(arrays)[positions]

    return OutOfSample(
        join(*(one.losses for one in predicted)),
        keras.tree.map_structure(join, *(one.outputs for one in predicted)),
        tuple(one.epochs for one in predicted),
        sum(one.cost for one in predicted),
        copy.from_logits,
    )


def fit_holdout(
    copy: ModelCopy, holdout: ArraySource, source: ArraySource, batch_size: int, epochs: int
) -> OutOfSample:
    """Train on a holdout set and predict all samples of the training set; the arguments are those of `cross_fit`."""
    predicted = copy.fit_predict(holdout, source, batch_size, epochs)
    return OutOfSample(predicted.losses, predicted.outputs, (predicted.epochs,), predicted.cost, copy.from_logits)


def array_source(model: keras.Model, data: tuple, class_weight: dict | None = None) -> ArraySource:
    """Return the source of arrays `(x, y, sample_weight)`, as a `fit` of the model reads them.

    Raises:
        ValueError: the rows have no index.
        Exception: the error of Keras for arrays that it refuses.
    """
    for name, part in zip(("x", "y", "sample_weight"), data, strict=True):
        leaves, _ = flatten((part,))
        wrong = [leaf for leaf in leaves if not hasattr(leaf, "shape") or not len(leaf.shape)]
        if wrong or (name != "sample_weight" and not leaves):
            raise ValueError(
                f"`{name}` must be an array, a tensor, a memory map or a structure of them, whose rows can be read by "
                f"index. Received: {name} with an element of type {type(wrong[0]) if wrong else type(part)}"
            )
    arguments = dict(zip(("x", "y", "sample_weight"), data, strict=True))
    arguments |= dict(class_weight=class_weight, batch_size=None, steps_per_epoch=None, shuffle=True)
    arguments |= dict(validation_split=0.0, validation_data=None)
    source = plan_arrays(arguments, model, with_order=False).source
    if source is None:
        raise ValueError("The data must have at least one row. Received: x without rows")
    return source
