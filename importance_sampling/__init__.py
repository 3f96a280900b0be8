"""Train Keras models with importance sampling: `ImportanceTraining(model).fit(...)` in place of `model.fit(...)`.

`compare(build_model, x, y, ...)` says whether this is faster on your own model and data.

Keras and its backend are imported when a trainer is first used: `samplers`, `reweighting` and `conditions` need only
NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importance_sampling.comparison import compare
    from importance_sampling.training import ImportanceTraining

__version__ = "1.0.0"
__all__ = ["ImportanceTraining", "__version__", "compare"]
_MODULES = {"ImportanceTraining": "importance_sampling.training", "compare": "importance_sampling.comparison"}


def __getattr__(name: str) -> Any:
    """Import `ImportanceTraining` and `compare` when they are first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
