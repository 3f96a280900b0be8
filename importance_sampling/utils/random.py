"""Derive seeds for the library's own random streams."""

from __future__ import annotations

import random


def seed_from_python() -> int:
    """Return a seed in [0, 2**31) that follows Python's global random generator, without advancing that generator.

    `keras.utils.set_random_seed` sets the state of that generator, and therefore this seed too.
    """
    copy = random.Random(0)
    copy.setstate(random.getstate())
    return copy.randrange(2**31)
