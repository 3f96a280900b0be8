"""The triplet loss's difference of distances, as a layer: `TripletLossLayer`.

Source: Schroff, Kalenichenko & Philbin, FaceNet (arXiv 1503.03832), section 3.1, without margin and hinge, which belong
to the loss that follows. It embeds nothing, normalises nothing and mines no triplets.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from importance_sampling.layers.per_sample import PerSampleLayer


@keras.saving.register_keras_serializable(package="importance_sampling")
class TripletLossLayer(PerSampleLayer):
    """How much farther the positive is than the negative: called on `[anchor, positive, negative]`, `(batch, 1)`.

    t_i = ||a_i - p_i||^2 - ||a_i - n_i||^2

    FaceNet minimises max(0, t_i + margin). Margin and hinge are left to the compiled loss, so that the model's output
    stays the distance itself, which a metric can read (a triplet is in order where t_i < 0), and scores may be taken
    ahead of the hinge, where they aren't zero. FaceNet's embeddings have norm 1: normalise them ahead of this layer,
    if that is wanted. Computed in float32 (float64 under a float64 policy), and returned so.

    Args:
        **kwargs: of `keras.layers.Layer`: name, dtype, trainable.

    Call arguments:
        inputs: list of three float tensors `(batch, d)`; further axes are summed over as well.

    Returns:
        float32 `(batch, 1)`, any real number.

    Raises:
        ValueError: the inputs aren't three tensors of one shape.

    Example:
        >>> a, p, n = np.array([[0.0, 0.0]]), np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])
        >>> TripletLossLayer()([a, p, n])  # 1 - 4 = [[-3.0]]
        >>> hinge = lambda y_true, t: keras.ops.relu(t + 0.2)  # y_true is not used; hand `fit` zeros

    Source: [FaceNet], section 3.1.
    """

    INPUTS = ("anchor", "positive", "negative")

    def check_shapes(self, shapes: Any) -> None:
        """Raise unless there are three shapes that agree.

        Raises:
            ValueError: there aren't.
        """
        super().check_shapes(shapes)
        embeddings = {tuple(shape[1:]) for shape in shapes}
        if len(embeddings) == 1 and () not in embeddings:
            return
        raise ValueError(
            "`anchor`, `positive` and `negative` must be embeddings of one shape, (batch, d): make all three with one "
            f"embedding model. Received: shapes={shapes}"
        )

    def values(self, anchor: Any, positive: Any, negative: Any, mask: Any = None) -> Any:
        """The difference for every triplet, `(batch,)`."""
        anchor, positive, negative = (ops.cast(t, self.result_dtype) for t in (anchor, positive, negative))
        rest = tuple(range(1, len(anchor.shape)))
        return ops.sum(ops.square(anchor - positive), axis=rest) - ops.sum(ops.square(anchor - negative), axis=rest)
