"""torch implementation of the backend protocol: steps, gradients and tensor functions.

Steps run eagerly, like Keras's own (`keras.src.backend.torch.trainer`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import torch

from importance_sampling.backend import defaults
from importance_sampling.backend.defaults import Gradients
from importance_sampling.backend.scopes import NestedScope
from importance_sampling.backend.torch_data import concatenate
from importance_sampling.utils.structures import map_leaves

# The `jit_compile` of a small model: compiling it would take longer than the time it saves.
JIT_COMPILE_SMALL = False


# Keras's training function


def stand_in(model: keras.Model, function: Callable) -> Callable:
    """Return a training function for Keras's `fit` that calls `function(iterator) -> logs`.

    Keras passes the batches of a step, which it has drawn before, as a list.

    Raises:
        ValueError: Keras's, for `steps_per_execution` > 1.
    """
    if model.steps_per_execution > 1:
        model.make_train_function(force=True)
    return lambda batches: function(iter(batches))


def training_function(model: keras.Model, keras_function: Callable) -> Callable:
    """Return Keras's training function as `function(iterator) -> logs`; the inverse of `stand_in`."""
    return lambda iterator: keras_function([next(iterator)])


# Steps


def compile_step(step: Callable, model: keras.Model, reduce_retracing: bool = True) -> Callable:
    """Return a step as Keras runs the training step of a model: eagerly.

    Args:
        step: function of structures of tensors.
        model, reduce_retracing: without effect.
    """

    def run(*args: Any) -> Any:
        with torch.no_grad():  # `differentiate` records what it needs
            return map_leaves(_detached, step(*map_leaves(_on_device, args)))

    return run


def repeat_steps(step: Callable, model: keras.Model, any_rows: int | None = None) -> Callable:
    """Return a function that takes n steps.

    Args:
        step: `step(i, *inputs) -> (logs, results)`, step i of n.
        model, any_rows: without effect.

    Returns:
        `run(n, *inputs) -> (logs, results)`, the logs of the last step and the results of all steps, stacked.
    """

    def run(n: int, *inputs: Any) -> tuple:
        steps = [step(i, *inputs) for i in range(n)]
        return steps[-1][0], keras.tree.map_structure(lambda *leaves: torch.stack(leaves), *[step[1] for step in steps])

    return run


def repeatable_random() -> contextlib.AbstractContextManager:
    """Return a context after which torch's global generators, from which random layers draw, are as before."""
    return torch.random.fork_rng()


def _on_device(leaf: Any) -> Any:
    return keras.ops.convert_to_tensor(leaf) if isinstance(leaf, np.ndarray) else leaf


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, torch.Tensor) else leaf


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

    def tap(tensor: torch.Tensor) -> torch.Tensor:
        tapped.append(tensor if tensor.requires_grad else tensor.requires_grad_())
        return tensor

    is_part = torch.is_grad_enabled()  # of a computation that is differentiated itself
    with torch.enable_grad(), contextlib.ExitStack() as stack:
        values = [variable.value for variable in variables]
        scope = None
        if not all(value.requires_grad for value in values):  # the values of a scope
            values = [value.detach().requires_grad_() for value in values]
            scope = stack.enter_context(NestedScope(list(zip(variables, values, strict=True))))
        extra = [tensor if is_part and tensor.requires_grad else tensor.detach().requires_grad_() for tensor in extra]
        loss, rest = forward(extra, tap)
        inputs = [*values, *extra, *tapped]
        found = [None] * len(inputs)
        if inputs and loss.requires_grad:  # it doesn't where the loss depends on none of them
            found = torch.autograd.grad(loss, inputs, allow_unused=True, create_graph=is_part)
    for variable, value in scope.updates if scope is not None else ():
        variable.assign(value)
    if not is_part:
        loss, rest = loss.detach(), map_leaves(_detached, rest)
    n, m = len(values), len(values) + len(extra)
    return Gradients(list(found[:n]), list(found[n:m]), list(found[m:])), loss, rest


def current_trace() -> Any:
    """Return an object that is equal to that of another call in the same trace, such as of the body of one loop."""
    return torch._C._functorch.maybe_current_level()  # None outside `vmap`, the only transformation that Keras uses


def apply_gradients(model: keras.Model, gradients: Sequence[Any]) -> None:
    """Apply gradients of the trainable weights of a model with its optimizer."""
    model.optimizer.apply(list(gradients), model.trainable_weights)


def try_train_step(model: keras.Model, batch: tuple) -> tuple[list[list], bool]:
    """Run the `train_step` of a model, with its optimizers replaced. No Keras variable changes; see `defaults`.

    The gradients that torch keeps with the weights stay as they are, for steps that accumulate them.
    """
    weights = [variable.value for variable in model.trainable_variables]
    kept = [weight.grad for weight in weights]
    try:
        for weight in weights:
            weight.grad = None
        return defaults.try_train_step(model, batch)
    finally:
        for weight, gradient in zip(weights, kept, strict=True):
            weight.grad = gradient


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

    def loss(values: list, *sample: Any) -> Any:
        with NestedScope(list(zip(weights, values, strict=True))):
            return sample_loss(keras.tree.pack_sequence_as(samples, [leaf[None] for leaf in sample]))

    leaves = keras.tree.flatten(samples)
    values = [weight.value.detach() for weight in weights]
    in_dims = (None, *[0] * len(leaves))
    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=in_dims, randomness="different")(values, *leaves)
    squares = [gradient.float().square().flatten(1).sum(dim=1) for gradient in gradients]
    return torch.stack(squares).sum(dim=0).sqrt()


# Tensors


def to_host(variable: keras.Variable) -> np.ndarray:
    """Return a variable's value on the host; bfloat16, which NumPy doesn't have, as float32."""
    value = variable.value.detach()
    return (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy().copy()


def searchsorted(ascending: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return for each value the number of ascending numbers that are at most as large, int32."""
    return torch.searchsorted(ascending.contiguous(), values.contiguous(), side="right").to(torch.int32)


def map_chunks(function: Callable, data: Any, size: int, slice_size: int) -> Any:
    """Apply a function to slices of data one after another, and concatenate its results.

    Only one slice is in use at a time, which limits the memory.

    Args:
        function: from a structure of tensors to a structure of tensors with as many rows.
        data: structure of tensors with `size` rows.
        size: int, the number of rows.
        slice_size: int, the number of rows of a slice; the last slice may be smaller.
    """
    if slice_size >= size:
        return function(data)
    starts = range(0, size, slice_size)
    return concatenate([function(map_leaves(lambda t, i=i: t[i : i + slice_size], data)) for i in starts])
