"""The backend that the tests run on: what Keras lacks on it, and TensorFlow where it is installed.

All tests that are skipped on a backend are skipped by way of this file.
"""

import contextlib
import importlib.util
import os
import warnings

import keras
import numpy as np
import pytest

from importance_sampling.backend import keras_internals
from importance_sampling.backend.scopes import NestedScope

BACKEND = keras.config.backend()
# None in a batch, which Keras 3.8 refuses.
TAKES_NONE = not keras.__version__.startswith("3.8.")
HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None

# What Keras lacks: feature -> (the backends without it, the reason).
LACKING = {
    "jax state": ({"tensorflow", "torch"}, "only on JAX does `fit` keep the values of variables apart from them"),
    "several steps per execution": ({"torch"}, "Keras refuses `steps_per_execution` > 1 on torch"),
    "TensorFlow": (
        set() if HAS_TENSORFLOW else {"jax", "torch"},
        "TensorFlow isn't installed, whose data or files are tested",
    ),
    "batches drawn in a step": ({"torch"}, "Keras draws the batch of a step before it calls the step on torch"),
    "tf.data": ({"jax", "torch"}, "`fit` reads its data through a `tf.data` pipeline on TensorFlow alone"),
    "datasets read once": ({"jax", "torch"}, "`fit` reads the beginning of a `tf.data` dataset twice on JAX and torch"),
    "sparse and ragged inputs": ({"jax", "torch"}, "arrays of TensorFlow; Keras takes them on TensorFlow alone"),
    "draws from sparse inputs": (
        {"jax", "torch"},
        "Keras has none on torch; on JAX the library draws from dense arrays alone, and says so in a warning",
    ),
    "text inputs": ({"jax", "torch"}, "only TensorFlow has tensors of text"),
    "discretization": ({"jax", "torch"}, "Keras's `Discretization` and text layers compute with TensorFlow"),
    "logits of probabilities": (
        {"jax"},
        "arrays of JAX have no attribute for the logits, which a model without a graph of layers needs `layer=` for",
    ),
    "losses that use logits": (
        {"jax", "torch"},
        "Keras's cross-entropies compute with the logits of probabilities on TensorFlow alone",
    ),
    "draws without a seed": ({"jax"}, "Keras refuses to draw without a `SeedGenerator` in a compiled step on JAX"),
    "freezing without compiling": ({"jax"}, "`fit` of Keras on JAX refuses a layer frozen without `compile`"),
    "float64": ({"jax"}, "JAX computes in float64 only with `JAX_ENABLE_X64`"),
    "traces of any shape": ({"jax"}, "JAX traces a function again for every shape"),
    "warnings of frozen models": ({"jax"}, "`fit` of Keras says nothing of a model without trainable weights"),
    "missing gradients": ({"jax"}, "JAX returns zeros where a result doesn't depend on a tensor"),
    "masked training metrics": ({"jax"}, "the training step of Keras on JAX loses the masks of the outputs"),
    "host adapters": ({"tensorflow", "torch"}, "the library's own way to hand batches on the host to `fit` on JAX"),
    "functions of other steps": ({"torch"}, "Keras has no `_make_function` on torch"),
    "tf.function": ({"jax", "torch"}, "`tf.function` and its traces are of TensorFlow"),
    "tf.distribute": ({"jax", "torch"}, "`tf.distribute` is of TensorFlow"),
    "keras.distribution": ({"tensorflow", "torch"}, "`keras.distribution` is implemented on JAX alone"),
    "weights of 1.0.0": ({"jax", "torch"}, "version 1.0.0 ran on TensorFlow alone; others shuffle otherwise"),
    "training inside a fit": ({"jax"}, "Keras on JAX can't train a model in a callback of its own `fit`"),
    "several optimizers": ({"jax"}, "Keras on JAX hands `train_step` the state of the model's own optimizer alone"),
    "losses that are not reduced": ({"jax", "torch"}, "Keras derives a single number alone on JAX and torch"),
    "cosines of zeros": ({"torch"}, "the gradient of Keras's cosine similarity is NaN at an output of zeros on torch"),
    "classes of pixels": ({"torch"}, "PyTorch's cross-entropy of class numbers refuses outputs of convolutions"),
    "batch sizes that are no int": ({"torch"}, "PyTorch's loaders, which Keras reads on torch, refuse them"),
    "shapes that depend on values": ({"jax"}, "compiled functions of JAX have static shapes"),
    "jit_compile": ({"torch"}, "PyTorch's compiler, which Keras calls on torch, warns and may have no C++ compiler"),
    "stateful networks": ({"torch"}, "PyTorch can't derive a step of Keras's that assigns the state of a network"),
    "compiled steps": ({"torch"}, "Keras runs steps eagerly on torch, without `jit_compile`"),
}


# How often a function is called to compile it: JAX finds the variables that it uses in a first trace.
CALLS_PER_TRACE = 2 if BACKEND == "jax" else 1


def lacks(feature):
    """Return True if Keras has no such feature on the backend of the tests."""
    return BACKEND in LACKING[feature][0]


def needs(feature):
    """Return the mark of a test, or of a case of it, that needs a feature of Keras."""
    backends, reason = LACKING[feature]
    return pytest.mark.skipif(BACKEND in backends, reason=reason)


def skip_without(feature):
    """Skip the running test if Keras lacks a feature on the backend."""
    if lacks(feature):
        pytest.skip(LACKING[feature][1])


def is_traced(tensor):
    """Return True while a function is traced that is called with a tensor."""
    if BACKEND == "tensorflow":
        return not tf.executing_eagerly()
    return BACKEND == "jax" and "Tracer" in type(tensor).__name__


def several(steps):
    """Return a number of steps per execution; 1 where Keras refuses others."""
    return 1 if lacks("several steps per execution") else steps


def host(variable):
    """Return a copy of the value of a variable as a NumPy array."""
    return np.array(keras.ops.convert_to_numpy(variable.value))


def build_ahead(model, x=None, y=None, sample_weight=None, batch_size=16, **arguments):
    """Build the optimizer, loss and metrics of a built model for arrays or frames that `fit` is to be called with.

    Where variables are made in the first step, TensorFlow traces Keras's step twice: most of the time of a short `fit`.
    JAX and torch then take a batch to build with, from an order of its own: the second `fit` would have another order.
    """
    batch = keras.tree.map_structure(
        lambda leaf: leaf.to_numpy() if hasattr(leaf, "to_numpy") else leaf, (x, y, sample_weight)
    )
    leaves = [leaf for leaf in keras.tree.flatten(batch) if leaf is not None]
    if model.built and all(isinstance(leaf, np.ndarray) or keras.ops.is_tensor(leaf) for leaf in leaves):
        with contextlib.suppress(Exception):  # `fit` raises it in its own way
            first = keras.tree.map_structure(lambda leaf: None if leaf is None else leaf[:batch_size], batch)
            keras_internals.build_on_batch(model, first)


@contextlib.contextmanager
def dtype_policy(name):
    """Return a context in which the layers that are made have a dtype policy, such as "mixed_float16"."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class Missing:
    """A package that isn't installed: a test that calls anything of it is skipped."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args, **kwargs):
        if "PYTEST_CURRENT_TEST" in os.environ:
            pytest.skip(LACKING["TensorFlow"][1])
        return self  # while tests are collected


try:
    import tensorflow as tf
except ImportError:
    tf = Missing()


def compile_function(function, jit_compile=False):
    """Compile a function of tensors that assigns no variables, as far as the backend compiles functions."""
    if BACKEND == "tensorflow":
        return tf.function(function, autograph=False, jit_compile=jit_compile)
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    return function


@contextlib.contextmanager
def run_eagerly():
    """Compile nothing, on any backend."""
    if BACKEND == "jax":
        import jax

        with jax.disable_jit():
            yield
    elif BACKEND == "tensorflow":
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(False)
    else:
        yield


def gradient_function(function, variables=(), constants=0, jit_compile=False):
    """Return a function that computes gradients by the framework's own means, independently of the library.

    Args:
        function: of tensors, returns a tensor; the gradients are those of its sum.
        variables: variables to differentiate with respect to, after the tensors.
        constants: how many of the last tensors are not differentiated.
        jit_compile: compile with XLA on TensorFlow.

    Returns:
        `compute(*tensors) -> [NumPy array, ...]`.
    """
    compute = {"tensorflow": _by_tensorflow, "jax": _by_jax, "torch": _by_torch}[BACKEND]
    compute = compute(function, variables, constants, jit_compile)
    return lambda *tensors: [
        np.array(keras.ops.convert_to_numpy(gradient))
        for gradient in compute(*map(keras.ops.convert_to_tensor, tensors))
    ]


@contextlib.contextmanager
def all_warnings():
    """Record every warning but Keras's own, when it converts a tensor of torch under NumPy 2.4."""
    with warnings.catch_warnings(record=True) as captured:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy", DeprecationWarning)
        yield captured


def masked(tensor, mask):
    """Return the entries of a tensor at which a mask is True, in one row."""
    return tf.boolean_mask(tensor, mask) if BACKEND == "tensorflow" else tensor[mask]


def value_and_gradients(function, weights):
    """Return the value of a function and its gradients, as a user's `train_step` of TensorFlow or torch has them."""
    if BACKEND == "tensorflow":
        with tf.GradientTape() as tape:
            value = function()
        return value, tape.gradient(value, weights)
    import torch

    value = function()
    return value.detach(), torch.autograd.grad(value, [weight.value for weight in weights])


def _by_tensorflow(function, variables, constants, jit_compile):
    @tf.function(autograph=False, jit_compile=jit_compile)
    def compute(*tensors):
        points = [*tensors[: len(tensors) - constants], *(variable.value for variable in variables)]
        with tf.GradientTape() as tape:
            tape.watch(points)
            total = tf.reduce_sum(function(*tensors))
        return [tf.convert_to_tensor(gradient) for gradient in tape.gradient(total, points)]

    return compute


def _by_jax(function, variables, constants, jit_compile):
    import jax

    assigned = []

    def total(points, others):
        n = len(points) - len(variables)
        scope = NestedScope(list(zip(variables, points[n:], strict=True)))
        with scope:
            result = keras.ops.sum(function(*points[:n], *others))
        assigned[:] = [variable for variable, _ in scope.updates]
        return result, [value for _, value in scope.updates]

    differentiate = jax.jit(jax.grad(total, has_aux=True))

    def compute(*tensors):
        n = len(tensors) - constants
        gradients, values = differentiate([*tensors[:n], *(v.value for v in variables)], tensors[n:])
        for variable, value in zip(assigned, values, strict=True):
            variable.assign(value)
        return gradients

    return compute


def _by_torch(function, variables, constants, jit_compile):
    import torch

    def compute(*tensors):
        n = len(tensors) - constants
        points = [tensor.detach().clone().requires_grad_() for tensor in tensors[:n]]
        total = function(*points, *tensors[n:]).sum()
        return torch.autograd.grad(total, [*points, *(variable.value for variable in variables)])

    return compute
