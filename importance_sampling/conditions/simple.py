"""Conditions on the scores alone, for `ConditionalStartSampler` and for users' own loops.

Source: the conditions of earlier versions of the method's library, by formula; none of them weighs gain against cost.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.conditions.base import Condition, ScoreCondition
from importance_sampling.datasets.base import is_int
from importance_sampling.probabilities import clean_scores


class WarmupCondition(Condition):
    """On after a number of steps, whatever the scores.

    It loses where those steps are too few for scores to differ, or far more than that took.

    Args:
        warmup: int >= 0, default 100: updates until it is on.

    Raises:
        ValueError: `warmup` is out of range.
    """

    _saved = (*Condition._saved, "steps")

    def __init__(self, warmup: int = 100):
        super().__init__()
        if not is_int(warmup) or warmup < 0:
            raise ValueError(f"`warmup` must be an int of at least 0. Received: warmup={warmup!r}")
        self.warmup = int(warmup)
        self.steps = 0
        self.satisfied = self.warmup == 0

    def update(self, scores: Any, steps: int = 1) -> bool:
        """Count `steps` more; `scores` are not looked at. Returns `satisfied`."""
        self.steps += int(steps)
        return self._settle(self.steps >= self.warmup)


class ExpCondition(ScoreCondition):
    """On while the moving average of 1 / mean(s) exceeds a threshold: when the scores have become small.

    It depends on the scale of the scores, and small ones need not be unequal ones.

    Args:
        lambda_th: float, default 2, in units of one over the score's.
        momentum: float in [0, 1), default 0.9, of the average, per step.

    Raises:
        ValueError: `lambda_th` is not a number, or `momentum` is out of range.

    Example:
        >>> ExpCondition(2.0).update(np.array([0.1, 0.2, 0.6]))  # 1 / 0.3 = 3.33
        True
    """

    def __init__(self, lambda_th: float = 2.0, momentum: float = 0.9):
        super().__init__(lambda_th, momentum, "lambda_th")

    def _statistic(self, scores: np.ndarray) -> float:
        return 1.0 / scores.mean() if clean_scores(scores)[1] else float("nan")


class TotalVariationCondition(ScoreCondition):
    """On while the moving average of the distance (1/2) sum|g_i - u| of the scores from uniform exceeds a threshold.

    The distance is in [0, 1 - 1/n]. A few very high scores, where importance sampling gains most, move it little.

    Args:
        tv_th: float, default 0.5.
        momentum: float in [0, 1), default 0.9, of the average, per step.

    Raises:
        ValueError: `tv_th` is not a number, or `momentum` is out of range.

    Example:
        >>> TotalVariationCondition(0.2).update(np.array([1.0, 1.0, 1.0, 5.0]))  # (3 * 1/8 + 3/8) / 2 = 0.375
        True
    """

    def __init__(self, tv_th: float = 0.5, momentum: float = 0.9):
        super().__init__(tv_th, momentum, "tv_th")

    def _statistic(self, scores: np.ndarray) -> float:
        cleaned, usable = clean_scores(scores)
        return 0.5 * np.abs(cleaned / cleaned.sum() - 1.0 / cleaned.size).sum() if usable else float("nan")
