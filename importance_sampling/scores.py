"""Scores: one non-negative number per candidate, how much it would move the model.

Source: [KF18] (arXiv 1803.00942), equation 20 for `gnorm`; [LH16] (arXiv 1511.06343) for `loss`. All come from the
scalar that `model.compute_loss` returns, in inference mode and in float32, and move nothing of the model. What is done
with them is the sampler's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.pre_activations import PreActivations
from importance_sampling.utils.numerics import FLOAT
from importance_sampling.weighted_loss import Unsupported, stateless, weighted_loss

NAMES = ("gnorm", "loss", "full_gnorm")
FULL_GNORM_SLICE = 32


class Scored(NamedTuple):
    """A pool, scored."""

    scores: Any  # float32 (pool_size,)
    y_pred: Any  # the model's outputs for the pool, in inference mode
    losses: list  # float32 (pool_size,) for every compiled loss: the sum over a sample's entries


class Scoring(NamedTuple):
    """How samples are scored: the arguments of a `Scorer`."""

    score: str | Callable = "gnorm"
    layer: Any = None
    slice_size: int | None = None


def check(score: str | Callable) -> None:
    """Raise unless `score` is a name of a score or a callable.

    Raises:
        ValueError: it is neither.
    """
    if not callable(score) and score not in NAMES:
        raise ValueError(
            f"`score` must be one of {list(NAMES)} or a callable `score(model, x, y)` that returns one number per "
            f"sample. Received: score={score!r}"
        )


class Scorer:
    """Scores pools with a model, by slices if memory asks for it.

    `gnorm`: s_i = |d(loss_i)/d(z_i)|, z the pre-activations of the outputs (all of them stacked), or of `layer`.
    `loss`: s_i = loss_i. `full_gnorm`: s_i = |d(loss_i)/d(weights)|, exact. A callable: `score(model, x, y)`.

    Args:
        model: a compiled and built `keras.Model`.
        score: one of `NAMES` or a callable.
        points: where `gnorm` takes its gradient.
        slice_size: int, how many candidates are scored at once; None: all, or 32 for `full_gnorm`, whose slices hold
            slice * parameters floats.

    Example:
        >>> scorer = Scorer(model, "gnorm", PreActivations(model))
        >>> scorer((x, y, None)).scores
    """

    def __init__(
        self, model: keras.Model, score: str | Callable, points: PreActivations, slice_size: int | None = None
    ):
        self.model = model
        self.score = score
        self.points = points
        self.slice_size = slice_size
        # Besides the outputs that every score comes with, the exact norm needs a forward and a backward pass.
        self.passes = 4.0 if score == "full_gnorm" else 1.0

    def __call__(self, data: tuple) -> Scored:
        """Score candidates.

        Args:
            data: `(x, y, sample_weight)`, tensors with the same known number of rows, or None.

        Returns:
            `Scored`.
        """
        leaves, pack = flat(data)
        size = leaves[0].shape[0]
        carrier = _Carrier()
        whole = self.slice_size or size

        def forward(leaves: list) -> dict:
            return self._forward(pack(leaves), carrier)

        result = backend.map_slices(forward, leaves, size, min(whole, size))
        scores = result["scores"]
        if self.score == "full_gnorm":
            loops = any(isinstance(layer, keras.layers.RNN) for layer in keras_internals.layers_of(self.model))
            scores = backend.map_slices(
                lambda leaves: backend.gradient_norms(
                    lambda rows: self._sample_loss(pack(rows)), leaves, self.model.trainable_weights, not loops
                ),
                leaves,
                size,
                min(self.slice_size or FULL_GNORM_SLICE, size),
            )
            if "entries" in result:
                # A sample alone is divided by its own valid entries, in the batch by all samples' on average.
                scores = scores * result["entries"]
        elif "entries" in result:
            scores = scores * result["slice_entries"]
        if "entries" in result:
            scores = scores / ops.maximum(ops.mean(result["entries"]), 1e-7)
        return Scored(scores, carrier.unpack(result["outputs"]), result["losses"])

    def _forward(self, data: tuple, carrier: _Carrier) -> dict:
        """Scores and outputs of a slice, as a dict of tensors with a row per candidate."""
        x, y, sample_weight = data
        rows = flat(x)[0][0].shape[0]
        multiplier = ops.ones((rows,), dtype="float32")

        def run() -> tuple:
            with stateless(self.model), self.points.caught(in_float=True) as caught:
                y_pred = call(self.model, x, training=False)
            _check_outputs(y_pred, rows)
            loss = weighted_loss(self.model, x, y, y_pred, sample_weight, lambda *_: multiplier, training=False)
            at = [multiplier] if self.score == "loss" else self.points.of(y_pred, caught)
            # Ahead of the differentiation, or float16 gradients underflow.
            return loss.summed(rows), at, (y_pred, loss)

        if self.score in ("gnorm", "loss"):
            gradients, _, (y_pred, loss) = backend.differentiate(run, [*self.model.variables, multiplier])
            scores = gradients[0] if self.score == "loss" else row_norms(gradients, rows)
            if scores is None:
                raise Unsupported("the loss doesn't depend on the model's outputs")
        else:
            _, _, (y_pred, loss) = run()
            scores = self._called(x, y, rows) if callable(self.score) else multiplier
        losses = [ops.sum(ops.reshape(output.values, (rows, -1)), axis=1) for output in loss.outputs]
        result = {"scores": ops.cast(scores, "float32"), "outputs": carrier.pack(y_pred), "losses": losses}
        entries = [output.entries for output in loss.outputs if output.entries is not None and output.is_mean]
        if entries:
            # With several masked outputs their sum stands for all: that is exact for a pool scored whole.
            result["entries"] = sum(entries[1:], entries[0])
            result["slice_entries"] = ops.full((rows,), 1.0, dtype=FLOAT) * ops.mean(result["entries"])
        return result

    def _called(self, x: Any, y: Any, rows: int) -> Any:
        """The user's own scores."""
        with stateless(self.model):
            scores = ops.convert_to_tensor(self.score(self.model, x, y))
        if tuple(scores.shape) != (rows,):
            raise ValueError(
                "A callable `score(model, x, y)` must return one number per sample, of shape (batch,). "
                f"Received: a result of shape {tuple(scores.shape)} for {rows} samples"
            )
        return scores

    def _sample_loss(self, data: tuple) -> Any:
        """The loss of one sample, without what regularises the weights, which is the same for all."""
        x, y, sample_weight = data
        with stateless(self.model):
            y_pred = call(self.model, x, training=False)
            regularisation = sum(ops.sum(loss) for loss in self.model.losses)
        total = weighted_loss(self.model, x, y, y_pred, sample_weight, None, training=False).total
        return total - ops.cast(regularisation, total.dtype)


def call(model: keras.Model, x: Any, training: bool) -> Any:
    """Call a model as Keras's own steps do. Outputs get the number of rows of `x` where layers lost it."""
    y_pred = model(x, training=training) if keras_internals.has_training_argument(model) else model(x)
    rows = flat(x)[0][0].shape[0]
    if rows is None:
        return y_pred
    return keras.tree.map_structure(lambda output: backend.with_rows(output, rows), y_pred)


def row_norms(gradients: list, rows: Any) -> Any:
    """Return every row's norm over all gradients, float32 `(rows,)`; None where there is no gradient at all."""
    squares = [
        ops.sum(ops.reshape(ops.square(ops.cast(g, "float32")), (rows, -1)), axis=1) for g in gradients if g is not None
    ]
    return ops.sqrt(sum(squares[1:], squares[0])) if squares else None


def _check_outputs(y_pred: Any, rows: int) -> None:
    """Raise unless the model returns a row per sample.

    Raises:
        Unsupported: an output has another number of rows.
    """
    for output in flat(y_pred)[0]:
        if len(output.shape) == 0 or output.shape[0] != rows:
            raise Unsupported(
                f"the model returns an output of shape {tuple(output.shape)} for {rows} samples. Have it return a row "
                "per sample, as (batch, time, ...) in place of (batch * time, ...)"
            )


def flat(data: tuple) -> tuple[list, Callable]:
    """The tensors of a nested structure, Nones left out, and a function that puts such a list back in place."""
    leaves = keras.tree.flatten(data)
    present = [leaf is not None for leaf in leaves]
    structure = keras.tree.map_structure(lambda _: 0, data)  # who keeps the function need not keep the tensors

    def pack(tensors: Any) -> tuple:
        remaining = iter(tensors)
        return keras.tree.pack_sequence_as(structure, [next(remaining) if here else None for here in present])

    return [leaf for leaf in leaves if leaf is not None], pack


class _Carrier:
    """Carries a model's outputs through slicing, with the logits and masks that Keras hangs on them."""

    def pack(self, y_pred: Any) -> list[dict]:
        self.structure = keras.tree.map_structure(lambda _: 0, y_pred)
        packed = [
            {"y": y, "logits": keras_internals.get_logits(y), "mask": keras_internals.get_mask(y)}
            for y in keras.tree.flatten(y_pred)
        ]
        return [{name: tensor for name, tensor in one.items() if tensor is not None} for one in packed]

    def unpack(self, packed: list[dict]) -> Any:
        for one in packed:
            if "logits" in one:
                keras_internals.set_logits(one["y"], one["logits"])
            if "mask" in one:
                keras_internals.set_mask(one["y"], one["mask"])
        return keras.tree.pack_sequence_as(self.structure, [one["y"] for one in packed])
