"""TensorFlow's side of the rim, Keras's own training function on batches that carry the numbers of their rows.

The compiled function notes the numbers and hands Keras's step the batch without them, so that nobody has to read
batches by hand to know what a step is on. What is done with the numbers is decided elsewhere. Source:
`keras.src.backend.tensorflow.trainer.TensorFlowTrainer._make_function`.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf


class NotingFunction:
    """Stands in the place of Keras's training function, on batches `((batch, numbers),)`.

    Args:
        model: compiled, one that `can_note`.
        batch_size: int, rows of the largest batch.
    """

    def __init__(self, model: keras.Model, batch_size: int):
        self.steps_per_execution = model.steps_per_execution
        self._model = model
        self._notes: Any = None
        if self.steps_per_execution > 1:
            with tf.device("CPU:0"):
                self._taken = tf.Variable(0, dtype=tf.int64, trainable=False)
                # A row for each step of an execution: the number of the step, and those of the rows that it was on.
                unused = np.full((self.steps_per_execution, 1 + batch_size), -1)
                self._notes = tf.Variable(unused, dtype=tf.int64, trainable=False)
        self._function = model._make_function(self._step)

    def __call__(self, iterator: Any) -> dict:
        """One execution, as Keras's function."""
        logs, self._noted = self._function(iterator)
        return logs

    def noted(self, steps: int) -> list[np.ndarray]:
        """The numbers of the rows of the last steps, at most those of an execution: an int64 array for each."""
        notes = np.asarray(self._noted)
        if self._notes is None:
            return [notes][:steps]
        return [note[1:][note[1:] >= 0] for note in notes[np.argsort(notes[:, 0])][len(notes) - steps :]]

    def _step(self, data: Any) -> tuple:
        ((batch, numbers),) = data
        return self._model.train_step(batch), numbers if self._notes is None else self._note(numbers)

    def _note(self, numbers: Any) -> Any:
        """Keep the numbers until the execution ends: of its steps Keras's function returns the last one's outputs."""
        with tf.device("CPU:0"):
            step = self._taken.assign_add(1)
            short = self._notes.shape[1] - 1 - tf.shape(numbers)[0]
            note = tf.concat([[step], tf.pad(numbers, [[0, short]], constant_values=-1)], axis=0)
            self._notes.scatter_nd_update([[step % self.steps_per_execution]], [note])
            return self._notes.read_value()


def can_note(model: keras.Model) -> bool:
    """Whether Keras's function for the model can have a `NotingFunction` in its place: it is Keras's, and not XLA's."""
    made_here = keras.Model._make_function.__code__.co_consts
    before = model.train_function
    return not model.jit_compile and (before is None or getattr(before, "__code__", None) in made_here)
