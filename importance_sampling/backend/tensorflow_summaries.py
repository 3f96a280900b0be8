"""TensorFlow's side of the rim, summaries: event files that TensorBoard reads. It decides nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf


class SummaryWriter:
    """Writes an event file into a folder.

    Args:
        folder: made if it isn't there.

    Raises:
        ImportError: TensorBoard isn't installed.
    """

    def __init__(self, folder: str | Path):
        if not hasattr(tf.summary, "histogram"):
            raise ImportError("Writing for TensorBoard needs TensorBoard: pip install tensorboard")
        self._writer = tf.summary.create_file_writer(str(folder))

    def scalar(self, name: str, value: float, step: int, description: str) -> None:
        """Write a number; `description` is Markdown."""
        with self._writer.as_default():
            tf.summary.scalar(name, value, step=step, description=description)

    def histogram(self, name: str, values: Any, step: int, description: str) -> None:
        """Write the histogram of an array."""
        with self._writer.as_default():
            tf.summary.histogram(name, values, step=step, description=description)

    def flush(self) -> None:
        """Have it all in the file."""
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
