"""MNIST digits, with a perceptron of 784-512-512-10 units: short steps, and a training set that is fitted quickly."""

from tasks.mnist import perceptron, rows
from tasks.task import Task

TASK = Task(load=rows, build=perceptron, rate=0.001, tuned=0.001, seconds=30, steps=4000)
