"""Samples that show whether training still generalises, beside training samples with which their loss is compared."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from importance_sampling.data.compared_rows import compared_rows
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.held_out_losses import TRAINING_SAMPLES, VALIDATION_DATA
from importance_sampling.samplers.held_out import FEWEST_HELD_OUT, MOST_HELD_OUT, SAMPLES_PER_HELD_OUT, HeldOut
from importance_sampling.strategies.dataset_rows import DatasetRows


class ComparedSamples(NamedTuple):
    """Samples that importance steps don't train on, and as many training samples.

    Attributes:
        rows: the rows of both.
        held_out, others: row indices, int64 `(n,)`; empty if there are no such samples.
        kind: "training samples" or "validation data", what the first are.
    """

    rows: DatasetRows
    held_out: np.ndarray
    others: np.ndarray
    kind: str


def compared_training_samples(rows: DatasetRows, held_out: HeldOut) -> ComparedSamples:
    """Return the training samples that are left out.

    Args:
        rows: the training data.
        held_out: indices of the samples that are left out, and of others.
    """
    return ComparedSamples(rows, held_out.samples, held_out.others, TRAINING_SAMPLES)


def compared_validation_samples(rows: DatasetRows, plan: FitPlan, seed: int) -> ComparedSamples:
    """Return validation samples, as many as training samples are left out without validation data, but at least 100.

    Args:
        rows: they are set to copies of the samples.
        plan: of the `fit`.
        seed: int >= 0, determines the choice.
    """
    validation_data, size = plan.arguments["validation_data"], plan.source.num_rows
    if plan.class_weight is not None and isinstance(validation_data, (tuple, list)):
        validation_data = validation_data[:2]  # its sample weights aren't of the same kind
    wanted = min(max(size // SAMPLES_PER_HELD_OUT, FEWEST_HELD_OUT), MOST_HELD_OUT)
    rows.source = compared_rows(validation_data, plan.source, wanted, seed)
    count = 0 if rows.source is None else rows.source.num_rows // 2
    count = count if count >= FEWEST_HELD_OUT else 0
    return ComparedSamples(rows, np.arange(count), np.arange(count, 2 * count), VALIDATION_DATA)
