"""Conditions on the scores or the number of steps, for `ConditionalStartSampler` and your own training loops.

Source: the conditions of the same names in earlier versions of the method's library.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.conditions.base import Condition, ScoreCondition
from importance_sampling.utils.numerics import clean_scores
from importance_sampling.utils.validation import is_int


class WarmupCondition(Condition):
    """Satisfied after a number of steps. Scores have no effect.

    Choose `warmup` so that the scores have become unequal by then.

    Args:
        warmup: int >= 0, default 100, the number of steps.

    Raises:
        ValueError: `warmup` is out of its range.

    Example:
        >>> condition = WarmupCondition(2)
        >>> condition.update(scores), condition.update(scores)
        (False, True)
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
        """Count steps and return `satisfied`.

        Args:
            scores: not used.
            steps: int >= 1, default 1, the number of steps since the last update.

        Returns:
            bool.
        """
        self.steps += int(steps)
        return self._set_satisfied(self.steps >= self.warmup)


class ExpCondition(ScoreCondition):
    """Satisfied while the moving average of 1 / mean(s) exceeds a threshold, that is, while the scores are small.

    The condition depends on the scale of the scores. Scores that are small are not necessarily unequal.

    Args:
        lambda_th: float, default 2; the threshold, in units of 1 / score.
        momentum: float in [0, 1), default 0.9, of the moving average, per step.

    Raises:
        ValueError: `lambda_th` is not a number, or `momentum` is out of its range.

    Example:
        >>> ExpCondition(2.0).update(np.array([0.1, 0.2, 0.6]))  # 1 / 0.3 = 3.33
        True
    """

    def __init__(self, lambda_th: float = 2.0, momentum: float = 0.9):
        super().__init__(lambda_th, momentum, "lambda_th")

    def _statistic(self, scores: np.ndarray) -> float:
        return 1.0 / scores.mean() if clean_scores(scores)[1] else float("nan")


class TotalVariationCondition(ScoreCondition):
    """Satisfied while the moving average of the total variation distance (1/2) sum|g_i - u| exceeds a threshold.

    The distance between the normalised scores g and the uniform distribution u is in [0, 1 - 1/n]. A few very high
    scores change it only a little, although importance sampling has its largest effect there.

    Args:
        tv_th: float, default 0.5; the threshold. From 1 on: never satisfied; negative: always.
        momentum: float in [0, 1), default 0.9, of the moving average, per step.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> TotalVariationCondition(0.2).update(np.array([1.0, 1.0, 1.0, 5.0]))  # (3 * 1/8 + 3/8) / 2 = 0.375
        True
    """

    def __init__(self, tv_th: float = 0.5, momentum: float = 0.9):
        super().__init__(tv_th, momentum, "tv_th")

    def _statistic(self, scores: np.ndarray) -> float:
        cleaned, usable = clean_scores(scores)
        return 0.5 * np.abs(cleaned / cleaned.sum() - 1.0 / cleaned.size).sum() if usable else float("nan")
