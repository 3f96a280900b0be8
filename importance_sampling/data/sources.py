"""Plan a `fit` according to the kind of its data: arrays, lazily read arrays, datasets, loaders or generators."""

from __future__ import annotations

import threading
import types

import keras
import numpy as np

from importance_sampling import backend
from importance_sampling.backend import keras_data
from importance_sampling.core.scoring import flatten
from importance_sampling.data.arrays import plan_arrays
from importance_sampling.data.lazy_arrays import is_lazy, with_lazy_validation_data
from importance_sampling.data.py_dataset import LockedDataset, ShuffledBatches, has_workers, is_finite
from importance_sampling.data.streams import StreamSource
from importance_sampling.fit.plan import FitPlan


def plan_fit(arguments: dict, model: keras.Model, with_order: bool) -> FitPlan:
    """Return the plan of a `fit`.

    Args:
        arguments: all arguments of `keras.Model.fit`, by name.
        model: the user's model.
        with_order: bool, True to record which rows uniform steps train on.

    Returns:
        `FitPlan`. Arguments that Keras refuses are passed on unchanged, so that Keras raises its error.
    """
    x, class_weight = arguments["x"], arguments["class_weight"]
    leaves, _ = flatten(tuple(arguments[name] for name in ("x", "y", "sample_weight")))
    if x is not None and all(backend.has_rows(leaf) or is_lazy(leaf) for leaf in leaves):
        return plan_arrays(arguments, model, with_order)
    if _keras_refuses(arguments):
        return FitPlan(arguments)
    arguments = with_lazy_validation_data(arguments)
    reread = None
    if isinstance(x, keras.utils.PyDataset):
        if is_finite(x):
            # A dataset without workers may not be safe for two threads.
            lock = None if has_workers(x) else threading.Lock()

            def reread(seed: int) -> backend.BatchReader:
                return backend.BatchReader(ShuffledBatches(x, seed, lock), class_weight)

            if lock is not None:
                arguments.update(x=LockedDataset(x, lock))
    elif backend.is_dataset(x) or backend.is_loader(x):
        if backend.is_loader(x) or not backend.is_infinite(x):

            def reread(seed: int) -> backend.BatchReader:
                return backend.BatchReader(x, class_weight)

    elif not isinstance(x, types.GeneratorType):
        return FitPlan(arguments, reason=f"candidates can't be drawn from data of type {type(x).__name__}")
    return FitPlan(arguments, StreamSource(reread), batch_size=None)


def plan_custom_fit(arguments: dict) -> FitPlan:
    """Return the plan for a model with its own `fit`: samples are drawn from the batches that it passes on to Keras."""
    source = StreamSource(None, rereads_iterator=True)
    return FitPlan(with_lazy_validation_data(arguments), source, batch_size=None)


def _keras_refuses(arguments: dict) -> bool:
    """Return True if `keras.Model.fit` raises an error for arguments that can't be passed with a stream."""
    x, class_weight = arguments["x"], arguments["class_weight"]
    is_stream = isinstance(x, (keras.utils.PyDataset, types.GeneratorType))
    if not (is_stream or backend.is_dataset(x) or backend.is_loader(x)):
        return False
    if arguments["validation_split"] and arguments["validation_data"] is None:
        return True
    if arguments["y"] is not None or arguments["sample_weight"] is not None:
        return True
    if class_weight is None:
        return False
    try:
        keras_data.data_adapter(x, class_weight=class_weight)
        keras_data.class_weights_to_sample_weights(np.zeros(1, "int32"), class_weight)
    except Exception:  # of any type; Keras raises it again
        return True
    return False
