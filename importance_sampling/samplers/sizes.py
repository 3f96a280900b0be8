"""How many to score and how many to train on, when the variance or the time of a step is to stay what it was.

Source: the formulas of earlier versions of the method's library. They are arithmetic on the variance reduction `vr`
(the moving average of tau); nothing is drawn, and nothing is timed.
"""

from __future__ import annotations

from importance_sampling.datasets.base import is_real


def check_backward_time(backward_time: float) -> None:
    """Raise unless it is a positive number."""
    if not is_real(backward_time) or not 0 < backward_time < float("inf"):
        raise ValueError(
            "`backward_time` must be a positive number: how many forward passes a backward pass takes. "
            f"Received: backward_time={backward_time!r}"
        )


def check_time_options(backward_time: float, ratio: float, min_a: float) -> None:
    """Raise unless the options of `constant_time_sizes` are in their ranges."""
    check_backward_time(backward_time)
    if not is_real(ratio) or not 0 <= ratio <= 1:
        raise ValueError(f"`ratio` must be a number in [0, 1]. Received: ratio={ratio!r}")
    if not is_real(min_a) or not 0 < min_a <= 1:
        raise ValueError(f"`min_a` must be a number in (0, 1]. Received: min_a={min_a!r}")


def quantised(size: float, batch_size: int, parts: int = 8) -> int:
    """The nearest multiple of `batch_size / parts`, at least one of them, so that only a few sizes are ever compiled.

    Args:
        size: float, how many.
        batch_size: int.
        parts: int, default 8.

    Returns:
        int, at least 1.

    Example:
        >>> quantised(50, batch_size=128), quantised(3, batch_size=128), quantised(128, batch_size=128)
        (48, 16, 128)
    """
    return max(1, round(max(1, round(size * parts / batch_size)) * batch_size / parts))


def constant_variance_threshold(backward_time: float = 2.0, extra_samples: float = 0.2) -> float:
    """The variance reduction above which work is saved: vr > 1 / (backward_time / (1 + backward_time) - extra_samples).

    Raises:
        ValueError: an argument is out of its range, or no variance reduction would do.
    """
    check_backward_time(backward_time)
    share = backward_time / (1.0 + backward_time)
    if not is_real(extra_samples) or not 0 <= extra_samples < share:
        raise ValueError(
            f"`extra_samples` must be a number in [0, {share:.3f}), the backward pass's share of a step: else nothing "
            f"is ever saved. Received: extra_samples={extra_samples!r}"
        )
    return 1.0 / (share - extra_samples)


def constant_variance_size(vr: float, batch_size: int, extra_samples: float = 0.2) -> int:
    """Of a pool of b, how many to train on: int(b (1/vr + extra_samples)), at least 1 and at most b.

    Args:
        vr: float >= 1, the moving average of tau.
        batch_size: int, b.
        extra_samples: float, default 0.2; the share of the batch that is trained on beyond what 1/vr says.

    Example:
        >>> constant_variance_size(2.5, 128)  # 128 * 0.6
        76
    """
    return min(batch_size, max(1, int(batch_size * (1.0 / vr + extra_samples))))


def constant_time_sizes(
    vr: float, batch_size: int, backward_time: float = 2.0, ratio: float = 0.5, min_a: float = 0.2
) -> tuple[int, int]:
    """How many to score, B, and of these to train on, a, in the time t = (1 + backward_time) b of a plain step.

    With a0 = max(min_a b, b / vr) and Bmax = t - (1 + backward_time) a0: B = int(b + (Bmax - b) ratio) and
    a = int((t - B) / (1 + backward_time)). a is at least 1.

    Args:
        vr: float >= 1, the moving average of tau.
        batch_size: int, b.
        backward_time: float > 0, default 2; in forward passes.
        ratio: float in [0, 1], default 0.5; of what could be spent on scoring, how much is.
        min_a: float in (0, 1], default 0.2; the smallest share of the batch to be trained on, at ratio 1.

    Returns:
        `(B, a)`.

    Example:
        >>> constant_time_sizes(2.0, 120)  # t = 360, a0 = 60, Bmax = 180, B = 150, a = 70
        (150, 70)
    """
    time = (1.0 + backward_time) * batch_size
    smallest = max(min_a * batch_size, batch_size / vr)
    largest_pool = time - (1.0 + backward_time) * smallest
    pool = int(batch_size + (largest_pool - batch_size) * ratio)
    return pool, max(1, int((time - pool) / (1.0 + backward_time)))


def quantised_time_sizes(pool: int, picked: int, batch_size: int, backward_time: float = 2.0) -> tuple[int, int]:
    """`constant_time_sizes` with a rounded to an eighth of the batch, at most 7/8, and B what is left of the time.

    Example:
        >>> quantised_time_sizes(150, 70, batch_size=120)  # 70 -> 75, 360 - 3 * 75
        (135, 75)
    """
    picked = min(quantised(picked, batch_size), max(1, 7 * batch_size // 8))
    return max(1, int((1.0 + backward_time) * (batch_size - picked))), picked
