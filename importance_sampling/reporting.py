"""Carries the trainer's figures into Keras's logs, and its state beside the checkpoints of Keras's callbacks.

`score`, `tau` and `importance` reach History and the progress bar through the logs that Keras hands around. Callbacks
ahead of those see the logs as the model makes them: many write down, send or compare whatever they find there, and NaN
is no JSON. Source: `keras.src.callbacks`. It draws nothing and decides nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from importance_sampling.loop import TrainFunction
from importance_sampling.state import TrainerState


class Reporter(keras.callbacks.Callback):
    """A callback that adds to the logs which those after it see, and announces every execution to what runs it.

    Args:
        function: what runs the steps.
    """

    async_safe = True  # it only reads floats: Keras may dispatch its hooks as it does without it

    def __init__(self, function: TrainFunction):
        super().__init__()
        self.function = function

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Count anew."""
        self.function.epoch = epoch
        self.function.steps.cost.pause()
        self.function.epoch_steps = self.function.epoch_open_steps = 0

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """The next call is this `fit`'s; another in between is not."""
        self.function.is_due = True

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Add the figures as they stand."""
        self._add(logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Add the figures, read anew."""
        self.refresh()
        self._add(logs)

    def refresh(self) -> None:
        """Read the averages anew, off the device."""
        if self.function.condition is not None and self.function.condition.probes:
            self.function.read()

    def figures(self) -> dict[str, float]:
        """The figures as they were read last."""
        function = self.function
        return dict(
            score=function.signals.score,
            tau=function.signals.tau,
            importance=function.epoch_open_steps / max(function.epoch_steps, 1),
        )

    def _add(self, logs: dict | None) -> None:
        if logs is not None:
            logs.update(self.figures())


@contextlib.contextmanager
def reported(callbacks: Any, reporter: Reporter) -> Iterator[Any]:
    """The user's callbacks with the reporter among them; a `CallbackList` is put back as it was."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        reporter.set_params(callbacks.params)
        reporter.set_model(callbacks.model)
        callbacks.callbacks.insert(_place(callbacks.callbacks), reporter)
        try:
            yield callbacks
        finally:
            callbacks.callbacks.remove(reporter)
    else:
        found = listed(callbacks)
        place = _place(found)
        yield [*found[:place], reporter, *found[place:]]


def listed(callbacks: Any) -> list:
    """The callbacks of a `fit`, in whatever shape it was given them."""
    return getattr(callbacks, "callbacks", None) or (keras.tree.flatten(callbacks) if callbacks else [])


def _place(callbacks: list) -> int:
    """Where the reporter goes: ahead of History and progress bar, which Keras puts last unless the user did."""
    shown = (keras.callbacks.History, keras.callbacks.ProgbarLogger)
    return next((i for i, callback in enumerate(callbacks) if isinstance(callback, shown)), len(callbacks))


@contextlib.contextmanager
def checkpointed(callbacks: Any, state: TrainerState, restored: Any) -> Iterator[None]:
    """Save the trainer's state whenever one of the user's callbacks saves the model, and load it when it restores it.

    Args:
        callbacks: what `fit` was given.
        state: the trainer's.
        restored: called after the state was loaded.
    """
    with contextlib.ExitStack() as stack:
        for callback in listed(callbacks):
            if isinstance(callback, keras.callbacks.BackupAndRestore):
                path = Path(callback.backup_dir) / "importance_sampling.npz"
                _after(callback, "_save_model", lambda *_, path=path, **__: state.save(path), stack)

                def load(*_: Any, path: Path = path, **__: Any) -> None:
                    if path.exists():
                        state.load(path)
                        restored()

                _after(callback, "_load_model", load, stack)
            elif isinstance(callback, keras.callbacks.ModelCheckpoint):
                # With `save_best_only` most calls save nothing, and the state must stay the saved model's.
                wanted: list = []
                best = [getattr(callback, "best", None)]

                def want(result: bool, *_: Any, wanted: list = wanted, **__: Any) -> None:
                    wanted[:] = [result]

                def save(
                    _: Any,
                    epoch: int,
                    batch: int,
                    logs: dict,
                    callback: Any = callback,
                    wanted: list = wanted,
                    best: list = best,
                ) -> None:
                    if callback.save_best_only and not hasattr(callback, "_should_save_model"):  # Keras 3.8
                        wanted[:], best[0] = [callback.best != best[0]], callback.best
                    path = Path(callback._get_file_path(epoch, batch, logs))
                    if all(wanted) and path.exists():
                        state.save(path.with_name(path.name + ".importance_sampling.npz"))

                if hasattr(callback, "_should_save_model"):
                    _after(callback, "_should_save_model", want, stack)
                _after(callback, "_save_model", save, stack)
        yield


def _after(callback: Any, name: str, then: Any, stack: contextlib.ExitStack) -> None:
    """Have a method of one object call `then` after it, its result ahead of its arguments, until the stack unwinds."""
    method = getattr(callback, name)

    def both(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        then(result, *args, **kwargs)
        return result

    setattr(callback, name, both)
    stack.callback(delattr, callback, name)
