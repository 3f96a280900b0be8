"""From whatever the user handed to `fit` to a source of candidates, by kind."""

from __future__ import annotations

import threading
import types

import keras
import numpy as np

from importance_sampling import backend
from importance_sampling.backend import keras_data
from importance_sampling.scores import flat
from importance_sampling.sources.arrays import prepare_arrays
from importance_sampling.sources.prepared import Prepared
from importance_sampling.sources.py_dataset import OneAtATime, Shuffled, has_workers, is_finite
from importance_sampling.sources.stores import is_store, with_stores_unread
from importance_sampling.sources.streams import StreamSource


def prepare(arguments: dict, model: keras.Model, by_row: bool) -> Prepared:
    """Make the data of a `fit` ready.

    Args:
        arguments: all arguments of `keras.Model.fit`, by name.
        model: the user's.
        by_row: it is to be told which rows plain steps train on.

    Returns:
        `Prepared`. Arguments that Keras refuses are left for it to refuse.
    """
    x, class_weight = arguments["x"], arguments["class_weight"]
    leaves, _ = flat(tuple(arguments[name] for name in ("x", "y", "sample_weight")))
    if x is not None and all(backend.has_rows(leaf) or is_store(leaf) for leaf in leaves):
        return prepare_arrays(arguments, model, by_row)
    if _keras_refuses(arguments):
        return Prepared(arguments)
    arguments = with_stores_unread(arguments)
    again = None
    if isinstance(x, keras.utils.PyDataset):
        if is_finite(x):
            # What has no workers may not bear two readers at a time.
            lock = None if has_workers(x) else threading.Lock()

            def again(seed: int) -> backend.Reading:
                return backend.Reading(Shuffled(x, seed, lock), class_weight)

            if lock is not None:
                arguments.update(x=OneAtATime(x, lock))
    elif backend.is_dataset(x) or backend.is_loader(x):
        if backend.is_loader(x) or not backend.is_infinite(x):

            def again(seed: int) -> backend.Reading:
                return backend.Reading(x, class_weight)

    elif not isinstance(x, types.GeneratorType):
        return Prepared(arguments, f"candidates can't be drawn from data of type {type(x).__name__}")
    prepared = Prepared(arguments, source=StreamSource(again))
    prepared.batch_size = None
    return prepared


def prepare_own_fit(arguments: dict) -> Prepared:
    """Prepare the data of a model that defines a `fit`: the batches that its `fit` passes on to Keras are sampled."""
    prepared = Prepared(with_stores_unread(arguments), source=StreamSource(None, rereads_iterator=True))
    prepared.batch_size = None
    return prepared


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
    except Exception:  # of any kind; Keras raises it again
        return True
    return False
