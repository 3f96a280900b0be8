"""The function that stands in for Keras's: steps are counted as Keras counts them, whatever the gate does."""

import functools
import subprocess
import sys

import keras
import numpy as np
import pytest
from frameworks import needs
from keras import layers
from saved_states import counters_of

from importance_sampling import ImportanceTraining
from importance_sampling.conditions import Condition
from importance_sampling.fit.gating import steps_between_probes

ROWS = 203


def data():
    x = np.random.default_rng(0).normal(size=(ROWS, 6)).astype("float32")
    return x, x[:, :3].argmax(1)


def build(**options):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(12, "relu"), layers.Dropout(0.2), layers.Dense(3, "softmax")]
    )
    model.compile(**{"optimizer": "adam", "loss": "sparse_categorical_crossentropy", **options})
    return model


class Turning(Condition):
    """Turns at every look."""

    def _decide(self, signals):
        return not self.satisfied

    def explain(self, signals):
        return "turning"


def counted(trainer, model, **more):
    """The optimizer's updates, the batches that ended, the shares of importance steps."""
    ends = []
    callback = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: ends.append(batch))
    history = trainer.fit(*data(), batch_size=8, epochs=9, verbose=0, callbacks=[callback], **more)
    return int(model.optimizer.iterations), ends, history.history.get("importance")


@functools.cache
def counted_plain(steps):
    model = build(steps_per_execution=steps)
    return counted(model, model)[:2]


# 26 batches a pass: executions of 3 steps leave a rest of two, those of 5 a rest of one.
@pytest.mark.parametrize(
    ("steps", "listening"),
    [
        (1, False),
        (1, True),
        pytest.param(3, True, marks=needs("several steps per execution")),
        pytest.param(5, False, marks=needs("several steps per execution")),
    ],
)
def test_a_gate_that_opens_and_closes_within_epochs_changes_neither_steps_nor_batches(steps, listening):
    told = []
    model = build(steps_per_execution=steps)
    trainer = ImportanceTraining(model)
    trainer.condition = Turning()
    more = dict(on_sample=lambda *args: told.append(args[1:])) if listening else {}
    updates, ends, shares = counted(trainer, model, **more)
    assert updates == 9 * 26 and (updates, ends) == counted_plain(steps)
    assert any(0 < share < 1 for share in shares)
    if listening:
        assert len(told) == 9 * 26
        plain = [np.isnan(scores).all() for _, _, scores in told]
        assert 0 < sum(plain) < len(plain)


@pytest.mark.fast
def test_listeners_receive_the_rows_of_a_uniform_step_after_the_step():
    model = build()
    seen = []
    ImportanceTraining(model, tau_th=1e9).fit(
        *data(), batch_size=16, verbose=0, on_sample=lambda *_: seen.append(int(model.optimizer.iterations))
    )
    assert seen == list(range(1, 14))


def test_after_the_gate_has_closed_again_the_epoch_ends_with_rows_that_keras_drew_each_at_most_once():
    class Once(Turning):
        looks = 0

        def _decide(self, signals):
            self.looks += 1
            return self.looks == 1

    told = []
    trainer = ImportanceTraining(build())
    trainer.condition = Once()
    trainer.fit(*data(), batch_size=8, epochs=2, verbose=0, on_sample=lambda *args: told.append(args[1:]))
    closed = [(number, rows) for number, (rows, _, scores) in enumerate(told) if np.isnan(scores).all()]
    assert len(closed) == 52 - 16  # a look, the step under way, and 16 open ones
    for first in (0, 26):  # Keras's rows of a pass, each at most once
        rows = np.concatenate([rows for number, rows in closed if first <= number < first + 26])
        assert len(set(rows)) == len(rows)


MEMORY = """
import keras, numpy as np
from importance_sampling import ImportanceTraining

x = np.random.default_rng(0).normal(size=(480, 2000)).astype("float32")  # 4 MB; a pool is 0.4 MB
model = keras.Sequential([keras.Input((2000,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")])
model.compile("adam", "sparse_categorical_crossentropy")
sizes = []
def size(epoch, logs):
    sizes.append(int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20)
callback = keras.callbacks.LambdaCallback(on_epoch_end=size)
trainer = ImportanceTraining(model, tau_th=0)
trainer.fit(x, x[:, :3].argmax(1), batch_size=16, epochs=20, verbose=0, callbacks=[callback])
for _ in range(24):
    trainer.fit(x, x[:, :3].argmax(1), batch_size=16, verbose=0, callbacks=[callback])
print(sizes[19] - sizes[9], min(sizes[-6:]) - min(sizes[-24:-18]))  # what comes and goes is no leak
"""

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")


@needs("compiled steps")
@on_linux
def test_memory_does_not_grow_over_epochs_and_fits():
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    over_epochs, over_fits = map(float, run.stdout.split()[-2:])
    # 300 pools would be 115 MB, 18 copies of the data 69; a plain `fit` leaves a megabyte or two behind by itself.
    assert over_epochs < 10 and over_fits < 45, run.stdout


@pytest.mark.fast
def test_the_steps_between_probes_double_while_the_gate_stays_closed():
    assert [steps_between_probes(closed) for closed in (0, 1, 2, 3, 4, 6, 7, 8, 10, 99)] == [
        *(17, 17, 34, 34, 68, 136, 136, 272, 544, 544)
    ]


@pytest.mark.fast
def test_a_closed_gate_is_probed_at_doubling_intervals_and_at_the_end_of_the_first_epoch():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1600, 3)).astype("float32"), rng.normal(size=1600).astype("float32")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    trainer, at = ImportanceTraining(model, score=lambda model, x, y: keras.ops.ones(x.shape[0])), []
    observe = trainer.condition.observe

    def watch(signals, context):
        at.append(counters_of(trainer)["steps"])
        return observe(signals, context)

    trainer.condition.observe = watch
    trainer.fit(x, y, batch_size=8, epochs=2, verbose=0)
    assert trainer.importance_steps == 0
    # Of 400 steps the first two are looked at (the first is traced without), then every 17th, then ever
    # fewer; a pass ends after 200.
    gaps = np.diff(at)
    assert 200 in at and at[0] <= 1
    ordinary = [gap for gap, step in zip(gaps, at[1:], strict=True) if step != 200]
    assert ordinary == sorted(ordinary) and set(ordinary) <= {17, 34, 68, 136} and {17, 34, 68} <= set(ordinary)
