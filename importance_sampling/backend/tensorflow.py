"""TensorFlow implementation of the backend protocol: compiled steps, gradients and tensor functions.

Steps are compiled like Keras's own (`keras.src.backend.tensorflow.trainer`), with `jit_compile` and `run_eagerly`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from importance_sampling.backend import defaults
from importance_sampling.backend.defaults import Gradients
from importance_sampling.backend.tensorflow_data import concatenate, gather

# The `jit_compile` of a small model: compiling it with XLA would take longer than the time it saves.
JIT_COMPILE_SMALL = False

# Keras's cross-entropies compute with the logits that Keras attached to probabilities.
LOSSES_USE_LOGITS = True


# Keras's training function


def stand_in(model: keras.Model, function: Callable) -> Callable:
    """Return a training function for Keras's `fit` that calls `function(iterator) -> logs`: the function itself."""
    return function


def training_function(model: keras.Model, keras_function: Callable) -> Callable:
    """Return Keras's training function as `function(iterator) -> logs`; the inverse of `stand_in`."""
    return keras_function


# Steps


def compile_step(step: Callable, model: keras.Model, reduce_retracing: bool = True) -> Callable:
    """Compile a step as Keras compiles the training step of a model.

    Args:
        step: function of tensors.
        model: a compiled model; its `run_eagerly` and `jit_compile` apply to the step.
        reduce_retracing: bool, default True, use one trace with dynamic shapes for further shapes. False traces the
            step for each shape, and shapes are static in it.
    """
    if model.run_eagerly:
        return step
    return _compiled(step, reduce_retracing=reduce_retracing, jit_compile=model.jit_compile)


def repeat_steps(step: Callable, model: keras.Model, any_rows: int | None = None) -> Callable:
    """Compile n steps in one execution.

    Args:
        step: `step(i, *inputs) -> (logs, results)`, step i of n.
        model: a compiled model; its `run_eagerly` applies.
        any_rows: int or None; tensors from this position of `inputs` on may have any number of rows in the same trace.

    Returns:
        `run(n, *inputs) -> (logs, results)`, the logs of the last step and the results of all steps, stacked.
    """

    def run_many(n, *inputs):
        logs, results = _stacked(lambda i: step(i, *inputs), n)
        return tf.nest.map_structure(lambda values: values[-1], logs), results

    def run_one(*inputs):
        logs, results = step(0, *inputs)
        return logs, tf.nest.map_structure(lambda value: value[None], results)

    if model.run_eagerly:
        return run_many
    many = _compiled(run_many, reduce_retracing=True)
    one = _compiled(run_one, reduce_retracing=True)
    concrete: dict[tuple, Callable] = {}  # traces of `run_one` by the types and shapes of tensors

    def run(n, *inputs):
        # A call with NumPy arrays, or one that looks for the trace to use, takes as long as a step of a small model.
        inputs = [tf.convert_to_tensor(value) if isinstance(value, np.ndarray) else value for value in inputs]
        if n > 1:
            return many(tf.constant(n), *inputs)  # a tensor: a smaller n at the end of an epoch needs no other trace
        if not all(isinstance(value, tf.Tensor) for value in inputs):
            return one(*inputs)
        count = len(inputs) if any_rows is None else any_rows
        shapes = [tuple(value.shape) if i < count else (None, *value.shape[1:]) for i, value in enumerate(inputs)]
        signature = tuple((value.dtype, *shape) for value, shape in zip(inputs, shapes, strict=True))
        if signature not in concrete:
            specs = [tf.TensorSpec(shape, value.dtype) for value, shape in zip(inputs, shapes, strict=True)]
            concrete[signature] = _compiled(run_one).get_concrete_function(*specs)
        return concrete[signature](*inputs)

    return run


def replicas(model: keras.Model) -> int:
    """Return the number of replicas that a model trains on."""
    return model.distribute_strategy.num_replicas_in_sync


def replicas_in_step() -> int:
    """Return the number by which Keras divides a loss that is computed here, so that replicas can add gradients."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def on_replicas(model: keras.Model, function: Callable, rows: Any) -> tuple:
    """Run a function on rows, an equal share of them on each replica of the model's `tf.distribute` strategy.

    Args:
        model: the model that the function uses.
        function: `function(rows) -> (logs, results)`, called in the context of a replica.
        rows: structure of tensors with a static number of rows, which the number of replicas divides.

    Returns:
        The logs of the first replica, and the results of all replicas, joined in the order of the rows.
    """
    strategy = model.distribute_strategy
    count = strategy.num_replicas_in_sync
    if count == 1:
        return function(rows)

    def run() -> tuple:
        index = tf.distribute.get_replica_context().replica_id_in_sync_group

        def share(tensor: Any) -> Any:
            if tensor is None:
                return None
            size = tensor.shape[0] // count
            return gather(tensor, index * size + tf.range(size))

        return function(tf.nest.map_structure(share, rows))

    def first(value: Any) -> Any:
        return strategy.experimental_local_results(value)[0]

    def join(value: Any) -> Any:
        return None if value is None else tf.concat(strategy.experimental_local_results(value), 0)

    logs, results = strategy.run(run)
    return tf.nest.map_structure(first, logs), tf.nest.map_structure(join, results)


def is_distributed(model: keras.Model) -> bool:
    """Return True if a `tf.distribute` strategy is in use, also with one replica."""
    return tf.distribute.has_strategy() or model.distribute_strategy is not tf.distribute.get_strategy()


def spans_processes(model: keras.Model) -> bool:
    """Return True if a model has replicas in other processes, whose results can't be collected in this one."""
    strategy = model.distribute_strategy
    is_of_workers = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return is_of_workers and strategy.num_replicas_in_sync > len(strategy.extended.worker_devices)


# Gradients


def differentiate(forward: Callable, variables: Sequence[keras.Variable], extra: Sequence[Any]) -> tuple:
    """Run a function and compute the gradients of its result.

    Args:
        forward: `forward(extra, tap) -> (loss, rest)`, where `tap(tensor)` marks an intermediate result: it returns the
            tensor to continue with. `rest` is a structure of tensors and other values.
        variables: trainable variables of the model, with their values in the current scope.
        extra: list of float tensors that `forward` is called with.

    Returns:
        `(Gradients, loss, rest)`. A gradient is None if the loss doesn't depend on the variable or tensor.
    """
    tapped: list = []
    with tf.GradientTape(watch_accessed_variables=False) as tape:

        def tap(tensor):
            tape.watch(tensor)
            tapped.append(tensor)
            return tensor

        values = [variable.value for variable in variables]
        tape.watch([*values, *extra])
        loss, rest = forward(extra, tap)
    found = tape.gradient(loss, [*values, *extra, *tapped])
    n, m = len(values), len(values) + len(extra)
    return Gradients(found[:n], found[n:m], found[m:]), loss, rest


def current_trace() -> Any:
    """Return an object that is equal to that of another call in the same trace, such as of the body of one loop."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def apply_gradients(model: keras.Model, gradients: Sequence[Any]) -> None:
    """Apply gradients of the trainable weights of a model with its optimizer."""
    model.optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))


def dense(gradient: Any) -> Any:
    """Convert a gradient to a dense tensor; gradients of embeddings are `tf.IndexedSlices`."""
    return tf.convert_to_tensor(gradient)


def try_train_step(model: keras.Model, batch: tuple) -> tuple[list[list], bool]:
    """Run the `train_step` of a model eagerly, with its optimizers replaced; see `defaults`. No variable changes."""
    runs_eagerly = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)  # a function that the step compiles would keep the replaced optimizer
    try:
        return defaults.try_train_step(model, batch)
    finally:
        tf.config.run_functions_eagerly(runs_eagerly)


def per_sample_grad_norms(sample_loss: Callable, samples: Any, weights: Sequence[Any], vectorised: bool) -> Any:
    """Compute the norm of d(sample_loss)/d(weights) for each sample.

    Args:
        sample_loss: function from a structure of tensors with one row to a scalar loss.
        samples: structure of tensors with one row per sample.
        weights: list of variables.
        vectorised: bool, compute all samples at once. Must be False if the loss contains a loop over time, such as an
            RNN, whose gradient can't be vectorised.

    Returns:
        float32 `(rows,)`.
    """

    def norm(sample):
        rows = tf.nest.map_structure(lambda t: t[None], sample)
        gradients = differentiate(lambda extra, tap: (sample_loss(rows), None), weights, ())[0].variables
        squares = [
            tf.reduce_sum(tf.square(tf.cast(tf.convert_to_tensor(g), tf.float32))) for g in gradients if g is not None
        ]
        return tf.sqrt(tf.add_n(squares)) if squares else tf.zeros(())

    if vectorised:
        return tf.vectorized_map(norm, samples)
    return tf.map_fn(norm, samples, fn_output_signature=tf.float32)


# Tensors


def to_host(variable: keras.Variable) -> np.ndarray:
    """Return a variable's value on the host; bfloat16, which NumPy can't save to files, as float32."""
    value = variable.value
    return (tf.cast(value, tf.float32) if value.dtype == tf.bfloat16 else value).numpy()


def searchsorted(ascending: Any, values: Any) -> Any:
    """Return for each value the number of ascending numbers that are at most as large, int32.

    `keras.ops.searchsorted` needs eager tensors up to Keras 3.10.
    """
    return tf.searchsorted(ascending, values, side="right")


def map_chunks(function: Callable, data: Any, size: int, slice_size: int) -> Any:
    """Apply a function to slices of data one after another, and concatenate its results.

    Only one slice is in use at a time, which limits the memory.

    Args:
        function: from a structure of tensors to a structure of tensors with as many rows.
        data: structure of tensors with `size` rows.
        size: int, the static number of rows.
        slice_size: int, the number of rows of a slice; the last slice may be smaller.
    """
    if slice_size >= size:
        return function(data)
    count, rest = divmod(size, slice_size)

    def apply(start, length):
        return function(tf.nest.map_structure(lambda t: _static_rows(t, start, length), data))

    stacked = _stacked(lambda i: apply(i * slice_size, slice_size), count)
    joined = tf.nest.map_structure(lambda t: tf.reshape(t, (count * slice_size, *t.shape[2:])), stacked)
    return concatenate([joined, apply(count * slice_size, rest)]) if rest else joined


def _compiled(function: Callable, **options: Any) -> Callable:
    """Return a compiled function.

    TensorFlow counts traces by code object, and would warn about retracing after a few trainers in one process. A
    partial has none, so that each is counted by itself.
    """
    return tf.function(functools.partial(function), autograph=False, **options)


def _static_rows(tensor: Any, start: Any, length: int) -> Any:
    """Return `length` rows from `start` on, with a static shape even if `start` is a tensor."""
    if not isinstance(tensor, tf.Tensor):  # sparse or ragged
        return gather(tensor, start + tf.range(length))
    return tf.ensure_shape(tensor[start : start + length], (length, *tensor.shape[1:]))


def _stacked(produce: Callable, n: Any) -> Any:
    """Return the results of `produce(0)`, ..., `produce(n - 1)`, computed in this order, stacked leaf by leaf."""
    if tf.executing_eagerly():
        return tf.nest.map_structure(lambda *leaves: tf.stack(leaves), *[produce(i) for i in range(n)])
    stacks = tf.nest.map_structure(
        lambda leaf: tf.TensorArray(leaf.dtype, n, element_shape=leaf.shape).write(0, leaf), produce(0)
    )

    def body(i, stacks):
        return i + 1, tf.nest.map_structure(lambda stack, leaf: stack.write(i, leaf), stacks, produce(i))

    _, stacks = tf.while_loop(lambda i, _: i < n, body, (tf.constant(1), stacks), parallel_iterations=1)
    return tf.nest.map_structure(lambda stack: stack.stack(), stacks)
