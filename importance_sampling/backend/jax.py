"""JAX implementation of the backend protocol: compiled steps, gradients and tensor functions.

A compiled function of JAX can't assign variables. `compile_step` passes their values to it and assigns those that it
returns. Steps are compiled like Keras's own (`keras.src.backend.jax.trainer`), with `jit_compile` and `run_eagerly`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import keras
import numpy as np

from importance_sampling.backend import keras_internals
from importance_sampling.backend.defaults import Gradients
from importance_sampling.backend.jax_data import concatenate
from importance_sampling.backend.scopes import NestedScope, replaced_attribute

# The `jit_compile` of a small model: without it, JAX would run it eagerly.
JIT_COMPILE_SMALL = True


# Keras's training function


def stand_in(model: keras.Model, function: Callable) -> Callable:
    """Return a training function for Keras's `fit` that calls `function(iterator) -> logs`.

    While `fit` runs on JAX, the variables of the model have no values: the values are passed to the training function
    and returned by it. Around `function` they are put into the variables.
    """

    def train_function(state: tuple, iterator: Iterator) -> tuple:
        keras_internals.discard_jax_state(model)  # the values of the last step, which a callback's model would return
        _put_state(model, state)
        logs = function(iterator)
        return logs, _take_state(model)

    return train_function


def training_function(model: keras.Model, keras_function: Callable) -> Callable:
    """Return Keras's training function as `function(iterator) -> logs`; the inverse of `stand_in`."""

    def function(iterator: Iterator) -> dict:
        before = _take_state(model)
        try:
            logs, state = keras_function(before, iterator)
        except BaseException:
            _put_state(model, before)  # as Keras does, whose copy the stand-in has discarded
            raise
        _put_state(model, state)
        return logs

    return function


def _state_variables(model: keras.Model) -> list[list[keras.Variable]]:
    """Return the variables of the four parts of the state, in the order of Keras's training function."""
    optimizer_variables = model.optimizer.variables if model.optimizer is not None else []
    return [
        model.trainable_variables,
        model.non_trainable_variables,
        optimizer_variables,
        model.metrics_variables,
    ]


def _take_state(model: keras.Model) -> tuple:
    groups = _state_variables(model)
    state = tuple([keras_internals.raw_value(variable) for variable in group] for group in groups)
    for group in groups:
        for variable in group:
            keras_internals.set_raw_value(variable, None)
    return state


def _put_state(model: keras.Model, state: tuple) -> None:
    for group, values in zip(_state_variables(model), state, strict=True):
        for variable, value in zip(group, values, strict=True):
            keras_internals.set_raw_value(variable, value)


# Steps


def compile_step(step: Callable, model: keras.Model, reduce_retracing: bool = True) -> Callable:
    """Compile a step as Keras compiles the training step of a model.

    Args:
        step: function of structures of arrays.
        model: a compiled model; its `run_eagerly` and `jit_compile` apply to the step.
        reduce_retracing: bool; without effect: shapes are always static.
    """
    if model.run_eagerly or not model.jit_compile:
        return step
    return _CompiledStep(step)


def shapes_of(function: Callable, model: keras.Model) -> Any:
    """Return the shapes and dtypes of results without computing them: JAX would compile every operation for itself.

    Args:
        function: called without arguments; may assign variables in a scope around this call.
        model: the model that it calls. A model that runs eagerly may look at values, so these are computed.
    """
    return function() if model.run_eagerly or not model.jit_compile else jax.eval_shape(function)


class _CompiledStep:
    """A step that is compiled for each signature of its arguments.

    Args:
        step: function of structures of arrays, which may read and assign variables.
    """

    def __init__(self, step: Callable):
        self._step = step
        self._traces: dict[tuple, tuple[Callable, list, list]] = {}

    def __call__(self, *args: Any) -> Any:
        leaves, structure = jax.tree.flatten(args)
        key = (structure, tuple((np.shape(leaf), jnp.result_type(leaf)) for leaf in leaves))
        if key not in self._traces:
            self._traces[key] = self._trace(args)
        compiled, assigned, read = self._traces[key]
        read_values = [keras_internals.raw_value(variable) for variable in read]
        values = _copied_if_shared([keras_internals.raw_value(variable) for variable in assigned], read_values)
        results, values = compiled(values, read_values, args)
        for variable, value in zip(assigned, values, strict=True):
            keras_internals.set_raw_value(variable, value)
        return results

    def _trace(self, args: tuple) -> tuple[Callable, list, list]:
        """Return the compiled function, the variables that the step assigns, and those that it only reads."""
        scope = NestedScope()

        def record(args: tuple) -> Any:
            with scope:
                return self._step(*args)

        jax.eval_shape(record, args)
        assigned = [variable for variable, _ in scope.updates]
        ids = set(map(id, assigned))
        read = [variable for variable in scope.read.values() if id(variable) not in ids]

        def run(assigned_values: list, read_values: list, args: tuple) -> tuple:
            state = zip([*assigned, *read], [*assigned_values, *read_values], strict=True)
            with NestedScope(list(state)) as scope:
                results = self._step(*args)
            return results, [scope.get_current_value(variable) for variable in assigned]

        return jax.jit(run, donate_argnums=0), assigned, read


def _copied_if_shared(values: list, others: list) -> list:
    """Return arrays whose memory a step may use for its results: copies of those that several variables share."""
    seen = set(map(id, others))
    result = []
    for value in values:
        result.append(jnp.copy(value) if id(value) in seen else value)
        seen.add(id(value))
    return result


def repeat_steps(step: Callable, model: keras.Model, any_rows: int | None = None) -> Callable:
    """Return a function that takes n compiled steps, as Keras takes `steps_per_execution` steps on JAX.

    Args:
        step: `step(i, *inputs) -> (logs, results)`, step i of n.
        model, any_rows: without effect.

    Returns:
        `run(n, *inputs) -> (logs, results)`, the logs of the last step and the results of all steps, stacked.
    """

    def run(n: int, *inputs: Any) -> tuple:
        steps = [step(i, *inputs) for i in range(n)]
        return steps[-1][0], jax.tree.map(lambda *leaves: jnp.stack(leaves), *[results for _, results in steps])

    return run


# Gradients


def differentiate(forward: Callable, variables: Sequence[keras.Variable], extra: Sequence[Any]) -> tuple:
    """Run a function and compute the gradients of its result.

    Args:
        forward: `forward(extra, tap) -> (loss, rest)`, where `tap(tensor)` marks an intermediate result: it returns the
            tensor to continue with. `rest` is a structure of tensors and other values. It is called more than once.
        variables: trainable variables of the model, with their values in the current scope.
        extra: list of float tensors that `forward` is called with.

    Returns:
        `(Gradients, loss, rest)`. A gradient is zero if the loss doesn't depend on the variable or tensor.
    """
    values = [variable.value for variable in variables]
    others: dict = {}  # the parts of the last results that are no arrays, and the variables that were assigned

    def run(values: list, extra: list, zeros: list | None) -> tuple:
        tapped: list = []

        def tap(tensor: Any) -> Any:
            # The gradient at an added zero is that at the tensor.
            marked = tensor if zeros is None else tensor + zeros[len(tapped)]
            tapped.append(tensor)
            return marked

        with NestedScope(list(zip(variables, values, strict=True))) as scope:
            loss, rest = forward(extra, tap)
        arrays, others["rest"] = _partition(rest)
        others["assigned"] = [variable for variable, _ in scope.updates]
        return loss, (arrays, [value for _, value in scope.updates], tapped)

    shapes = jax.eval_shape(lambda: run(values, list(extra), None)[1][2])
    zeros = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
    derivative = jax.value_and_grad(run, argnums=(0, 1, 2), has_aux=True)
    (loss, (arrays, updates, _)), gradients = derivative(values, list(extra), zeros)
    for variable, value in zip(others["assigned"], updates, strict=True):
        variable.assign(value)
    return Gradients(*gradients), loss, _combine(arrays, others["rest"])


def current_trace() -> Any:
    """Return an object that is equal to that of another call in the same trace, such as of the body of one loop."""
    return jax.extend.core.get_opaque_trace_state(convention="flax")


def _partition(structure: Any) -> tuple[list, tuple]:
    """Split a structure into its arrays, which a function of JAX can return, and everything else."""
    leaves, tree = jax.tree.flatten(structure)
    is_array = [isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves]
    arrays = [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]
    return arrays, ([None if array else leaf for leaf, array in zip(leaves, is_array, strict=True)], is_array, tree)


def _combine(arrays: list, others: tuple) -> Any:
    """Return the structure that `_partition` split."""
    leaves, is_array, tree = others
    remaining = iter(arrays)
    joined = [next(remaining) if array else leaf for leaf, array in zip(leaves, is_array, strict=True)]
    return jax.tree.unflatten(tree, joined)


def apply_gradients(model: keras.Model, gradients: Sequence[Any]) -> None:
    """Apply gradients of the trainable weights of a model with its optimizer, as Keras's own step does."""
    weights, slots = model.trainable_variables, model.optimizer.variables
    new_weights, new_slots = model.optimizer.stateless_apply(
        [slot.value for slot in slots], list(gradients), [weight.value for weight in weights]
    )
    for variable, value in zip([*weights, *slots], [*new_weights, *new_slots], strict=True):
        variable.assign(value)


def try_train_step(model: keras.Model, batch: tuple) -> tuple[list[list], bool]:
    """Run the `train_step` of a model eagerly, with its optimizers replaced. No variable changes; see `defaults`."""
    calls: list[list] = []

    def record(slots: Any, gradients: Any, variables: Any, **_: Any) -> tuple:
        calls.append(list(gradients))
        return variables, slots

    state = tuple([variable.value for variable in group] for group in _state_variables(model))
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.disable_jit())  # a function that the step compiles would keep the replaced optimizer
        for optimizer in keras_internals.optimizers_of(model):
            stack.enter_context(replaced_attribute(optimizer, "stateless_apply", record))
        _, (trained, *_) = model.train_step(state, batch)
    return calls, any(bool((one != other).any()) for one, other in zip(state[0], trained, strict=True))


def per_sample_grad_norms(sample_loss: Callable, samples: Any, weights: Sequence[Any], vectorised: bool) -> Any:
    """Compute the norm of d(sample_loss)/d(weights) for each sample.

    Args:
        sample_loss: function from a structure of tensors with one row to a scalar loss.
        samples: structure of tensors with one row per sample.
        weights: list of variables.
        vectorised: bool; without effect: loops over time are vectorised too.

    Returns:
        float32 `(rows,)`.
    """

    def loss(values: list, sample: Any) -> Any:
        with NestedScope(list(zip(weights, values, strict=True))):
            return sample_loss(jax.tree.map(lambda t: t[None], sample))

    def norm(sample: Any) -> Any:
        gradients = jax.grad(loss)([weight.value for weight in weights], sample)
        return jnp.sqrt(sum(jnp.sum(jnp.square(g.astype("float32"))) for g in gradients))

    return jax.vmap(norm)(samples)


# Tensors


def to_host(variable: keras.Variable) -> np.ndarray:
    """Return a variable's value on the host; bfloat16, which NumPy can't save to files, as float32."""
    value = variable.value
    return np.asarray(value.astype("float32") if value.dtype == jnp.bfloat16 else value)


def searchsorted(ascending: Any, values: Any) -> Any:
    """Return for each value the number of ascending numbers that are at most as large, int32."""
    return jnp.searchsorted(ascending, values, side="right").astype("int32")


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
    chunks = jax.tree.map(lambda t: t[: count * slice_size].reshape(count, slice_size, *t.shape[1:]), data)
    stacked = jax.lax.map(function, chunks)
    joined = jax.tree.map(lambda t: t.reshape(count * slice_size, *t.shape[2:]), stacked)
    if not rest:
        return joined
    return concatenate([joined, function(jax.tree.map(lambda t: t[count * slice_size :], data))])
