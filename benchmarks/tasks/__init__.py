"""The tasks of the benchmarks. Each module defines a `Task` named TASK."""

from __future__ import annotations

from importlib import import_module

from tasks.task import Task

NAMES = (
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


def get(name: str) -> Task:
    """Return a task by name."""
    return import_module(f"tasks.{name}").TASK
