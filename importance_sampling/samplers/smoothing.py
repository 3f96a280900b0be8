"""Smooth scores before drawing, so that their differences have a smaller effect, and samplers that do so.

The weights follow from the smoothed probabilities, so smoothing adds no bias. Policies that use scores use the scores
before smoothing.

Source: [KF17] Katharopoulos & Fleuret, Biased Importance Sampling for Deep Neural Network Training, 2017 (arXiv
1706.00043), section 3.3, for additive smoothing; the others are those of earlier versions of the method's library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from importance_sampling.conditions.signals import moving_average
from importance_sampling.samplers.base import BaseSampler, Drawn, Smoothing
from importance_sampling.samplers.decorator import SamplerDecorator
from importance_sampling.utils.numerics import array_namespace, as_floats, clean_scores
from importance_sampling.utils.validation import check_flag, check_fraction, check_non_negative

DEFAULT_MOMENTUM = 0.9


def additive(scores: Any, c: Any) -> Any:
    """Compute s + c.

    Args:
        scores: float `(n,)`, >= 0.
        c: float scalar >= 0.

    Returns:
        Float `(n,)`.

    Example:
        >>> additive(np.array([0.0, 3.0]), 1.0)
        array([1., 4.])
    """
    return as_floats(scores, array_namespace(scores, c)) + c


def adaptive(scores: Any, average: Any, percentage: float, momentum: float) -> tuple[Any, Any]:
    """Compute s + percentage * EMA(mean(s)). The moving average includes these scores.

    Args:
        scores: float `(n,)`, >= 0.
        average: float scalar, the previous moving average; NaN if there is none.
        percentage: float >= 0, in units of the average.
        momentum: float in [0, 1), of the moving average.

    Returns:
        Float `(n,)`, and the new average. If the mean is not finite, the average doesn't change.

    Example:
        >>> adaptive(np.array([0.0, 4.0]), average=1.0, percentage=0.5, momentum=0.9)  # .9 * 1 + .1 * 2 = 1.1
        (array([0.55, 4.55]), array(1.1))
    """
    xp = array_namespace(scores, average)
    scores = as_floats(scores, xp)
    mean = xp.mean(scores)
    mean = xp.where(xp.isfinite(mean), mean, float("nan"))
    average = moving_average(as_floats(average, xp), mean, momentum, 1)
    return scores + percentage * xp.where(xp.isnan(average), 0.0, average), average


def power(scores: Any, exponent: float) -> Any:
    """Compute s^exponent.

    Args:
        scores: float `(n,)`, >= 0.
        exponent: float >= 0. 0 makes the scores equal, 1 changes nothing.

    Returns:
        Float `(n,)`.

    Example:
        >>> power(np.array([0.0, 4.0]), 0.5)
        array([0., 2.])
    """
    xp = array_namespace(scores)
    return xp.power(as_floats(scores, xp), exponent)


def make_smoothing(smooth: float, is_adaptive: bool) -> Callable[[Any, Any], Any]:
    """Return additive smoothing as a function of the scores and of their moving average, for compiled steps.

    Args:
        smooth: float >= 0, in units of the moving average if `is_adaptive` is True, else of the score.
        is_adaptive: bool.

    Returns:
        `smoothed(scores, average)` -> scores.

    Raises:
        ValueError: `smooth` is out of its range.
    """
    check_non_negative(smooth=smooth)
    check_flag(adaptive_smoothing=is_adaptive)
    smooth = float(smooth)

    def smoothed(scores: Any, average: Any) -> Any:
        return adaptive(scores, average, smooth, DEFAULT_MOMENTUM)[0] if is_adaptive else additive(scores, smooth)

    return smoothed


class SmoothingDecorator(SamplerDecorator):
    """A decorator that draws by smoothed scores. A subclass implements `_smooth`.

    Unusable scores, such as those with a NaN among them, are not smoothed.
    """

    def _draw(self, batch_size: int, smooth: Smoothing) -> Drawn:
        def smoothed(scores: np.ndarray) -> np.ndarray:
            return smooth(self._smooth(scores) if clean_scores(scores)[1] else scores)

        return self.sampler._draw(batch_size, smoothed)

    def _smooth(self, scores: np.ndarray) -> np.ndarray:
        """Smooth the scores of candidates, float64 `(n,)`."""
        raise NotImplementedError


class AdditiveSmoothingSampler(SmoothingDecorator):
    """Draw by s + c.

    Unbiased if the decorated sampler is. Cost: none. Not suited to a c far above the scores, which makes the draws
    nearly uniform.

    Args:
        sampler: the sampler to decorate.
        c: float >= 0, in units of the score.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> inner = ModelSampler(dset, UNBIASED, OracleWrapper(model, UNBIASED))
        >>> drawn = AdditiveSmoothingSampler(inner, c=0.5).draw(128)

    Source: [KF17], section 3.3.
    """

    def __init__(self, sampler: BaseSampler, c: float):
        super().__init__(sampler)
        check_non_negative(c=c)
        self.c = float(c)

    def _smooth(self, scores: np.ndarray) -> np.ndarray:
        return additive(scores, self.c)


class AdaptiveAdditiveSmoothingSampler(SmoothingDecorator):
    """Draw by s + percentage * EMA(mean(s)), which adapts to the scale of the scores.

    Unbiased if the decorated sampler is. Cost: none. Not suited to data of which very few samples have high scores:
    every other sample is drawn as if its score were at least `percentage` of the mean.

    Args:
        sampler: the sampler to decorate.
        percentage: float >= 0, default 0.5, in units of the moving average.
        forget: float in [0, 1), default 0.9, the momentum of the moving average, per batch.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> inner = ModelSampler(dset, UNBIASED, OracleWrapper(model, UNBIASED))
        >>> drawn = AdaptiveAdditiveSmoothingSampler(inner).draw(128)
    """

    _saved = ("average",)

    def __init__(self, sampler: BaseSampler, percentage: float = 0.5, forget: float = DEFAULT_MOMENTUM):
        super().__init__(sampler)
        check_fraction(forget=forget)
        check_non_negative(percentage=percentage)
        self.percentage = float(percentage)
        self.forget = float(forget)
        self.average = float("nan")

    def _smooth(self, scores: np.ndarray) -> np.ndarray:
        smoothed, average = adaptive(scores, self.average, self.percentage, self.forget)
        self.average = float(average)
        return smoothed


class PowerSmoothingSampler(SmoothingDecorator):
    """Draw by s^power.

    Unbiased if the decorated sampler is. Cost: none. A power above 1 increases the differences between scores, and the
    variance.

    Args:
        sampler: the sampler to decorate.
        power: float >= 0, default 0.5.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> inner = ModelSampler(dset, UNBIASED, OracleWrapper(model, UNBIASED))
        >>> drawn = PowerSmoothingSampler(inner).draw(128)
    """

    def __init__(self, sampler: BaseSampler, power: float = 0.5):
        super().__init__(sampler)
        check_non_negative(power=power)
        self.power = float(power)

    def _smooth(self, scores: np.ndarray) -> np.ndarray:
        return power(scores, self.power)
