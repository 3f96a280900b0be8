"""Train Keras models by importance sampling: `ImportanceTraining(model).fit(...)` in place of `model.fit(...)`."""

from importance_sampling.training import ImportanceTraining

__version__ = "1.0.0"
__all__ = ["ImportanceTraining", "__version__"]
