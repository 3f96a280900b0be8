"""TensorFlow's side of the rim: compiled steps and gradients.

It follows `keras.src.backend.tensorflow.trainer` in how a step is compiled (jit, eager), and doesn't decide anything
about sampling.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from importance_sampling.backend import keras_internals
from importance_sampling.backend.tensorflow_data import concatenate, gather

# Steps


def compile_step(step: Callable, model: keras.Model, reduce_retracing: bool = True) -> Callable:
    """Compile `step` the way that Keras compiles `model`'s own: a graph, with XLA or eager as the user chose.

    Without `reduce_retracing` every shape is traced by itself, and known to the step.
    """
    if model.run_eagerly:
        return step
    return tf.function(step, autograph=False, reduce_retracing=reduce_retracing, jit_compile=model.jit_compile)


def run_steps(step: Callable, model: keras.Model) -> Callable:
    """Make `run(pools, n)`: n steps in one execution, returning the last logs and what every step drew, stacked."""
    step = compile_step(step, model)

    def run_many(pools, n):
        logs, drawn = _stacked(lambda _: step(*next(pools)), n)
        return tf.nest.map_structure(lambda one: one[-1], logs), drawn

    def run_one(pools):
        logs, drawn = step(*next(pools))
        return logs, tf.nest.map_structure(lambda one: one[None], drawn)

    if model.run_eagerly:
        return run_many
    many = tf.function(run_many, autograph=False, reduce_retracing=True)
    one = tf.function(run_one, autograph=False, reduce_retracing=True)
    # n is a tensor: the rest of an epoch is a smaller n, and must not be another trace.
    return lambda pools, n: one(pools) if n == 1 else many(pools, tf.constant(n))


def replicas(model: keras.Model) -> int:
    """On how many replicas the model trains."""
    return model.distribute_strategy.num_replicas_in_sync


def is_distributed(model: keras.Model) -> bool:
    """Whether a strategy feeds the model, be it of one replica."""
    return tf.distribute.has_strategy() or model.distribute_strategy is not tf.distribute.get_strategy()


def has_custom_loop(model: keras.Model, names: Sequence[str] = keras_internals.STEP_METHODS) -> bool:
    """Whether the model's class, or the model itself, replaces Keras's training step or the making of it."""
    return any(name in vars(model) or getattr(type(model), name) is not getattr(keras.Model, name) for name in names)


# Gradients


@contextlib.contextmanager
def recording(watched: Sequence[Any] = ()) -> Iterator[Callable]:
    """Record what is computed while open; yields `gradient(loss, points)`, to be asked as often as wanted.

    The points may be tensors that only come into being while it records. A point that the loss doesn't depend on has
    the gradient None. Gradients are constants to whatever is recorded after them.
    """
    with tf.GradientTape(persistent=True) as tape:
        for tensor in watched:
            tensor = tensor.value if isinstance(tensor, keras.Variable) else tensor
            if tensor.dtype.is_floating:
                tape.watch(tensor)

        def gradient(loss, points):
            with tape.stop_recording():
                return tape.gradient(loss, [p.value if isinstance(p, keras.Variable) else p for p in points])

        yield gradient


def differentiate(forward: Callable, watched: Sequence[Any]) -> tuple:
    """Record `forward() -> (loss, points, rest)` and return `(gradients of loss at points, loss, rest)`."""
    with recording(watched) as gradient:
        loss, points, rest = forward()
        return gradient(loss, points), loss, rest


def dense(gradient: Any) -> Any:
    """A gradient as a plain tensor; those of embeddings come as rows."""
    return tf.convert_to_tensor(gradient)


def gradient_norms(sample_loss: Callable, samples: Any, weights: Sequence[Any], vectorised: bool) -> Any:
    """The norm of d(sample_loss)/d(weights) for every sample of the slice `samples`.

    All at once if `vectorised`; gradients of loops over time can't be vectorised, and go one by one.
    """

    def norm(sample):
        rows = tf.nest.map_structure(lambda t: t[None], sample)
        gradients, _, _ = differentiate(lambda: (sample_loss(rows), weights, None), ())
        squares = [
            tf.reduce_sum(tf.square(tf.cast(tf.convert_to_tensor(g), tf.float32))) for g in gradients if g is not None
        ]
        return tf.sqrt(tf.add_n(squares))

    if vectorised:
        return tf.vectorized_map(norm, samples)
    return tf.map_fn(norm, samples, fn_output_signature=tf.float32)


# Tensors


def host(variable: keras.Variable) -> np.ndarray:
    """Return a variable's value on the host; bfloat16, which NumPy can't save to files, as float32."""
    value = variable.value
    return (tf.cast(value, tf.float32) if value.dtype == tf.bfloat16 else value).numpy()


def searchsorted(ascending: Any, values: Any) -> Any:
    """How many of the ascending numbers are at most each value, int32; Keras's own needed eager tensors up to 3.10."""
    return tf.searchsorted(ascending, values, side="right")


def map_slices(function: Callable, data: Any, size: int, slice_size: int) -> Any:
    """Apply `function` to slices of `data` (`size` rows), one after another, and join what it returns.

    One after another is the point: the memory that is held is a slice's.
    """
    if slice_size >= size:
        return function(data)
    count, rest = divmod(size, slice_size)

    def one(start, length):
        return function(tf.nest.map_structure(lambda t: _static_rows(t, start, length), data))

    stacked = _stacked(lambda i: one(i * slice_size, slice_size), count)
    joined = tf.nest.map_structure(lambda t: tf.reshape(t, (count * slice_size, *t.shape[2:])), stacked)
    return concatenate([joined, one(count * slice_size, rest)]) if rest else joined


def _static_rows(tensor: Any, start: Any, length: int) -> Any:
    """`length` rows from `start` on, with a static shape though `start` is a tensor."""
    if not isinstance(tensor, tf.Tensor):  # sparse and ragged ones
        return gather(tensor, start + tf.range(length))
    return tf.ensure_shape(tensor[start : start + length], (length, *tensor.shape[1:]))


def _stacked(produce: Callable, n: Any) -> Any:
    """`produce(0)`, ..., `produce(n - 1)`, one after another, stacked leaf by leaf."""
    if tf.executing_eagerly():
        return tf.nest.map_structure(lambda *leaves: tf.stack(leaves), *[produce(i) for i in range(n)])
    stacks = tf.nest.map_structure(
        lambda leaf: tf.TensorArray(leaf.dtype, n, element_shape=leaf.shape).write(0, leaf), produce(0)
    )

    def body(i, stacks):
        return i + 1, tf.nest.map_structure(lambda stack, leaf: stack.write(i, leaf), stacks, produce(i))

    _, stacks = tf.while_loop(lambda i, _: i < n, body, (tf.constant(1), stacks), parallel_iterations=1)
    return tf.nest.map_structure(lambda stack: stack.stack(), stacks)
