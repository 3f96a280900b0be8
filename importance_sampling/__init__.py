"""Train Keras models by importance sampling: `ImportanceTraining(model).fit(...)` in place of `model.fit(...)`."""

__version__ = "1.0.0"  # ahead of the imports: an error of theirs names it

from importance_sampling.training import ImportanceTraining

__all__ = ["ImportanceTraining", "__version__"]
