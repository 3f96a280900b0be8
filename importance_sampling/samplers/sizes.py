"""Compute the pool and batch sizes that keep the variance, or the time, of a step constant.

The sizes follow from the variance reduction `vr`, the moving average of tau, by the formulas of earlier versions of the
method's library. The time of a backward pass is an argument.
"""

from __future__ import annotations

from importance_sampling.utils.validation import is_real

SIZES = 8  # the number of sizes to which others are rounded


def check_backward_time(backward_time: float) -> None:
    """Check that the time of a backward pass is a positive, finite number."""
    if not is_real(backward_time) or not 0 < backward_time < float("inf"):
        raise ValueError(
            "`backward_time` must be a positive number, the time of a backward pass in forward passes. "
            f"Received: backward_time={backward_time!r}"
        )


def check_time_options(backward_time: float, ratio: float, min_a: float) -> None:
    """Check that the options of `constant_time_sizes` are in their ranges."""
    check_backward_time(backward_time)
    if not is_real(ratio) or not 0 <= ratio <= 1:
        raise ValueError(f"`ratio` must be a number in [0, 1]. Received: ratio={ratio!r}")
    if not is_real(min_a) or not 0 < min_a <= 1:
        raise ValueError(f"`min_a` must be a number in (0, 1]. Received: min_a={min_a!r}")


def quantised(size: float, batch_size: int) -> int:
    """Round a size to the nearest multiple of `batch_size / 8`, so that steps are compiled for few sizes only.

    Args:
        size: float, in samples.
        batch_size: int, in samples.

    Returns:
        int, at least `batch_size / 8` and at least 1.

    Example:
        >>> quantised(50, batch_size=128), quantised(3, batch_size=128), quantised(128, batch_size=128)
        (48, 16, 128)
    """
    return max(1, round(max(1, round(size * SIZES / batch_size)) * batch_size / SIZES))


def constant_variance_threshold(backward_time: float = 2.0, extra_samples: float = 0.2) -> float:
    """Compute the variance reduction above which a step of constant variance takes less time than a uniform step.

    It is 1 / (backward_time / (1 + backward_time) - extra_samples).

    Args:
        backward_time: float > 0, default 2, in forward passes.
        extra_samples: float >= 0, default 0.2, below backward_time / (1 + backward_time); see `constant_variance_size`.

    Returns:
        float > 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    check_backward_time(backward_time)
    share = backward_time / (1.0 + backward_time)
    if not is_real(extra_samples) or not 0 <= extra_samples < share:
        raise ValueError(
            f"`extra_samples` must be a number in [0, {share:.3f}), the backward pass's share of the time of a step: "
            f"otherwise no step takes less time. Received: extra_samples={extra_samples!r}"
        )
    return 1.0 / (share - extra_samples)


def constant_variance_size(vr: float, batch_size: int, extra_samples: float = 0.2) -> int:
    """Compute the batch size to draw from a pool of b samples: int(b (1/vr + extra_samples)), between 1 and b.

    Args:
        vr: float >= 1, the moving average of tau.
        batch_size: int, b.
        extra_samples: float >= 0, default 0.2, the number of samples in addition to b / vr, as a share of b.

    Returns:
        int.

    Example:
        >>> constant_variance_size(2.5, 128)  # 128 * 0.6
        76
    """
    return min(batch_size, max(1, int(batch_size * (1.0 / vr + extra_samples))))


def constant_time_sizes(
    vr: float, batch_size: int, backward_time: float = 2.0, ratio: float = 0.5, min_a: float = 0.2
) -> tuple[int, int]:
    """Compute the sizes of the pool, B, and of the batch, a, of a step with the time of a uniform step.

    That time is t = (1 + backward_time) b forward passes of a sample.

    With a0 = max(min_a b, b / vr) and Bmax = t - (1 + backward_time) a0: B = int(b + (Bmax - b) ratio) and
    a = int((t - B) / (1 + backward_time)). a is at least 1.

    Args:
        vr: float >= 1, the moving average of tau.
        batch_size: int, b.
        backward_time: float > 0, default 2, in forward passes.
        ratio: float in [0, 1], default 0.5: 0 scores b samples, 1 the largest pool that the time allows.
        min_a: float in (0, 1], default 0.2, a lower limit of a / b, at ratio 1.

    Returns:
        Ints `(B, a)`.

    Example:
        >>> constant_time_sizes(2.0, 120)  # t = 360, a0 = 60, Bmax = 180, B = 150, a = 70
        (150, 70)
    """
    time = (1.0 + backward_time) * batch_size
    smallest = max(min_a * batch_size, batch_size / vr)
    largest_pool = time - (1.0 + backward_time) * smallest
    pool = int(batch_size + (largest_pool - batch_size) * ratio)
    return pool, max(1, int((time - pool) / (1.0 + backward_time)))


def quantised_time_sizes(picked: int, batch_size: int, backward_time: float = 2.0) -> tuple[int, int]:
    """Round the batch size of `constant_time_sizes` to eighths of b, at most 7/8, and use the time left for the pool.

    Args:
        picked: int, a.
        batch_size: int, b.
        backward_time: float > 0, default 2, in forward passes.

    Returns:
        Ints `(B, a)`.

    Example:
        >>> quantised_time_sizes(70, batch_size=120)  # 70 -> 75, 360 - 3 * 75
        (135, 75)
    """
    picked = min(quantised(picked, batch_size), max(1, (SIZES - 1) * batch_size // SIZES))
    return max(1, int((1.0 + backward_time) * (batch_size - picked))), picked
