"""The ways to train that the benchmark compares, by name.

A way is a function of a model and a seed that returns an object with Keras's `fit`. The attribute
`forward_equivalents` of this object is its cost so far in forward passes of a batch; without the attribute, the cost is
3 per step.
"""

from __future__ import annotations

import traceback
from typing import Any

from fast_uniform import FastUniform

from importance_sampling.comparison import fit_of
from importance_sampling.comparison.registry import TRAINERS, Way, way

BASELINES = ("uniform", "fast-uniform")

WAYS: dict[str, Way] = {
    "uniform": way("uniform"),
    "fast-uniform": FastUniform,
    "default": way("importance"),
    "pool": way("importance,sampler=pool"),
    "presample-5": way("importance,presample=5"),
    "published": way("importance,presample=3,tau_th=2,resampling=multinomial"),
} | {name: way(name) for name in TRAINERS if name != "importance"}


class Isolated:
    """A trainer whose `fit` prints errors instead of raising them, so that the other ways continue.

    Args:
        trainer: a model, a trainer, or another object with Keras's `fit`.

    Attributes:
        has_failed: bool, True after an error.
    """

    def __init__(self, trainer: Any):
        self.trainer, self.has_failed = trainer, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trainer, name)

    def fit(self, **arguments: Any) -> None:
        """Train."""
        try:
            fit_of(self.trainer, arguments)(**arguments)
        except Exception:
            self.has_failed = True
            traceback.print_exc()
