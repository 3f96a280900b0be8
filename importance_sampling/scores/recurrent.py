"""Formulas for recurrent layers: those of a dense layer whose positions are the time steps.

The inputs of all time steps are projected at once, and the result is tapped: the gradient at it is the gradient at the
pre-activations of each step. Keras's own loop over the time steps runs on the projected inputs, with a step that also
returns the state before it, by which the recurrent kernel is multiplied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from importance_sampling.backend.scopes import replaced_attribute
from importance_sampling.scores.formulas import register_sample_gradients
from importance_sampling.scores.weight_gradients import OuterProducts, sum_positions


def tap_projected_inputs(layer: keras.layers.RNN, call: Callable, inputs: Any, tap: Callable) -> tuple:
    """Call a recurrent layer with its projected inputs tapped, `(batch, time, gates * units)`.

    Returns:
        The outputs; and the inputs with the results of all steps that the gradients depend on.
    """
    cell, steps = layer.cell, []
    if type(cell) not in _STEPS:
        return call(), inputs

    def step(projected: Any, states: list, training: bool = False) -> tuple:
        # The first state is extended by the results of the step: Keras repeats it as the output of a masked step.
        state = states[0][:, : cell.units]
        results, others = _STEPS[type(cell)](cell, projected, state, *states[1:])
        results = ops.concatenate(results, axis=-1)
        return results, [results, *others]

    def inner_loop(sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> tuple:
        projected = ops.matmul(sequences, cell.kernel)
        bias = _biases(cell)[0]
        projected = tap(projected if bias is None else projected + bias)
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        num_results = 3 if isinstance(cell, keras.layers.GRUCell) else 2
        initial_state = [ops.tile(initial_state[0], (1, num_results)), *initial_state[1:]]
        with replaced_attribute(cell, "call", step), replaced_attribute(layer, "return_sequences", True):
            last, outputs, states = keras.layers.RNN.inner_loop(layer, projected, initial_state, mask, training)
        steps.append(outputs)
        states = [states[0][:, : cell.units], *states[1:]]
        return last[..., : cell.units], outputs[..., : cell.units], states

    with replaced_attribute(layer, "inner_loop", inner_loop):
        outputs = call()
    return outputs, (inputs, steps[0])


# Steps return the output, the state before the step and, of a GRU, its reset gate; and the further states.


def _simple_step(cell: keras.layers.SimpleRNNCell, projected: Any, state: Any) -> tuple:
    output = cell.activation(projected + ops.matmul(state, cell.recurrent_kernel))
    return [output, state], []


def _lstm_step(cell: keras.layers.LSTMCell, projected: Any, state: Any, carry: Any) -> tuple:
    i, f, g, o = ops.split(projected + ops.matmul(state, cell.recurrent_kernel), 4, axis=-1)
    carry = cell.recurrent_activation(f) * carry + cell.recurrent_activation(i) * cell.activation(g)
    output = cell.recurrent_activation(o) * cell.activation(carry)
    return [output, state], [carry]


def _gru_step(cell: keras.layers.GRUCell, projected: Any, state: Any) -> tuple:
    bias = _biases(cell)[1]
    size = 3 if cell.reset_after else 2
    recurrent = ops.matmul(state, cell.recurrent_kernel[:, : size * cell.units])
    recurrent = recurrent if bias is None else recurrent + bias
    z, r, candidate = ops.split(projected, 3, axis=-1)
    z = cell.recurrent_activation(z + recurrent[:, : cell.units])
    r = cell.recurrent_activation(r + recurrent[:, cell.units : 2 * cell.units])
    if cell.reset_after:
        candidate = candidate + r * recurrent[:, 2 * cell.units :]
    else:
        candidate = candidate + ops.matmul(r * state, cell.recurrent_kernel[:, 2 * cell.units :])
    output = z * state + (1 - z) * cell.activation(candidate)
    return [output, state, r], []


_STEPS = {
    keras.layers.SimpleRNNCell: _simple_step,
    keras.layers.LSTMCell: _lstm_step,
    keras.layers.GRUCell: _gru_step,
}


def _biases(cell: keras.Layer) -> tuple:
    """Return the bias of the projected inputs, and that of the projected state; None if there is none."""
    has_two = isinstance(cell, keras.layers.GRUCell) and cell.reset_after and cell.bias is not None
    return (cell.bias[0], cell.bias[1]) if has_two else (cell.bias, None)


@register_sample_gradients(keras.layers.SimpleRNN, call_tapped=tap_projected_inputs, methods=("inner_loop",))
@register_sample_gradients(keras.layers.LSTM, call_tapped=tap_projected_inputs, methods=("inner_loop",))
def recurrent_gradients(layer: keras.layers.RNN, inputs: Any, gradient: Any) -> list:
    """Return the gradients of a `SimpleRNN` or `LSTM` layer."""
    sequences, steps = inputs
    states = _in_order(layer, steps)[..., layer.cell.units :]
    return [
        (layer.cell.kernel, OuterProducts((sequences,), gradient)),
        (layer.cell.recurrent_kernel, OuterProducts((states,), gradient)),
        (layer.cell.bias, sum_positions(gradient)),
    ]


@register_sample_gradients(keras.layers.GRU, call_tapped=tap_projected_inputs, methods=("inner_loop",))
def gru_gradients(layer: keras.layers.GRU, inputs: Any, gradient: Any) -> list:
    """Return the gradients of a `GRU` layer, whose reset gate scales the recurrent part of the candidate."""
    cell, (sequences, steps) = layer.cell, inputs
    _, states, resets = ops.split(_in_order(layer, steps), 3, axis=-1)
    gates, candidate = gradient[..., : 2 * cell.units], gradient[..., 2 * cell.units :]
    bias = sum_positions(gradient)
    if cell.reset_after:
        recurrent_gradient = ops.concatenate([gates, resets * candidate], axis=-1)
        recurrent = OuterProducts((states,), recurrent_gradient)
        bias = ops.stack([bias, sum_positions(recurrent_gradient)], axis=1)
    else:
        matrices = ((states, gates), (states * resets, candidate))
        recurrent = ops.concatenate([ops.matmul(ops.swapaxes(x, 1, 2), d) for x, d in matrices], axis=-1)
    return [
        (cell.kernel, OuterProducts((sequences,), gradient)),
        (cell.recurrent_kernel, recurrent),
        (cell.bias, bias),
    ]


def _in_order(layer: keras.layers.RNN, steps: Any) -> Any:
    """Return the results of the steps, `(batch, time, ...)`, in the order of the inputs."""
    return ops.flip(steps, axis=1) if layer.go_backwards else steps
