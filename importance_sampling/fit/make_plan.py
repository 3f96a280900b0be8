"""Plan a `fit`: find the source of its samples, or the reason if they can't be drawn or weighted."""

from __future__ import annotations

import dataclasses
import threading
import types

import keras
import numpy as np

from importance_sampling import backend
from importance_sampling.backend import keras_data
from importance_sampling.core import eligibility
from importance_sampling.data.batches import flatten
from importance_sampling.data.lazy_arrays import has_lazy_rows, is_lazy, with_lazy_validation_data
from importance_sampling.data.py_dataset import LockedDataset, ShuffledBatches, has_workers, is_finite
from importance_sampling.data.streams import DRAWN_BY_KERAS, StreamSource
from importance_sampling.fit import user_fit
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.plan_arrays import plan_arrays


def make_plan(
    model: keras.Model,
    arguments: dict,
    name: str,
    is_on: bool,
    needs_rows: bool,
    needs_indices: bool,
    accepts_train_step: bool,
) -> FitPlan:
    """Return the plan of a `fit`.

    Args:
        model: the user's model.
        arguments: all arguments of `keras.Model.fit`, by name.
        name: of the trainer, for the error.
        is_on: bool, False if the trainer is switched off.
        needs_rows: bool, True if importance steps always read rows by index.
        needs_indices: bool, True if a listener needs the row indices of uniform steps.
        accepts_train_step: bool, True if importance steps can be taken by a `train_step` that the model defines.

    Raises:
        ValueError: rows are needed by index, and the data are a stream.
    """
    needs_source = is_on or needs_indices or has_lazy_rows(arguments)
    prepares_data = user_fit.has_own_fit(model)
    if prepares_data and is_on and not needs_rows:
        plan = plan_custom_fit(arguments)
    elif user_fit.reads_its_own_data(model) or not needs_source:
        plan = FitPlan(with_lazy_validation_data(arguments))
    else:
        plan = plan_data(arguments, model, needs_indices)
    is_weighted = arguments["class_weight"] is not None or arguments["sample_weight"] is not None
    plan = dataclasses.replace(plan, class_weight=arguments["class_weight"], is_weighted=is_weighted)
    if not is_on:
        return dataclasses.replace(plan, reason=None)
    if needs_rows and plan.source is not None and not plan.source.has_rows:
        raise ValueError(
            f"`x` must be data whose rows can be read by index (arrays, memory maps, a dataset) for {name}; streams "
            f"are for the pools of `ImportanceTraining`. Received: x={arguments['x']!r}"
        )
    reason = eligibility.unsupported_reason(model, accepts_train_step) or plan.reason
    if reason is None and needs_rows and prepares_data:
        reason = (
            f"{type(model).__name__} defines a `fit` that prepares the data, whose rows can't be read by index. Use "
            "the pools of `ImportanceTraining`, which sample the prepared batches"
        )
    return dataclasses.replace(plan, reason=reason)


def plan_data(arguments: dict, model: keras.Model, with_order: bool) -> FitPlan:
    """Return a plan with the source of the samples, or with the reason why there is none.

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
    reason = DRAWN_BY_KERAS if reread is None and backend.DRAWS_BEFORE_STEP else None
    return FitPlan(arguments, StreamSource(reread), batch_size=None, reason=reason)


def plan_custom_fit(arguments: dict) -> FitPlan:
    """Return the plan for a model with its own `fit`: samples are drawn from the batches that it passes on to Keras."""
    return FitPlan(with_lazy_validation_data(arguments), StreamSource(None, rereads_iterator=True), batch_size=None)


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
