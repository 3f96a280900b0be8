"""The figure by which a comparison judges the ways to train: the loss, or a metric by its name in Keras's logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras

from importance_sampling.utils.validation import is_one_of

MODES = ("auto", "min", "max")
HIGHER = ("acc", "auc", "precision", "recall", "f1")  # parts of names of figures of which the highest value is the best


class Figure(NamedTuple):
    """A figure of the measurements of a comparison.

    Args:
        key: str, its name in a measurement.
        name: str, what sentences and plots call it.
        monitor: str, its name in Keras's logs.
        maximised: bool, True: higher values are better.
    """

    key: str = "loss"
    name: str = "validation loss"
    monitor: str = "val_loss"
    maximised: bool = False

    @property
    def best(self) -> str:
        """What a sentence calls the best value: "highest" or "lowest"."""
        return "highest" if self.maximised else "lowest"

    @property
    def stopping(self) -> str:
        """A call of Keras's `EarlyStopping` that restores the weights with the best value."""
        monitor = "" if self == LOSS else f'"{self.monitor}", mode="{"max" if self.maximised else "min"}", '
        return f"EarlyStopping({monitor}restore_best_weights=True)"


LOSS = Figure()


def loss_figure(prefix: str, mode: str = "auto") -> Figure:
    """Return the loss; `prefix` is "val_" for that of the validation data, otherwise ""."""
    return Figure("loss", "validation loss" if prefix else "training loss", f"{prefix}loss", mode == "max")


def figure_of(monitor: str, mode: str, prefix: str, results: Mapping[str, float], model: keras.Model) -> Figure:
    """Return the figure with a name of Keras's logs.

    Args:
        monitor: str, such as "val_auc".
        mode: "min", "max", or "auto": what Keras's `EarlyStopping` infers, or the name says.
        prefix: "val_" if the model is evaluated on validation data, otherwise "".
        results: the loss and the metrics of an evaluation, by name.
        model: the model that was evaluated.

    Raises:
        ValueError: there is no such figure, or its direction can't be inferred.
    """
    names = [f"{prefix}{name}" for name in sorted(results, key=lambda name: name != "loss")]
    if monitor not in names:
        data = "the validation data" if prefix else "training samples, because there are no validation data"
        raise ValueError(
            f"`monitor` must be a figure of the model on {data}: one of {', '.join(names)}. "
            f"Received: monitor={monitor!r}"
        )
    key = monitor.removeprefix(prefix)
    if key == "loss":
        return loss_figure(prefix, mode)
    return Figure(key, monitor if prefix else f"training {key}", monitor, _is_maximised(monitor, mode, model))


def check_mode(monitor: Any, mode: Any) -> None:
    """Check the arguments `monitor` and `mode` as far as this is possible without a model.

    Raises:
        ValueError: one of them is invalid.
    """
    if monitor is not None and not isinstance(monitor, str):
        raise ValueError(
            '`monitor` must be the name of a figure in Keras\'s logs, such as "val_accuracy", or None for the loss. '
            f"Received: monitor={monitor!r}"
        )
    if not is_one_of(mode, MODES) or (monitor is None and mode == "max"):
        raise ValueError(
            '`mode` must be "auto", "min" or "max", and "max" needs a `monitor`: the figure that is to be high. '
            f"Received: mode={mode!r}, monitor={monitor!r}"
        )


def _is_maximised(monitor: str, mode: str, model: keras.Model) -> bool:
    if mode != "auto":
        return mode == "max"
    name = monitor.removeprefix("val_")
    if name.endswith("_loss"):  # of one of several outputs
        return False
    # Keras's callback is asked which of two values it takes for the better one.
    stopping = keras.callbacks.EarlyStopping(monitor, patience=2)
    stopping.set_model(model)
    stopping.on_train_begin()
    try:
        for epoch, value in enumerate((0.0, 1.0)):
            stopping.on_epoch_end(epoch, {monitor: value})
    except ValueError as error:
        if any(part in name.lower() for part in HIGHER):
            return True
        raise ValueError(
            '`mode` must be set for a `monitor` whose direction can\'t be inferred from its name: to "max" if higher '
            f"values are better, otherwise to \"min\". Received: monitor={monitor!r}, mode='auto'"
        ) from error
    return stopping.best == 1.0
