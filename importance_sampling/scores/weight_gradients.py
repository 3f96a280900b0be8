"""Forms of single samples' gradients with respect to a weight, whose norms need less memory than the gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from keras import ops


class OuterProducts(NamedTuple):
    """Gradients that are sums of outer products: those of a matrix X that the layer multiplies its inputs by.

    The gradient of sample i is the sum over positions t of the outer product of inputs[i, t] and gradients[i, t].

    Args:
        inputs: tuple of float tensors `(batch, ..., positions, features)`. The gradient consists of the matrices of all
            of them, stacked one below the other.
        gradients: float `(batch, ..., positions, units)`. The axes between the first and the last two enumerate
            matrices of the same weight.

    Example:
        >>> inputs, gradients = np.array([[[1.0, 2.0]]]), np.array([[[3.0]]])  # 1 sample, 1 position
        >>> float(OuterProducts((inputs,), gradients).squared_norms()[0])  # 3 ** 2 + 6 ** 2
        45.0
    """

    inputs: tuple[Any, ...]
    gradients: Any

    @staticmethod
    def sum(parts: Sequence[OuterProducts]) -> OuterProducts:
        """Return the sum of gradients of the same shape, from several calls of a layer."""
        blocks = zip(*(part.inputs for part in parts), strict=True)
        inputs = tuple(ops.concatenate(block, axis=-2) for block in blocks)
        return OuterProducts(inputs, ops.concatenate([part.gradients for part in parts], axis=-2))

    def squared_norms(self) -> Any:
        """Return the squared norm of the gradient of each sample, float `(batch,)`.

        The norm is computed from the products of all pairs of positions if these are less work than the gradients.
        Otherwise, it is computed from the gradients, which then need less memory than the inputs.
        """
        positions, units = self.gradients.shape[-2:]
        if positions == 1:
            inputs = sum(ops.sum(ops.square(block), axis=-1) for block in self.inputs)
            return _row_sums(inputs * ops.sum(ops.square(self.gradients), axis=-1))
        features = sum(block.shape[-1] for block in self.inputs)
        if positions * (features + units) <= features * units:
            products = sum(ops.matmul(block, ops.swapaxes(block, -1, -2)) for block in self.inputs)
            squares = products * ops.matmul(self.gradients, ops.swapaxes(self.gradients, -1, -2))
            return ops.maximum(_row_sums(squares), 0.0)  # rounding errors can make a sum of zero negative
        matrices = [ops.matmul(ops.swapaxes(block, -1, -2), self.gradients) for block in self.inputs]
        return sum(_row_sums(ops.square(matrix)) for matrix in matrices)


class TokenGradients(NamedTuple):
    """Gradients with respect to a table in which the layer looks up rows.

    Args:
        tokens: int `(batch, positions)`, the rows of the table.
        gradients: float `(batch, positions, features)`, the gradients with respect to the rows that were looked up.

    Example:
        >>> tokens, gradients = np.array([[7, 7, 2]]), np.array([[[1.0], [2.0], [4.0]]])
        >>> float(TokenGradients(tokens, gradients).squared_norms()[0])  # (1 + 2) ** 2 + 4 ** 2
        25.0
    """

    tokens: Any
    gradients: Any

    @staticmethod
    def sum(parts: Sequence[TokenGradients]) -> TokenGradients:
        """Return the sum of gradients with respect to the same table, from several calls of a layer."""
        tokens, gradients = zip(*parts, strict=True)
        return TokenGradients(ops.concatenate(tokens, axis=1), ops.concatenate(gradients, axis=1))

    def squared_norms(self) -> Any:
        """Return the squared norm of the gradient of each sample, float `(batch,)`.

        The norm is computed from the products of all pairs of positions with equal tokens, if the sequence is short.
        Otherwise, it is computed from the sums for each token, which needs the tokens in order.
        """
        rows, positions, features = self.gradients.shape
        if positions <= features:
            is_equal = ops.equal(ops.expand_dims(self.tokens, 2), ops.expand_dims(self.tokens, 1))
            products = ops.matmul(self.gradients, ops.swapaxes(self.gradients, 1, 2))
            return ops.maximum(_row_sums(products * ops.cast(is_equal, products.dtype)), 0.0)
        order = ops.argsort(self.tokens, axis=1)
        ordered = ops.take_along_axis(self.tokens, order, axis=1)
        is_new = ops.cast(ordered[:, 1:] != ordered[:, :-1], "int32")
        # Number the distinct tokens of each sample; the order of the positions stays.
        numbers = ops.pad(ops.cumsum(is_new, axis=1), ((0, 0), (1, 0)))
        numbers = ops.take_along_axis(numbers, ops.argsort(order, axis=1), axis=1)
        segments = numbers + positions * ops.expand_dims(ops.arange(rows, dtype="int32"), 1)
        sums = ops.segment_sum(
            ops.reshape(self.gradients, (-1, features)), ops.reshape(segments, (-1,)), rows * positions
        )
        return _row_sums(ops.reshape(ops.square(sums), (rows, -1)))


class DenseGradients(NamedTuple):
    """Gradients as tensors.

    Args:
        gradients: float `(batch, ...)`.
    """

    gradients: Any

    @staticmethod
    def sum(parts: Sequence[DenseGradients]) -> DenseGradients:
        """Return the sum of gradients of the same shape, from several calls of a layer."""
        return DenseGradients(sum(part.gradients for part in parts))

    def squared_norms(self) -> Any:
        """Return the squared norm of the gradient of each sample, float `(batch,)`."""
        return _row_sums(ops.square(self.gradients))


def sum_positions(gradient: Any, axes: Sequence[int] = (-1,)) -> Any:
    """Sum gradients over all axes except the first and those in `axes`, as for a bias.

    Args:
        gradient: float `(batch, ...)`.
        axes: the axes of the weight. Default: the last one.
    """
    rank = len(gradient.shape)
    weight_axes = {axis % rank for axis in axes}
    return ops.sum(gradient, axis=[axis for axis in range(1, rank) if axis not in weight_axes])


def _row_sums(tensor: Any) -> Any:
    return ops.sum(tensor, axis=list(range(1, len(tensor.shape))))
