"""The tasks of the benchmarks. Each module named in NAMES defines a `Task` named TASK."""

from __future__ import annotations

from importlib import import_module

from tasks.task import Task

STANDARD = (
    "mnist_mlp",
    "mnist_cnn",
    "mnist_lstm",
    "mnist_lr",
    "mnist_two_rare",
    "mnist_eight",
    "mnist_wrong_labels",
    "flights",
    "canevet",
)
FURTHER = (
    "brown_lstm",
    "brown_transformer",
    "shuttle",
    "satellite",
    "ratings",
    "late_flights",
    "late_flights_normalised",
    "mnist_augmented",
    "fine_tuning",
)
NAMES = STANDARD + FURTHER
DECAYING = (*FURTHER, "flights", "canevet")  # for learning rates that decay; only two of them are on MNIST


def get(name: str) -> Task:
    """Return a task by name."""
    return import_module(f"tasks.{name}").TASK
