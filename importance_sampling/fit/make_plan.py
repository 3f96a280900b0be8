"""Plan a `fit`: find the source of its samples, and the reason if they can't be drawn or weighted."""

from __future__ import annotations

import keras

from importance_sampling.data import plan_custom_fit, plan_fit
from importance_sampling.data.lazy_arrays import has_lazy_rows, with_lazy_validation_data
from importance_sampling.fit import eligibility, user_fit
from importance_sampling.fit.plan import FitPlan


def make_plan(
    model: keras.Model, arguments: dict, name: str, is_on: bool, needs_rows: bool, needs_indices: bool
) -> tuple[FitPlan, str | None]:
    """Return the plan of a `fit`, and the reason if importance sampling is impossible.

    Args:
        model: the user's model.
        arguments: all arguments of `keras.Model.fit`, by name.
        name: of the trainer, for the error.
        is_on: bool, False if the trainer is switched off.
        needs_rows: bool, True if importance steps always read rows by index.
        needs_indices: bool, True if a listener needs the row indices of uniform steps.

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
        plan = plan_fit(arguments, model, needs_indices)
    if not is_on:
        return plan, None
    if needs_rows and plan.source is not None and not plan.source.has_rows:
        raise ValueError(
            f"`x` must be data whose rows can be read by index (arrays, memory maps, a dataset) for {name}; streams "
            f"are for the pools of `ImportanceTraining`. Received: x={arguments['x']!r}"
        )
    reason = eligibility.unsupported_reason(model) or plan.reason
    if reason is None and needs_rows and prepares_data:
        reason = (
            f"{type(model).__name__} defines a `fit` that prepares the data, whose rows can't be read by index. Use "
            "the pools of `ImportanceTraining`, which sample the prepared batches"
        )
    return plan, reason
