"""The ways to train that the benchmark compares, by name: each from a model and a seed to whatever has Keras's `fit`.

They are the library's, with their defaults, and a few more. A trainer with an attribute `forward_equivalents` tells
what it has cost so far, in forward passes of a batch; without one it is taken to cost 3 a step.
"""

from __future__ import annotations

from fast_uniform import FastUniform

from importance_sampling.comparison.catalogue import TRAINERS, Way, way

YARDSTICKS = ("plain", "fast-uniform")

WAYS: dict[str, Way] = {
    "plain": way("uniform"),
    "fast-uniform": FastUniform,
    "default": way("importance"),
    "pool": way("importance,sampler=pool"),
    "presample-5": way("importance,presample=5"),
    "presample-auto": way("importance,presample=auto"),
    "cost-measured": way("importance,cost=measured"),
    "published": way("importance,presample=3,tau_th=2,resampling=multinomial"),
} | {name: way(name) for name in TRAINERS if name != "importance"}
