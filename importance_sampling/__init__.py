"""Train Keras models by importance sampling: `ImportanceTraining(model).fit(...)` in place of `model.fit(...)`.

Keras and its backend are imported when a trainer is first used: `samplers`, `reweighting` and `conditions` need NumPy
only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importance_sampling.training import ImportanceTraining

__version__ = "1.0.0"
__all__ = ["ImportanceTraining", "__version__"]


def __getattr__(name: str) -> Any:
    """Import `ImportanceTraining` when it is first used."""
    if name != "ImportanceTraining":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importance_sampling.training import ImportanceTraining

    return ImportanceTraining


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
