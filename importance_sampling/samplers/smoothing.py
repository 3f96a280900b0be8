"""Smoothing: scores made more alike before a batch is drawn by them, and samplers that do so.

Source: [KF17] (arXiv 1706.00043), section 3.3, for the additive kind; the others are those of earlier versions of the
method's library. Weights follow the smoothed probabilities, so nothing is biased by it; a policy that looks at scores
themselves is shown the unsmoothed ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from importance_sampling.conditions.signals import moving_average
from importance_sampling.datasets.base import is_real
from importance_sampling.numerics import floats, side
from importance_sampling.probabilities import clean_scores
from importance_sampling.samplers.base import BaseSampler, Drawn, Smoothing
from importance_sampling.samplers.decorator import SamplerDecorator


def additive(scores: Any, c: Any) -> Any:
    """s + c.

    Args:
        scores: float `(n,)`, >= 0.
        c: float scalar >= 0.

    Example:
        >>> additive(np.array([0.0, 3.0]), 1.0)
        array([1., 4.])
    """
    return floats(scores, side(scores, c)) + c


def adaptive(scores: Any, average: Any, percentage: float, forget: float) -> tuple[Any, Any]:
    """s + percentage * EMA(mean(s)), the average being that up to and with these scores.

    Args:
        scores: float `(n,)`, >= 0.
        average: float scalar, the average before; NaN at the beginning.
        percentage: float >= 0, in units of the average.
        forget: float in [0, 1), what the average keeps of itself.

    Returns:
        Float `(n,)`, and the new average. A mean that is not finite leaves the average as it is.

    Example:
        >>> adaptive(np.array([0.0, 4.0]), average=1.0, percentage=0.5, forget=0.9)  # .9 * 1 + .1 * 2 = 1.1
        (array([0.55, 4.55]), array(1.1))
    """
    xp = side(scores, average)
    scores = floats(scores, xp)
    mean = xp.mean(scores)
    mean = xp.where(xp.isfinite(mean), mean, float("nan"))
    average = moving_average(floats(average, xp), mean, forget, 1)
    return scores + percentage * xp.where(xp.isnan(average), 0.0, average), average


def power(scores: Any, exponent: float) -> Any:
    """s^exponent.

    Args:
        scores: float `(n,)`, >= 0.
        exponent: float >= 0; 0 is uniform, 1 changes nothing.

    Example:
        >>> power(np.array([0.0, 4.0]), 0.5)
        array([0., 2.])
    """
    xp = side(scores)
    return xp.power(floats(scores, xp), exponent)


def smoother(smooth: float, is_adaptive: bool, forget: float = 0.9) -> Callable[[Any, Any], Any]:
    """Additive smoothing as a function of scores and their average, for draws inside a compiled step.

    Args:
        smooth: float >= 0; in units of the score, or of its average.
        is_adaptive: bool, which of the two.
        forget: float in [0, 1), default 0.9; what the average keeps of itself.

    Returns:
        `smooth(scores, average)` -> scores.

    Raises:
        ValueError: `smooth` is out of its range.
    """
    smooth = _not_negative("smooth", smooth)

    def smoothed(scores: Any, average: Any) -> Any:
        return adaptive(scores, average, smooth, forget)[0] if is_adaptive else additive(scores, smooth)

    return smoothed


class SmoothingDecorator(SamplerDecorator):
    """A decorator that draws by smoothed scores; a subclass fills in `_smooth`.

    Scores of no use, such as those with a NaN among them, are passed on as they are: nothing makes them useful.
    """

    def _draw(self, batch_size: int, smooth: Smoothing) -> Drawn:
        def smoothed(scores: np.ndarray) -> np.ndarray:
            return smooth(self._smooth(scores) if clean_scores(scores)[1] else scores)

        return self.sampler._draw(batch_size, smoothed)

    def _smooth(self, scores: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class AdditiveSmoothingSampler(SmoothingDecorator):
    """Draw by s + c.

    As unbiased as the sampler. It costs nothing; it loses where c is far above the scores: then little is left of them.

    Args:
        sampler: the sampler to decorate.
        c: float >= 0, in units of the score.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> AdditiveSmoothingSampler(ModelSampler(dset, UNBIASED, model), c=0.5).draw(128)
    """

    def __init__(self, sampler: BaseSampler, c: float):
        super().__init__(sampler)
        self.c = _not_negative("c", c)

    def _smooth(self, scores: np.ndarray) -> np.ndarray:
        return additive(scores, self.c)


class AdaptiveAdditiveSmoothingSampler(SmoothingDecorator):
    """Draw by s + percentage * EMA(mean(s)): smoothing that follows the scale of the scores.

    As unbiased as the sampler. It costs nothing; it loses where very few samples matter: each of the others is drawn as
    if it had at least `percentage` of the mean.

    Args:
        sampler: the sampler to decorate.
        percentage: float >= 0, default 0.5; in units of the average.
        forget: float in [0, 1), default 0.9; what the average keeps of itself at every batch.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> AdaptiveAdditiveSmoothingSampler(ModelSampler(dset, UNBIASED, model)).draw(128)
    """

    _saved = ("average",)

    def __init__(self, sampler: BaseSampler, percentage: float = 0.5, forget: float = 0.9):
        super().__init__(sampler)
        if not is_real(forget) or not 0 <= forget < 1:
            raise ValueError(f"`forget` must be a number in [0, 1). Received: forget={forget!r}")
        self.percentage = _not_negative("percentage", percentage)
        self.forget = float(forget)
        self.average = float("nan")

    def _smooth(self, scores: np.ndarray) -> np.ndarray:
        smoothed, average = adaptive(scores, self.average, self.percentage, self.forget)
        self.average = float(average)
        return smoothed


class PowerSmoothingSampler(SmoothingDecorator):
    """Draw by s^power.

    As unbiased as the sampler. It costs nothing; with a power above 1 it sharpens in place of smoothing, and the
    variance grows.

    Args:
        sampler: the sampler to decorate.
        power: float >= 0, default 0.5.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> PowerSmoothingSampler(ModelSampler(dset, UNBIASED, model)).draw(128)
    """

    def __init__(self, sampler: BaseSampler, power: float = 0.5):
        super().__init__(sampler)
        self.power = _not_negative("power", power)

    def _smooth(self, scores: np.ndarray) -> np.ndarray:
        return power(scores, self.power)


def _not_negative(name: str, value: Any) -> float:
    if not is_real(value) or not 0 <= value < float("inf"):
        raise ValueError(f"`{name}` must be a number of at least 0. Received: {name}={value!r}")
    return float(value)
