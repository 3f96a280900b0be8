"""Compute scores: a non-negative number per candidate that measures its influence on the weights.

Scores come from the scalar that `model.compute_loss` returns, in inference mode and float32. The variables of the model
don't change. Source: [KF18] (arXiv 1803.00942), equation 20, for "gnorm"; [LH16] (arXiv 1511.06343) for "loss".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.core.exact_norms import exact_norms, norms_by_sample
from importance_sampling.core.layer_calls import CallRecorder, call_shapes, weights_of_loss
from importance_sampling.core.logits import Logits
from importance_sampling.core.weighted_loss import stateless, weighted_loss
from importance_sampling.data.batches import count_rows, flatten
from importance_sampling.utils.errors import Unsupported
from importance_sampling.utils.numerics import FLOAT
from importance_sampling.utils.structures import map_leaves
from importance_sampling.utils.validation import is_one_of

NAMES = ("gnorm", "loss", "full_gnorm")


class Scored(NamedTuple):
    """The scores of a pool of candidates."""

    scores: Any  # float32 (pool_size,), >= 0
    y_pred: Any  # the outputs of the model for the pool, in inference mode
    losses: list  # float32 (pool_size,) for each compiled loss, the sum over the entries of a sample
    sample_losses: Any  # float32 (pool_size,), the weighted sum of the compiled losses; unweighted for a callable score


class Scoring(NamedTuple):
    """The options of scoring: arguments of `Scorer` and `Logits`."""

    score: str | Callable = "gnorm"  # one of NAMES, or a callable
    layer: Any = None  # the layer at which "gnorm" takes its gradient; None, the output layers
    slice_size: int | None = None  # the number of candidates that are scored at once


def check(score: str | Callable) -> None:
    """Check that `score` is the name of a score or a callable.

    Raises:
        ValueError: it is neither.
    """
    if not callable(score) and not is_one_of(score, NAMES):
        raise ValueError(
            f"`score` must be one of {list(NAMES)} or a callable `score(model, x, y)` that returns one number per "
            f"sample. Received: score={score!r}"
        )


class Scorer:
    """Score candidates with a model, in slices if `slice_size` is set.

    `gnorm`: s_i = |d(loss_i)/d(z_i)|, where z are the logits of all outputs, or the pre-activations of one layer.
    `loss`: s_i = loss_i. `full_gnorm`: s_i = |d(loss_i)/d(weights)|, exact. A callable: `score(model, x, y)`.

    Args:
        model: a compiled and built `keras.Model`.
        score: one of `NAMES`, or a callable `score(model, x, y)` that returns scores, float `(batch,)`, >= 0.
        logits: the logits at which "gnorm" takes its gradient.
        slice_size: int, the number of candidates that are scored at once. Default None, all candidates. Scoring a
            slice takes the memory of a forward pass, for "full_gnorm" also that of a backward pass.

    Attributes:
        cost: float, the cost of scoring a batch in forward passes of a batch; a backward pass counts as two.

    Example:
        >>> losses = model.evaluate(x, y, verbose=0)  # builds the model and its compiled loss
        >>> scorer = Scorer(model, "gnorm", Logits(model))
        >>> scorer((x, y, None)).scores.shape == (len(x),)
        True
    """

    def __init__(self, model: keras.Model, score: str | Callable, logits: Logits, slice_size: int | None = None):
        self.model = model
        self.score = score
        self.logits = logits
        self.slice_size = slice_size
        self._shapes: dict[tuple, dict] = {}
        # Each score needs a forward pass. The exact norm also needs a backward pass without the gradients of weights,
        # which is as much work as a forward pass, and the formulas: hardly any work for dense layers on rows, at most
        # that of a forward pass for convolutions and long sequences, where they compute the gradients of weights.
        self.cost = 3.0 if score == "full_gnorm" else 1.0

    def __call__(self, data: tuple) -> Scored:
        """Score candidates.

        Args:
            data: `(x, y, sample_weight)`, structures of tensors with the same static number of rows; `y` and
                `sample_weight` may be None.

        Returns:
            `Scored`.

        Raises:
            Unsupported: samples can't be weighted, or the loss doesn't depend on the outputs.
            ValueError: a callable score returns another shape than `(batch,)`.
        """
        leaves, pack = flatten(backend.distribute_rows(data))
        size = leaves[0].shape[0]
        packer = OutputPacker()
        slice_size = min(self.slice_size or size, size)

        def forward(leaves: list) -> dict:
            return self._forward(pack(leaves), packer)

        result = backend.map_chunks(forward, leaves, size, slice_size)
        scores = result["scores"]
        if "entries" in result:
            scores = scores / ops.maximum(ops.mean(result["entries"]), 1e-7)
        scores, losses, sample_losses = backend.collect_rows((scores, result["losses"], result["sample_losses"]))
        return Scored(scores, packer.unpack(result["outputs"]), losses, sample_losses)

    def _forward(self, data: tuple, packer: OutputPacker) -> dict:
        """Return the scores, outputs and losses of a slice, a dict of tensors with a row per candidate."""
        x, y, sample_weight = data
        num_rows = count_rows(x)
        multiplier = ops.ones((num_rows,), dtype="float32")
        is_exact = self.score == "full_gnorm"
        shapes = self._call_shapes(x) if is_exact else {}

        def run(extra: Sequence[Any], tap: Callable) -> tuple:
            with stateless(self.model) as scope:
                recorder = CallRecorder(self.model, scope, tap, num_rows, shapes) if is_exact else None
                y_pred = self.logits.tap(
                    lambda: call(self.model, x, training=False, run=recorder),
                    tap if self.score == "gnorm" else _unchanged,
                    as_float32=True,
                )
                regularisation = _regularisation(self.model) if is_exact else ops.zeros(())
            _check_outputs(y_pred, num_rows)
            loss = weighted_loss(self.model, x, y, y_pred, sample_weight, lambda *_: extra[0], training=False)
            losses = [ops.sum(ops.reshape(output.values, (num_rows, -1)), axis=1) for output in loss.outputs]
            entries = [output.entries for output in loss.outputs if output.entries is not None and output.is_mean]
            is_recorded = is_exact and not recorder.unrecorded and not weights_of_loss(self.model, loss)
            calls = recorder.calls if is_recorded else None
            added = ops.cast(regularisation / backend.replicas_in_step(), loss.total.dtype)
            loss = loss._replace(total=loss.total - added)
            # The sum, not the mean, is differentiated: float16 gradients of a mean underflow.
            return loss.summed(num_rows), (packer.pack(y_pred), losses, entries, calls)

        if callable(self.score):
            _, (outputs, losses, entries, _) = run([multiplier], _unchanged)
            scores = self._custom_scores(x, y, num_rows)
            sample_losses = sum(losses[1:], losses[0])
        else:
            gradients, _, (outputs, losses, entries, calls) = backend.differentiate(run, (), [multiplier])
            sample_losses = gradients.extra[0]
            if self.score == "loss":
                scores = sample_losses
            elif self.score == "gnorm":
                scores = row_norms(gradients.tapped, num_rows)
            else:
                scores = None
                if calls is not None and num_rows > 1:
                    scores = exact_norms(self.model, calls, gradients.tapped, num_rows)
                if scores is None:
                    scores = self._norms_by_sample(data, entries)
            if scores is None:
                raise Unsupported("the loss doesn't depend on the model's outputs")
        result = {"scores": ops.cast(scores, "float32"), "outputs": outputs, "losses": losses}
        result["sample_losses"] = ops.cast(sample_losses, "float32")
        if entries:
            # Several masked outputs are normalised by the sum of their entries. That is exact without slices.
            result["entries"] = sum(entries[1:], entries[0])
            result["scores"] *= ops.mean(result["entries"])
        return result

    def _custom_scores(self, x: Any, y: Any, num_rows: int) -> Any:
        """Return the scores of a callable."""
        with stateless(self.model):
            scores = ops.convert_to_tensor(self.score(self.model, x, y))
        if tuple(scores.shape) != (num_rows,):
            raise ValueError(
                "A callable `score(model, x, y)` must return one number per sample, of shape (batch,). "
                f"Received: a result of shape {tuple(scores.shape)} for {num_rows} samples"
            )
        return scores

    def _call_shapes(self, x: Any) -> dict:
        """Return the shapes in the calls of the layers on one sample, computed once per signature of the inputs."""
        key = tuple(backend.row_spec(leaf) for leaf in flatten(x)[0])
        if key not in self._shapes:
            one = map_leaves(lambda leaf: backend.slice_tensor(leaf, 0, 1), x)
            with stateless(self.model):
                self._shapes[key] = call_shapes(self.model, lambda: call(self.model, one, training=False))
        return self._shapes[key]

    def _norms_by_sample(self, data: tuple, entries: list) -> Any:
        """Return the exact norms of models whose calls can't be recorded, from a gradient per sample."""
        leaves, pack = flatten(data)

        def loss(leaves: list) -> Any:
            """Return the loss of one sample without regularisation losses, which don't depend on the sample."""
            x, y, sample_weight = pack(leaves)
            with stateless(self.model):
                y_pred = call(self.model, x, training=False)
                regularisation = _regularisation(self.model)
            total = weighted_loss(self.model, x, y, y_pred, sample_weight, None, training=False).total
            return total - ops.cast(regularisation, total.dtype)

        norms = norms_by_sample(loss, leaves, self.model.trainable_weights, [self.model])
        if not entries:
            return norms
        # The loss of a single sample is divided by its own number of valid entries, the loss of a batch by the mean.
        entries = sum(entries[1:], entries[0])
        return norms * entries / ops.maximum(ops.mean(entries), 1e-7)


def _regularisation(model: keras.Model) -> Any:
    """Return the sum of the losses that the layers of a model have added, float32."""
    return sum((ops.sum(ops.cast(loss, FLOAT)) for loss in model.losses), ops.zeros((), dtype=FLOAT))


def call(model: keras.Model, x: Any, training: bool, run: Callable | None = None) -> Any:
    """Call a model as Keras's own steps do.

    Args:
        model: a `keras.Model`.
        x: the inputs.
        training: bool, passed to the model if it accepts it.
        run: called with the function that calls the model, returns its result. Default None: call it.

    Returns:
        The outputs. Those without a static number of rows get that of `x`.
    """
    arguments = {"training": training} if keras_internals.has_training_argument(model) else {}
    y_pred = model(x, **arguments) if run is None else run(lambda: model(x, **arguments))
    rows = count_rows(x)
    if rows is None:
        return y_pred
    return keras.tree.map_structure(lambda output: backend.with_rows(output, rows), y_pred)


def row_norms(gradients: list, rows: Any) -> Any:
    """Return the norm of each row over all gradients.

    Args:
        gradients: list of float `(rows, ...)` tensors; None entries are skipped.
        rows: int, the number of rows.

    Returns:
        float32 `(rows,)`, or None if all gradients are None.
    """
    squares = [
        ops.sum(ops.reshape(ops.square(ops.cast(g, "float32")), (rows, -1)), axis=1) for g in gradients if g is not None
    ]
    return ops.sqrt(sum(squares[1:], squares[0])) if squares else None


def _unchanged(tensor: Any) -> Any:
    """Return a tensor as it is."""
    return tensor


def _check_outputs(y_pred: Any, rows: int) -> None:
    """Check that each output of a model has one row per sample.

    Raises:
        Unsupported: an output has another number of rows.
    """
    for output in flatten(y_pred)[0]:
        if len(output.shape) == 0 or output.shape[0] != rows:
            raise Unsupported(
                f"the model returns an output of shape {tuple(output.shape)} for {rows} samples. Return one row per "
                "sample, for example (batch, time, ...) instead of (batch * time, ...)"
            )


class OutputPacker:
    """Convert the outputs of a model to dicts of tensors and back, with the logits and masks that Keras attached.

    Attached tensors would be lost when outputs of slices are concatenated.
    """

    def pack(self, y_pred: Any) -> list[dict]:
        """Return one dict per output, with its tensor, and its logits and mask if it has any."""
        self.structure = keras.tree.map_structure(lambda _: 0, y_pred)
        packed = [
            {"y": y, "logits": keras_internals.get_logits(y), "mask": keras_internals.get_mask(y)}
            for y in keras.tree.flatten(y_pred)
        ]
        return [{name: tensor for name, tensor in output.items() if tensor is not None} for output in packed]

    def unpack(self, packed: list[dict]) -> Any:
        """Return the outputs in their structure, with logits and masks attached."""
        for output in packed:
            if "logits" in output:
                keras_internals.set_logits(output["y"], output["logits"])
            if "mask" in output:
                keras_internals.set_mask(output["y"], output["mask"])
        return keras.tree.pack_sequence_as(self.structure, [output["y"] for output in packed])
