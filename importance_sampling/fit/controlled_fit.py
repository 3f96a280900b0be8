"""Run Keras's `fit` with a controller, and add the callbacks of the trainer to those of the user."""

from __future__ import annotations

import functools

import keras

from importance_sampling.fit import user_fit
from importance_sampling.fit.checkpoint import enclose_callback
from importance_sampling.fit.controller import FitController
from importance_sampling.fit.epoch_end import ContinueTraining
from importance_sampling.fit.history_figures import LogCallback, arranged, is_progress_bar


def fit_with_controller(controller: FitController, arguments: dict) -> keras.callbacks.History:
    """Train, with a controller in the place of the model's training function.

    Args:
        controller: the controller.
        arguments: all arguments that the user passed to `fit`, by name.
    """
    plan, deferred, users = controller.plan, controller.deferred, arguments["callbacks"]
    log_callback = LogCallback(controller, adds_figures=controller.condition.probes)
    enclose = functools.partial(
        enclose_callback, state=controller.state, on_restore=controller.continue_from_state, warn=deferred.add
    )
    shows_progress = arguments["verbose"] != 0 and not isinstance(users, keras.callbacks.CallbackList)
    in_order = arranged(user_fit.as_list(users), log_callback, enclose, shows_progress)
    if plan.full_epoch_steps:  # the trainer may end epochs early
        log_callback.progress_bars = [callback for callback in in_order if is_progress_bar(callback)]
        in_order.insert(0, ContinueTraining(controller.model))
    if plan.has_validation_data:
        in_order.insert(0, ValidationLoss(controller))
    with (
        user_fit.trained_by(controller.model, controller),
        user_fit.connected(controller.listeners.callbacks, plan.source, controller.reason, log_callback, deferred.add),
        user_fit.with_callbacks(users, in_order) as callbacks,
    ):
        for number, callback in enumerate(one for one in controller.listeners.callbacks if one.is_saved):
            controller.state.register(f"{type(callback).__name__} {number}", callback)
        history = user_fit.run(controller.model, {**plan.arguments, "callbacks": callbacks})
    controller.check_was_called()
    deferred.release()
    return history


class ValidationLoss(keras.callbacks.Callback):
    """Records the validation loss for the gate, before other callbacks save the trainer's state.

    Args:
        controller: the controller of the `fit`.
    """

    async_safe = True

    def __init__(self, controller: FitController):
        super().__init__()
        self.controller = controller

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Record the validation loss, if it was measured in this epoch."""
        self.controller.gating.record_validation_loss(self.controller.strategy, logs or {})
