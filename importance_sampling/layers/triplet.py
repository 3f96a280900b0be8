"""The difference of distances in the triplet loss: `TripletLossLayer`.

Source: [FaceNet] Schroff, Kalenichenko & Philbin, FaceNet (arXiv 1503.03832), section 3.1, without margin and hinge.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from importance_sampling.layers.per_sample import PerSampleLayer


@keras.saving.register_keras_serializable(package="importance_sampling")
class TripletLossLayer(PerSampleLayer):
    """Compute the difference of squared distances: called on `[anchor, positive, negative]`, returns `(batch, 1)`.

    t_i = ||a_i - p_i||^2 - ||a_i - n_i||^2

    FaceNet minimises max(0, t_i + margin). Put margin and hinge into the compiled loss. The output of the model is then
    the difference itself: metrics can use it (a triplet is correct if t_i < 0), and scores can be computed before the
    hinge, where they aren't zero. FaceNet's embeddings have norm 1; this layer doesn't normalise them. The result is
    computed and returned in float32 (float64 with a float64 policy).

    Args:
        **kwargs: of `keras.layers.Layer`: name, dtype, trainable.

    Call arguments:
        inputs: list of three float tensors `(batch, d)`. Further axes are summed too.

    Returns:
        float32 `(batch, 1)`, positive or negative.

    Raises:
        ValueError: the inputs aren't three tensors of equal shape.

    Example:
        >>> a, p, n = np.array([[0.0, 0.0]]), np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])
        >>> keras.ops.convert_to_numpy(TripletLossLayer()([a, p, n])).tolist()  # 1 - 4
        [[-3.0]]
        >>> hinge = lambda y_true, t: keras.ops.relu(t + 0.2)  # y_true is unused; pass zeros to `fit`

    Source: [FaceNet], section 3.1.
    """

    INPUTS = ("anchor", "positive", "negative")

    def check_shapes(self, shapes: Any) -> None:
        """Check that there are three equal shapes.

        Raises:
            ValueError: the number of shapes is wrong, or they differ.
        """
        super().check_shapes(shapes)
        embeddings = {tuple(shape[1:]) for shape in shapes}
        if len(embeddings) == 1 and () not in embeddings:
            return
        raise ValueError(
            "`anchor`, `positive` and `negative` must have equal shapes (batch, d): compute all three with the same "
            f"embedding model. Received: shapes={shapes}"
        )

    def values(self, anchor: Any, positive: Any, negative: Any, mask: Any = None) -> Any:
        """Return the difference of every triplet, `(batch,)`."""
        anchor, positive, negative = (ops.cast(t, self.result_dtype) for t in (anchor, positive, negative))
        axes = tuple(range(1, len(anchor.shape)))
        return ops.sum(ops.square(anchor - positive), axis=axes) - ops.sum(ops.square(anchor - negative), axis=axes)
