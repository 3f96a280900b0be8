"""Digits by a perceptron, 784-512-512-10: cheap steps, soon fitted."""

from tasks.mnist import perceptron, rows
from tasks.task import Task

TASK = Task(load=rows, build=perceptron, rate=0.001, tuned=0.001, seconds=30, steps=4000)
