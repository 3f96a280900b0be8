"""Record the calls of the layers of a model, with the tensors at which gradients are needed for exact gradient norms.

While the model is called, each layer's `call` runs in a frame that records which trainable weights it reads. A layer
that reads some is called by its formula (`importance_sampling.scores`), with one tensor tapped. Without a formula its
outputs are tapped. A call that can't be recorded, for example inside a compiled loop, passes the weights that it reads
on to the layer that called it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
from keras import ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.backend.scopes import NestedScope, replaced_attribute
from importance_sampling.core.weighted_loss import WeightedLoss
from importance_sampling.scores.formulas import Formula, find_formula
from importance_sampling.utils.structures import map_leaves


class LayerCall(NamedTuple):
    """A call of a layer that read trainable weights itself, not by way of another layer."""

    layer: keras.Layer
    formula: Formula | None
    inputs: Any  # of the formula
    arguments: list  # the leaves of `(args, kwargs)`
    masks: list  # the masks of the arguments, or None
    have_rows: list[bool]  # for each argument, whether it has one row per sample
    structure: Any  # of `(args, kwargs)`
    weights: list  # the trainable weights that were read
    late: list  # those of them that were read after the tensor that the formula has tapped
    tapped: list[int]  # the positions of the tapped tensors
    inside: list[int]  # the numbers of the calls that this call has made, directly or by way of other layers

    @property
    def leaves_with_rows(self) -> list:
        """The arguments with one row per sample, each followed by its mask if it has one."""
        pairs = zip(self.arguments, self.masks, self.have_rows, strict=True)
        return [leaf for *pair, has_rows in pairs if has_rows for leaf in pair if leaf is not None]

    def repeat(self, leaves: Iterator[Any]) -> list:
        """Call the layer on other samples, and return the tapped tensors.

        Args:
            leaves: yields tensors in the place of `leaves_with_rows`; the other arguments are the same.
        """
        arguments = []
        for argument, mask, has_rows in zip(self.arguments, self.masks, self.have_rows, strict=True):
            arguments.append(next(leaves) if has_rows else argument)
            if mask is not None:
                keras_internals.set_mask(arguments[-1], next(leaves) if has_rows else mask)
        args, kwargs = keras.tree.pack_sequence_as(self.structure, arguments)
        tapped: list = []

        def tap(tensor: Any) -> Any:
            tapped.append(tensor)
            return tensor

        def call() -> Any:
            return self.layer(*args, **kwargs)

        if self.formula is None:
            _tap_outputs(call(), tap)
        else:
            self.formula.call_tapped(self.layer, call, None, tap)
        return tapped


class CallShapes(NamedTuple):
    """The shapes in a call of a layer on one sample. Comparison with several samples shows which tensors have rows."""

    arguments: list  # a shape for each leaf, None for a leaf that isn't a tensor
    outputs: list


def call_shapes(model: keras.Model, call: Callable[[], Any]) -> dict[int, list[CallShapes]]:
    """Call a model on one sample, and return the shapes in the calls of its layers, a list for the id of each layer."""
    shapes: dict[int, list] = {}

    def run(layer: keras.Layer, original: Callable, *args: Any, **kwargs: Any) -> Any:
        outputs = original(*args, **kwargs)
        shapes.setdefault(id(layer), []).append(CallShapes(_shapes((args, kwargs)), _shapes(outputs)))
        return outputs

    with _replaced_calls(model, run):
        call()
    return shapes


class CallRecorder:
    """Call a model once, with its layers' calls recorded.

    Args:
        model: a `keras.Model`.
        scope: an open scope, in which the weights are read.
        tap: function from a tensor to the tensor to continue with, as for `backend.differentiate`.
        rows: int > 1, the number of samples.
        shapes: the shapes in the calls of the layers on one sample, see `call_shapes`.

    Attributes:
        calls: list of `LayerCall`.
        unrecorded: list of trainable weights that were read outside of recorded calls.
    """

    def __init__(self, model: keras.Model, scope: NestedScope, tap: Callable, rows: int, shapes: dict):
        self.calls: list[LayerCall] = []
        self.unrecorded: list[keras.Variable] = []
        self._model, self._scope, self._tap, self._rows, self._shapes = model, scope, tap, rows, shapes
        self._trainable = set(map(id, model.trainable_weights))
        self._num_calls: dict[int, int] = {}
        self._num_tapped = 0
        self._trace: Any = None

    def __call__(self, call: Callable[[], Any]) -> Any:
        """Return the result of `call()`, which calls the model."""
        self._trace = backend.current_trace()
        self._scope.read = {}
        with _replaced_calls(self._model, self._run):
            outputs = call()
        self.unrecorded = self._trainable_of(self._scope.read)
        return outputs

    def _trainable_of(self, read: dict[int, Any]) -> list:
        return [variable for variable in read.values() if id(variable) in self._trainable]

    def _run(self, layer: keras.Layer, original: Callable, *args: Any, **kwargs: Any) -> Any:
        """Call a layer, and record the call if it reads trainable weights."""
        number = self._num_calls.get(id(layer), 0)
        self._num_calls[id(layer)] = number + 1
        outer, self._scope.read = self._scope.read, {}
        first = len(self.calls)
        tapped: list[int] = []
        early: dict[int, Any] = {}

        def tap(tensor: Any) -> Any:
            early.update(self._scope.read)
            self._scope.read = {}
            # A loss may use the logits that Keras attached to an output in the place of the output.
            if not self._trainable_of(early) or _shape(tensor) is None or _logits(tensor) is not None:
                return tensor
            tapped.append(self._num_tapped)
            self._num_tapped += 1
            return self._tap(tensor)

        def call() -> Any:
            return original(*args, **kwargs)

        try:
            is_same_trace = backend.current_trace() == self._trace and not keras_internals.is_rematerialized(layer)
            formula = find_formula(layer) if is_same_trace else None
            inputs = next(iter((*args, *kwargs.values())), None)
            if formula is not None:
                outputs, inputs = formula.call_tapped(layer, call, inputs, tap)
                formula = formula if len(tapped) == 1 else None
            else:
                outputs = call()
            weights, late = self._trainable_of(early | self._scope.read), self._trainable_of(self._scope.read)
            have_rows = self._have_rows(layer, number, (args, kwargs), outputs) if is_same_trace else None
            if have_rows is None or not weights:
                outer.update({id(weight): weight for weight in weights})
                return outputs
            if formula is None:
                tapped.clear()
                late = []
                outputs = _tap_outputs(outputs, tap)
        finally:
            self._scope.read = outer
        leaves = keras.tree.flatten((args, kwargs))
        masks = [None if _shape(leaf) is None else keras_internals.get_mask(leaf) for leaf in leaves]
        structure = keras.tree.map_structure(lambda _: 0, (args, kwargs))
        formula_inputs = inputs if formula is not None else None
        inside = list(range(first, len(self.calls)))
        self.calls.append(
            LayerCall(
                layer, formula, formula_inputs, leaves, masks, have_rows, structure, weights, late, tapped, inside
            )
        )
        return outputs

    def _have_rows(self, layer: keras.Layer, number: int, arguments: Any, outputs: Any) -> list[bool] | None:
        """Return for each argument whether it has rows; None if the outputs don't have rows or if that isn't known."""
        on_one = self._shapes.get(id(layer), [])
        if number >= len(on_one):
            return None
        shapes, output_shapes = _shapes(arguments), _shapes(outputs)
        one_shapes, one_output_shapes = on_one[number]
        if len(shapes) != len(one_shapes) or len(output_shapes) != len(one_output_shapes):
            return None

        def has_rows(shape: tuple | None, one: tuple | None) -> bool | None:
            if shape == one and None not in (shape or ()):
                return False
            return True if shape == (self._rows, *one[1:]) and one[0] == 1 else None

        have_rows = [has_rows(*pair) for pair in zip(shapes, one_shapes, strict=True)]
        outputs_have_rows = all(has_rows(*pair) for pair in zip(output_shapes, one_output_shapes, strict=True))
        return have_rows if outputs_have_rows and None not in have_rows and any(have_rows) else None


def weights_of_loss(model: keras.Model, loss: WeightedLoss) -> list:
    """Return the trainable weights that the loss of a model reads itself, other than by Keras's regularisers."""
    trainable = set(map(id, model.trainable_weights))
    overrides_loss = keras_internals.overrides_methods(model, ("compute_loss",))
    return [
        variable
        for variable in loss.read
        if id(variable) in trainable and (overrides_loss or variable.regularizer is None)
    ]


@contextlib.contextmanager
def _replaced_calls(model: keras.Model, run: Callable) -> Iterator[None]:
    """Call `run(layer, call, *args, **kwargs)` in the place of the method `call` of each layer of a model."""
    with contextlib.ExitStack() as stack:
        for layer in keras_internals.layers_of(model):
            stack.enter_context(replaced_attribute(layer, "call", functools.partial(run, layer, layer.call)))
        yield


def _tap_outputs(outputs: Any, tap: Callable) -> Any:
    """Apply `tap` to copies of all float outputs of a layer, and to the logits that Keras attached to them."""

    def tapped(output: Any) -> Any:
        if _shape(output) is None or not keras.backend.is_float_dtype(output.dtype):
            return output
        # The layer may return a tensor that was tapped before, or one of its inputs.
        result, logits, mask = (
            tap(ops.copy(output)),
            _logits(output),
            keras_internals.get_mask(output),
        )
        if logits is not None:
            keras_internals.set_logits(result, tap(ops.copy(logits)))
        if mask is not None:
            keras_internals.set_mask(result, mask)
        return result

    return map_leaves(tapped, outputs)


def _logits(tensor: Any) -> Any:
    """Return the logits that a loss uses in the place of probabilities, None if there are none."""
    return keras_internals.get_logits(tensor) if backend.LOSSES_USE_LOGITS else None


def _shapes(structure: Any) -> list[tuple | None]:
    return [_shape(leaf) for leaf in keras.tree.flatten(structure)]


def _shape(leaf: Any) -> tuple | None:
    """Return the static shape of a tensor, None for anything else."""
    try:
        return tuple(leaf.shape) if hasattr(leaf, "shape") and hasattr(leaf, "dtype") else None
    except ValueError:  # raised by TensorFlow for an unknown rank
        return None
