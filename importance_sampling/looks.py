"""How often a gate looks: a look while it is closed scores a batch, which is spent for nothing if it stays closed.

No source; it is this library's own. What the gate makes of it is decided elsewhere.
"""

from __future__ import annotations

# A look scores a batch, a third of a step by arithmetic: every 17th step keeps it under 2 %.
LOOK_EVERY = 17
LOOKS = 2  # at one interval, before it is doubled
LONGEST = 32  # times the first interval


def interval(closed: int) -> int:
    """How many steps lie between looks: 17 to begin with, twice as many after every 2 looks that left the gate closed.

    By arithmetic a look is cheap; but it takes a millisecond beside, and small models take two steps in that time.

    Args:
        closed: int >= 0, how many looks in a row left the gate closed.

    Returns:
        int, at most 544.

    Example:
        >>> interval(0), interval(2), interval(5), interval(100)
        (17, 34, 68, 544)
    """
    return LOOK_EVERY * min(2 ** (closed // LOOKS), LONGEST)
