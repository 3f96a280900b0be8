"""Models of dense layers. Inputs of any shape are flattened."""

from __future__ import annotations

import keras
from keras import layers

from importance_sampling.models.heads import check, classifier, flattened


def small_nn(input_shape: tuple[int, ...], output_size: int) -> keras.Model:
    """Two hidden layers of 40 units with ReLU; Adam with learning rate 0.001.

    Args:
        input_shape: tuple of ints, the shape of one sample.
        output_size: int >= 1, the number of classes; 1 for a binary classifier.

    Returns:
        A compiled `keras.Model`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> small_nn((2,), 2).output_shape
        (None, 2)
    """
    inputs = keras.Input(check(input_shape, output_size, (), "such as (784,)"))
    x = flattened(inputs)
    for _ in range(2):
        x = layers.Dense(40, activation="relu")(x)
    return classifier(inputs, x, output_size, keras.optimizers.Adam(0.001), "small_nn")


def lr(input_shape: tuple[int, ...], output_size: int) -> keras.Model:
    """Logistic regression: one dense layer; SGD with learning rate 0.1.

    Args:
        input_shape: tuple of ints, the shape of one sample.
        output_size: int >= 1, the number of classes; 1 for a binary classifier.

    Returns:
        A compiled `keras.Model`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> lr((28, 28, 1), 10).count_params()
        7850
    """
    inputs = keras.Input(check(input_shape, output_size, (), "such as (784,)"))
    return classifier(inputs, flattened(inputs), output_size, keras.optimizers.SGD(0.1), "lr")


def svrg_nn(input_shape: tuple[int, ...], output_size: int) -> keras.Model:
    """One hidden layer of 100 sigmoid units, L2 regularisation of the kernels; SGD with learning rate 0.1.

    The penalty is 0.0001 / 2 times the sum of the squared weights w; its gradient is 0.0001 w.

    Args:
        input_shape: tuple of ints, the shape of one sample.
        output_size: int >= 1, the number of classes; 1 for a binary classifier.

    Returns:
        A compiled `keras.Model`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> svrg_nn((784,), 10).count_params()
        79510

    Source: Johnson & Zhang, Accelerating Stochastic Gradient Descent using Predictive Variance Reduction, NIPS 2013,
    section 5, for the network but not for the learning rate.
    """
    inputs = keras.Input(check(input_shape, output_size, (), "such as (784,)"))
    penalty = 0.5e-4
    x = layers.Dense(100, activation="sigmoid", kernel_regularizer=keras.regularizers.L2(penalty))(flattened(inputs))
    optimizer = keras.optimizers.SGD(0.1)
    return classifier(inputs, x, output_size, optimizer, "svrg_nn", keras.regularizers.L2(penalty))
