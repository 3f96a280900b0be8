"""Plain steps whose rows are told: noted by the compiled function or read by row, they are the rows trained on."""

import keras
import numpy as np
import pytest

from importance_sampling import ImportanceTraining, backend
from importance_sampling.conditions import Condition

ROWS, BATCH = 29, 4  # 8 batches a pass, the last of one row; three executions of 3 steps, the last of two
X = np.arange(ROWS, dtype="float32")[:, None] / ROWS
Y = X[:, 0] > 0.5


class Watched(keras.Sequential):
    """Keeps the rows of every batch that its own step trains on."""

    failing_at = 0

    def train_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        self.trained_on.append(np.round(np.asarray(x)[:, 0] * ROWS).astype(int).tolist())
        if len(self.trained_on) == self.failing_at:
            raise ZeroDivisionError("on purpose")
        return super().train_step(data)


def build(steps=1):
    model = Watched([keras.Input((1,)), keras.layers.Dense(1, "sigmoid")])
    model.trained_on = []
    model.compile("sgd", "binary_crossentropy", run_eagerly=True, steps_per_execution=steps)
    return model


def fit(model, told, **options):
    trainer = ImportanceTraining(model, tau_th=float("inf"))
    listen = {"on_sample": lambda sampler, rows, *_: told.append(rows.tolist())}
    trainer.fit(X, Y, batch_size=BATCH, verbose=0, **listen, **options)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("by_hand", [False, True])
def test_the_rows_that_are_told_are_those_trained_on_in_their_order(steps, by_hand):
    model, told = build(steps), []
    calls = []
    if by_hand:  # what stands in the place of Keras's function is the user's, and is what is called
        model.make_train_function()
        keras_function = model.train_function
        model.train_function = lambda batches: calls.append(1) or keras_function(batches)
    assert backend.can_note(model) != by_hand
    fit(model, told, epochs=2)
    assert told == model.trained_on and [len(rows) for rows in told] == 2 * ([4] * 7 + [1])
    assert len(calls) == (2 * -(-8 // steps) if by_hand else 0)


@pytest.mark.parametrize("steps", [1, 3])
def test_after_a_step_that_failed_the_next_fit_tells_its_own_rows(steps):
    model, told = build(steps), []
    model.failing_at = 5  # with executions of three, one step of the second was taken and isn't told
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        fit(model, told)
    assert told == model.trained_on[: 4 if steps == 1 else 3]
    told.clear()
    model.trained_on.clear()
    model.failing_at = 0
    fit(model, told)
    assert told == model.trained_on and len(told) == 8


@pytest.mark.parametrize("steps", [1, 3])
def test_a_fit_that_nobody_listens_to_takes_up_keras_function_again(steps):
    model, told = build(steps), []
    trainer = ImportanceTraining(model, tau_th=float("inf"))
    for listening in (True, False, True):
        more = dict(on_sample=lambda sampler, rows, *_: told.append(rows.tolist())) if listening else {}
        trainer.fit(X, Y, batch_size=BATCH, verbose=0, **more)
    assert told == model.trained_on[:8] + model.trained_on[16:] and len(model.trained_on) == 24


def test_a_callback_that_trains_the_model_by_itself_hands_over_batches_without_numbers():
    model, told = build(), []
    more = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: model.train_on_batch(X[:2], Y[:2]))
    fit(model, told, callbacks=[more])
    assert model.trained_on == [*told, [0, 1]] and len(told) == 8


def test_a_longer_execution_is_noted_whole():
    model, told = build(), []
    trainer = ImportanceTraining(model, tau_th=float("inf"))
    for steps in (1, 3):
        model.steps_per_execution = steps
        model.train_function = None  # as Keras wants it where they change without `compile`
        trainer.fit(X, Y, batch_size=BATCH, verbose=0, on_sample=lambda sampler, rows, *_: told.append(rows.tolist()))
    assert told == model.trained_on and len(told) == 16


def test_a_step_of_the_model_that_was_put_in_place_later_is_taken():
    model, told = build(), []
    trainer = ImportanceTraining(model, tau_th=float("inf"))
    listen = {"on_sample": lambda sampler, rows, *_: told.append(rows.tolist())}
    trainer.fit(X, Y, batch_size=BATCH, verbose=0, **listen)
    before, calls = model.train_step, []
    model.train_step = lambda data: calls.append(1) or before(data)
    model.make_train_function(force=True)
    trainer.fit(X, Y, batch_size=BATCH, verbose=0, **listen)
    assert len(calls) == 8 and told == model.trained_on


def test_with_a_gate_that_turns_plain_steps_are_told_as_keras_draws_them():
    class Turning(Condition):
        def _decide(self, signals):
            return not self.satisfied

        def explain(self, signals):
            return "turning"

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.SGD(0.0), "binary_crossentropy", metrics=["mse"], steps_per_execution=3)
    trainer = ImportanceTraining(model)
    trainer.condition = Turning()
    told = []
    listen = {"on_sample": lambda sampler, rows, weights, scores: told.append((rows.tolist(), np.isnan(scores).all()))}
    trainer.fit(X, Y, batch_size=BATCH, epochs=8, verbose=0, shuffle=False, **listen)
    assert len(told) == 64 and 0 < sum(is_plain for _, is_plain in told) < 64
    # Keras goes through the rows in their order; of every pass open steps leave it the first so many batches.
    batches = [list(range(start, min(start + BATCH, ROWS))) for start in range(0, ROWS, BATCH)]
    for first in range(0, 64, 8):
        closed = [rows for rows, is_plain in told[first : first + 8] if is_plain]
        assert closed == batches[: len(closed)]


def test_with_xla_rows_are_read_by_hand():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, "sigmoid")])
    model.compile("sgd", "binary_crossentropy", jit_compile=True)
    assert not backend.can_note(model)
    model.compile("sgd", "binary_crossentropy", jit_compile=False)
    assert backend.can_note(model)
