"""End an epoch of Keras's `fit` before its data end.

Keras leaves the loop over the batches of an epoch if `model.stop_training` is true, goes on with validation and the
callbacks of the epoch's end, and then ends `fit` if it is still true. It is reset in between, unless a callback of the
user has set it too. Source: `fit` in `keras.src.backend.tensorflow.trainer`, which is the same for all backends.
"""

from __future__ import annotations

import keras

END_OF_EPOCH = "end of epoch"  # true, and distinct from the True of other callbacks


def end_epoch(model: keras.Model) -> None:
    """Let Keras end the current epoch after this execution of the training function."""
    if not model.stop_training:
        model.stop_training = END_OF_EPOCH


class ContinueTraining(keras.callbacks.Callback):
    """Lets training continue after an epoch that `end_epoch` ended. It must come before the callbacks of the user.

    Args:
        model: the user's model.
    """

    async_safe = True  # Keras may then dispatch the hooks of batches as it does without this callback

    def __init__(self, model: keras.Model):
        super().__init__()
        self.set_model(model)  # Keras doesn't, in a `CallbackList` of the user

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Reset the mark before the validation at the end of the epoch."""
        self._reset()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Reset the mark at the end of the epoch."""
        self._reset()

    def _reset(self) -> None:
        if self.model.stop_training == END_OF_EPOCH:
            self.model.stop_training = False
