"""Schemes that turn probabilities over a pool into b positions.

Source: systematic resampling, Kitagawa, "Monte Carlo Filter and Smoother", 1996, section 2; multinomial draws are
those of [KF18] (arXiv 1803.00942), Algorithm 1. Making the random numbers is apart from the arithmetic on them, so
that tests can feed numbers. What the probabilities are is the sampler's business, not done here.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from importance_sampling import backend
from importance_sampling.numerics import floats, side


class Resampling(Protocol):
    """What a scheme has: how many random numbers it wants, the draw, and the second moment of its counts."""

    name: str

    def num_uniforms(self, n: int) -> int: ...

    def positions(self, probabilities: Any, uniforms: Any, n: int) -> Any: ...

    def second_moment(self, q: Any) -> Any: ...


class SystematicResampling:
    """One random number, n equally spaced arrows: every position is drawn floor(n P) or ceil(n P) times.

    Candidates should stand in random order, as those of a shuffled pool do.

    Example:
        >>> import numpy as np
        >>> SystematicResampling().positions(np.array([0.1, 0.6, 0.3], "float32"), np.array([0.5], "float32"), 2)
        ... # arrows at 0.25 and 0.75 -> positions 1 and 2
    """

    name = "systematic"

    def num_uniforms(self, n: int) -> int:
        """How many random numbers a draw of n takes: one."""
        return 1

    def positions(self, probabilities: Any, uniforms: Any, n: int) -> Any:
        """Positions hit by the arrows (i + u) / n on the cumulative probabilities.

        Args:
            probabilities: float `(pool_size,)`, summing to 1.
            uniforms: float `(1,)` in [0, 1).
            n: how many to draw.

        Returns:
            int `(n,)`, ascending.
        """
        xp = side(uniforms)
        arrows = (floats(xp.arange(n), xp) + floats(uniforms, xp)) / n
        return _invert(probabilities, arrows)

    def second_moment(self, q: Any) -> Any:
        """E[count^2] / q^2 for an expected count q: (f^2 + (2 f + 1) r) / q^2, f = floor(q), r = q - f."""
        floor = side(q).floor(q)
        rest = q - floor
        return (floor * floor + (2.0 * floor + 1.0) * rest) / (q * q)


class MultinomialResampling:
    """n independent draws.

    Example:
        >>> import numpy as np
        >>> MultinomialResampling().positions(
        ...     np.array([0.1, 0.6, 0.3], "float32"), np.array([0.95, 0.05], "float32"), 2)
        ... # -> positions 2 and 0
    """

    name = "multinomial"

    def num_uniforms(self, n: int) -> int:
        """How many random numbers a draw of n takes: n."""
        return n

    def positions(self, probabilities: Any, uniforms: Any, n: int) -> Any:
        """Positions hit by n independent arrows; arguments and result as for systematic draws, uniforms `(n,)`."""
        return _invert(probabilities, uniforms)

    def second_moment(self, q: Any) -> Any:
        """E[count^2] / q^2 for an expected count q, the Poisson limit: 1 + 1/q."""
        return 1.0 + 1.0 / q


SCHEMES: dict[str, Resampling] = {scheme.name: scheme for scheme in (SystematicResampling(), MultinomialResampling())}


def get(name: str) -> Resampling:
    """The scheme of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in SCHEMES:
        raise ValueError(f"`resampling` must be one of {sorted(SCHEMES)}. Received: resampling={name!r}")
    return SCHEMES[name]


def _invert(probabilities: Any, arrows: Any) -> Any:
    """Inverse of the cumulative distribution, never a position of probability zero."""
    xp = side(probabilities, arrows)
    cumulative = xp.cumsum(floats(probabilities, xp))
    # Float sums end near 1, not at it: measure the arrows by the sum that there is. An arrow that rounding puts on
    # the very end is moved just inside, onto the last position that has any probability.
    total = cumulative[-1]
    arrows = xp.minimum(floats(arrows, xp) * total, total * (1.0 - 1e-7))
    if xp is np:
        return np.searchsorted(cumulative, arrows, side="right")
    return backend.searchsorted(cumulative, arrows)
