"""Resampling schemes: draw b positions of a pool from its probabilities.

The random numbers are arguments, so that tests can compare draws with results computed by hand.

Source: systematic resampling, Kitagawa, "Monte Carlo Filter and Smoother for Non-Gaussian Nonlinear State Space
Models", 1996, section 2; multinomial resampling, [KF18] (arXiv 1803.00942), Algorithm 1.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from importance_sampling.utils.numerics import array_namespace, as_floats
from importance_sampling.utils.validation import is_one_of

QUANTILES_AT_ONCE = 2**20  # that NumPy searches, to bound memory


class Resampling(Protocol):
    """A resampling scheme: the number of random numbers it needs, the draw, and the second moment of its counts."""

    name: str

    def num_uniforms(self, n: int) -> int: ...

    def positions(self, probabilities: Any, uniforms: Any, n: int) -> Any: ...

    def second_moment(self, q: Any) -> Any: ...


class SystematicResampling:
    """Draw at n equally spaced quantiles with a common random offset.

    Every position is drawn floor(n P) or ceil(n P) times. Candidates should be in random order, as in a shuffled pool.

    Example:
        >>> probabilities, uniforms = np.array([0.1, 0.6, 0.3], "float32"), np.array([0.5], "float32")
        >>> SystematicResampling().positions(probabilities, uniforms, 2)  # at the quantiles 0.25 and 0.75
        array([1, 2])
    """

    name = "systematic"

    def num_uniforms(self, n: int) -> int:
        """Return the number of random numbers that a draw of n positions needs: 1."""
        return 1

    def positions(self, probabilities: Any, uniforms: Any, n: int) -> Any:
        """Draw the positions at the quantiles (i + u) / n, i = 0, ..., n - 1, of the probabilities.

        Args:
            probabilities: float `(pool_size,)`, with a sum of 1.
            uniforms: float `(1,)` in [0, 1).
            n: int, the number of positions to draw.

        Returns:
            int `(n,)`, in ascending order.
        """
        xp = array_namespace(uniforms)
        quantiles = (as_floats(xp.arange(n, dtype="int32"), xp) + as_floats(uniforms, xp)) / n
        return _positions_at(probabilities, quantiles)

    def second_moment(self, q: Any) -> Any:
        """Compute E[count^2] / q^2 for an expected count q: (f^2 + (2 f + 1) r) / q^2, f = floor(q), r = q - f."""
        xp = array_namespace(q)
        q = as_floats(q, xp)
        floor = xp.floor(q)
        rest = q - floor
        return (floor * floor + (2.0 * floor + 1.0) * rest) / (q * q)


class MultinomialResampling:
    """Draw n positions independently.

    Example:
        >>> probabilities, uniforms = np.array([0.1, 0.6, 0.3], "float32"), np.array([0.95, 0.05], "float32")
        >>> MultinomialResampling().positions(probabilities, uniforms, 2)
        array([2, 0])
    """

    name = "multinomial"

    def num_uniforms(self, n: int) -> int:
        """Return the number of random numbers that a draw of n positions needs: n."""
        return n

    def positions(self, probabilities: Any, uniforms: Any, n: int) -> Any:
        """Draw the positions at n independent quantiles of the probabilities.

        Args:
            probabilities: float `(pool_size,)`, with a sum of 1.
            uniforms: float `(n,)` in [0, 1).
            n: int, the number of positions to draw.

        Returns:
            int `(n,)`.
        """
        return _positions_at(probabilities, uniforms)

    def second_moment(self, q: Any) -> Any:
        """Compute E[count^2] / q^2 for an expected count q, in the Poisson limit: 1 + 1/q."""
        return 1.0 + 1.0 / q


SCHEMES: dict[str, Resampling] = {scheme.name: scheme for scheme in (SystematicResampling(), MultinomialResampling())}


def check_scheme(resampling: Any) -> None:
    """Check that an argument is a `Resampling`, and not its name.

    Raises:
        ValueError: it isn't.
    """
    if not all(callable(getattr(resampling, method, None)) for method in ("num_uniforms", "positions")):
        raise ValueError(
            "`resampling` must be a `Resampling`, such as `SystematicResampling()`. "
            f"Received: resampling={resampling!r}"
        )


def get(name: str) -> Resampling:
    """Return the resampling scheme with a name.

    Raises:
        ValueError: there is no such scheme.
    """
    if not is_one_of(name, SCHEMES):
        raise ValueError(f"`resampling` must be one of {sorted(SCHEMES)}. Received: resampling={name!r}")
    return SCHEMES[name]


def _positions_at(probabilities: Any, quantiles: Any) -> Any:
    """Invert the cumulative distribution. Positions with a probability of zero are never returned."""
    xp = array_namespace(probabilities, quantiles)
    cumulative = xp.cumsum(as_floats(probabilities, xp))
    # The sum of floats is not exactly 1: scale the quantiles by the actual sum. A quantile that is rounded up to the
    # sum itself is moved below it, to the last position that has a probability.
    total = cumulative[-1]
    largest = total * (1.0 - 1e-7)
    if xp is np:
        positions = np.empty(len(quantiles), "int64")
        for start in range(0, len(quantiles), QUANTILES_AT_ONCE):
            part = slice(start, start + QUANTILES_AT_ONCE)
            scaled = np.minimum(as_floats(quantiles[part], np) * total, largest)
            positions[part] = np.searchsorted(cumulative, scaled, side="right")
        return positions
    from importance_sampling import backend  # here, so that samplers can be imported without a framework

    return backend.searchsorted(cumulative, xp.minimum(as_floats(quantiles, xp) * total, largest))
