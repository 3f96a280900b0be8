"""The backend that the tests run on: what Keras lacks on it, and TensorFlow where it is installed.

All tests that are skipped on a backend are skipped by way of this file.
"""

import os

import keras
import numpy as np
import pytest

BACKEND = keras.config.backend()

# What Keras lacks: feature -> (the backends without it, the reason).
LACKING = {
    "jax state": ({"tensorflow", "torch"}, "only on JAX does `fit` keep the values of variables apart from them"),
    "several steps per execution": ({"torch"}, "Keras refuses `steps_per_execution` > 1 on torch"),
    "tf.data": ({"jax", "torch"}, "`fit` reads its data through a `tf.data` pipeline on TensorFlow alone"),
    "sparse and ragged inputs": ({"jax", "torch"}, "arrays of TensorFlow; Keras takes them on TensorFlow alone"),
    "text inputs": ({"jax", "torch"}, "only TensorFlow has tensors of text"),
    "losses that use logits": (
        {"jax", "torch"},
        "Keras's cross-entropies compute with the logits of probabilities on TensorFlow alone",
    ),
    "tf.function": ({"jax", "torch"}, "`tf.function` and its traces are of TensorFlow"),
    "tf.distribute": ({"jax", "torch"}, "`tf.distribute` is of TensorFlow"),
    "compiled steps": ({"torch"}, "Keras runs steps eagerly on torch"),
}


def lacks(feature):
    """Return True if Keras has no such feature on the backend of the tests."""
    return BACKEND in LACKING[feature][0]


def needs(feature):
    """Return the mark of a test, or of a case of it, that needs a feature of Keras."""
    backends, reason = LACKING[feature]
    return pytest.mark.skipif(BACKEND in backends, reason=reason)


def host(variable):
    """Return a copy of the value of a variable as a NumPy array."""
    return np.array(keras.ops.convert_to_numpy(variable.value))


class Missing:
    """A package that isn't installed: a test that calls anything of it is skipped."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args, **kwargs):
        if "PYTEST_CURRENT_TEST" in os.environ:
            pytest.skip("TensorFlow isn't installed")
        return self  # while tests are collected


try:
    import tensorflow as tf
except ImportError:
    tf = Missing()
