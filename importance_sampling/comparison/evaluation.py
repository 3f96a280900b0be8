"""The measurements of a comparison: the loss and the metrics of a model on the validation data or training samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from importance_sampling.comparison.arguments import is_stream, rows_of

MAX_ROWS = 10000  # training samples in the judgement without validation data


class Evaluation:
    """The judge of a comparison: evaluates a model on the validation data, otherwise on training samples.

    Args:
        arguments: the arguments of `fit`, by name.

    Attributes:
        prefix: str, of the names that Keras's logs give to the results: "val_", or "" without validation data.
    """

    def __init__(self, arguments: Mapping[str, Any]):
        validation = arguments.get("validation_data")
        self.prefix = "" if validation is None else "val_"
        size = arguments.get("validation_batch_size") or arguments.get("batch_size")
        steps = arguments.get("validation_steps")
        if validation is None:
            names = ("x", "y") if is_stream(arguments["x"]) else ("x", "y", "sample_weight")
            data = [arguments.get(name) for name in names]
            steps = arguments.get("steps_per_epoch")
            if not is_stream(arguments["x"]):
                data, steps = [rows_of(part, 0, MAX_ROWS) for part in data], None
        else:
            data = list(validation) if isinstance(validation, (tuple, list)) else [validation]
        self._arguments = dict(zip(("x", "y", "sample_weight"), data, strict=False), batch_size=size, steps=steps)

    def __call__(self, model: keras.Model) -> dict[str, float]:
        """Return the loss and the metrics. The metrics of a running `fit` aren't changed."""
        variables = [variable for metric in model.metrics for variable in metric.variables]
        values = [keras.ops.convert_to_numpy(variable) for variable in variables]
        results = model.evaluate(**self._arguments, verbose=0, return_dict=True)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return {name: float(value) for name, value in results.items() if np.ndim(value) == 0}
