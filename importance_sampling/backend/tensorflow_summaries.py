"""TensorFlow implementation of the backend protocol: event files for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf


class SummaryWriter:
    """Write an event file for TensorBoard into a folder.

    Args:
        folder: path of the folder; it is created if it doesn't exist.

    Raises:
        ImportError: TensorBoard isn't installed.
    """

    def __init__(self, folder: str | Path):
        if not hasattr(tf.summary, "histogram"):
            raise ImportError("Writing for TensorBoard needs TensorBoard: pip install tensorboard")
        self._writer = tf.summary.create_file_writer(str(folder))

    def scalar(self, name: str, value: float, step: int, description: str) -> None:
        """Write a number at a step; `description` is Markdown."""
        with self._writer.as_default():
            tf.summary.scalar(name, value, step=step, description=description)

    def histogram(self, name: str, values: Any, step: int, description: str) -> None:
        """Write the histogram of an array at a step; `description` is Markdown."""
        with self._writer.as_default():
            tf.summary.histogram(name, values, step=step, description=description)

    def flush(self) -> None:
        """Write all pending values to the file."""
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
