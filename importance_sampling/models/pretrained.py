"""Models with pre-trained weights from `keras.applications`."""

from __future__ import annotations

import keras
from keras import layers

from importance_sampling.models.heads import check, classifier


def pretrained_resnet50(
    input_shape: tuple[int, int, int], output_size: int, weights: str | None = "imagenet"
) -> keras.Model:
    """ResNet-50 with a new dense output layer, all layers trainable; SGD with momentum 0.9, learning rate 0.001.

    The model takes images in [0, 1] and contains the preprocessing for the pre-trained weights.

    Args:
        input_shape: `(height, width, 3)`, ints of at least 32, the shape of one image.
        output_size: int >= 1, the number of classes; 1 for a binary classifier.
        weights: "imagenet" (default), which Keras downloads; the path of a weights file; or None for random weights.

    Returns:
        A compiled `keras.Model`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> pretrained_resnet50((64, 64, 3), 67, weights=None).output_shape
        (None, 67)

    Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016 (arXiv 1512.03385).
    """
    shape = check(input_shape, output_size, (3,), "(height, width, 3), at least 32 high and wide")
    if shape[2] != 3 or any(size is not None and size < 32 for size in shape[:2]):
        raise ValueError(
            "`input_shape` must be (height, width, 3), at least 32 high and wide; repeat a single channel three times. "
            f"Received: input_shape={input_shape!r}"
        )
    inputs = keras.Input(shape)
    x = keras.applications.resnet.preprocess_input(layers.Rescaling(255.0)(inputs))
    base = keras.applications.ResNet50(include_top=False, weights=weights, input_tensor=x, pooling="avg")
    optimizer = keras.optimizers.SGD(0.001, momentum=0.9)
    return classifier(inputs, base.output, output_size, optimizer, "pretrained_resnet50")
