"""MNIST digits, with logistic regression: a step mostly waits for its input."""

from importance_sampling.models import lr
from tasks.mnist import rows
from tasks.task import Task

TASK = Task(load=rows, build=lambda: lr((784,), 10), rate=0.1, tuned=1.6, seconds=8, steps=8000)
