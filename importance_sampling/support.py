"""What importance sampling can't be done for, told before the first step.

Where Keras trains and samples can't be weighed, training goes on plainly with one warning that gives the reason and
the remedy. What only shows once the loss is computed is found in `weighted_loss`. Nothing is changed here.
"""

from __future__ import annotations

import keras

from importance_sampling import backend


def obstacle(model: keras.Model) -> str | None:
    """Why the samples of a model can't be weighed, with the remedy, as a clause; None if they can."""
    if backend.has_custom_loop(model):
        return (
            f"{type(model).__name__} has a training step of its own, which weights can't be handed to. Move what is "
            "special about it to `call` and `compute_loss`"
        )
    if backend.replicas(model) > 1:
        return f"it trains on {backend.replicas(model)} replicas. Train on one"
    if model.optimizer is None or (model.built and not model.trainable_variables):
        return "it has no trainable weights, or no optimizer"
    if model._compile_loss is None:
        return "no loss was passed to `compile`. Pass one; `add_loss` alone can't be weighed by sample"
    for layer in model._flatten_layers():
        if getattr(layer, "stateful", False) and isinstance(layer, keras.layers.RNN):
            return f"the layer `{layer.name}` is a stateful RNN, whose rows must stay in order. Use stateful=False"
        if layer.activity_regularizer is not None:
            return (
                f"the layer `{layer.name}` has an activity regulariser, a plain mean over whatever batch it sees, "
                "which can't be weighed by sample. Use a weight regulariser"
            )
    return None


def added_losses(model: keras.Model) -> str | None:
    """Why `add_loss` stands in the way, once the model has been called; None if it doesn't."""
    for layer in model._flatten_layers():
        if layer._losses:
            return (
                f"the layer `{layer.name}` adds a loss with `add_loss`, a plain number for the batch, which can't be "
                "weighed by sample. Make it part of the compiled loss"
            )
    return None


def remarks(model: keras.Model) -> list[str]:
    """What is worth a line in the summary."""
    kinds = {type(layer) for layer in model._flatten_layers()}
    lines = []
    if any(issubclass(kind, keras.layers.BatchNormalization) for kind in kinds):
        lines.append(
            "The model has batch normalisation: its statistics come from the picked batches, and the figures of "
            "importance steps from inference mode."
        )
    if any("Dropout" in kind.__name__ for kind in kinds):
        lines.append("The model has dropout: scores and the figures of importance steps are taken without it.")
    return lines
