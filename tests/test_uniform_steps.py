"""Plain steps whose rows are told: they are the rows trained on, and the steps are those of Keras's own function."""

import types

import keras
import numpy as np
import pytest
from frameworks import BACKEND, needs, several, tf

from importance_sampling import ImportanceTraining, backend
from importance_sampling.conditions import Condition
from importance_sampling.data.batches import PeekableBatches
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.strategies.uniform import UniformSteps

ROWS, BATCH = 29, 4  # 8 batches a pass, the last of one row; three executions of 3 steps, the last of two
X = np.arange(ROWS, dtype="float32")[:, None] / ROWS
Y = X[:, 0] > 0.5

SEVERAL = pytest.param(3, marks=needs("several steps per execution"))


def with_state(logs, arguments):
    """Return what a training step returns for the arguments it was given: on JAX the state of the model too."""
    return (logs, arguments[0]) if len(arguments) == 2 else logs


class Watched(keras.Sequential):
    """Keeps the rows of every batch that its own step trains on."""

    failing_at = 0

    def note(self, x):
        self.trained_on.append(np.round(x[:, 0] * ROWS).astype(int).tolist())

    def train_step(self, *arguments):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(arguments[-1])  # on JAX the state of the model comes first
        self.note(keras.ops.convert_to_numpy(x))
        if len(self.trained_on) == self.failing_at:
            raise ZeroDivisionError("on purpose")
        return super().train_step(*arguments)


def build(steps=1):
    model = Watched([keras.Input((1,)), keras.layers.Dense(1, "sigmoid")])
    model.trained_on = []
    model.compile("sgd", "binary_crossentropy", run_eagerly=True, steps_per_execution=steps)
    return model


def fit(model, told, **options):
    trainer = ImportanceTraining(model, tau_th=float("inf"))
    listen = {"on_sample": lambda sampler, rows, *_: told.append(rows.tolist())}
    trainer.fit(X, Y, **{"batch_size": BATCH, "verbose": 0, **listen, **options})


@pytest.mark.parametrize("steps", [1, SEVERAL])
@pytest.mark.parametrize("by_own", [False, True])
def test_listeners_receive_the_rows_of_uniform_steps_in_the_order_of_training(steps, by_own):
    model, told = build(steps), []
    calls = []
    if by_own:  # a training function of the user's own is what is called
        model.make_train_function()
        keras_function = model.train_function
        model.train_function = lambda *arguments: calls.append(1) or keras_function(*arguments)
    fit(model, told, epochs=2)
    assert told == model.trained_on and [len(rows) for rows in told] == 2 * ([4] * 7 + [1])
    assert len(calls) == (2 * -(-8 // steps) if by_own else 0)


@pytest.mark.parametrize("shuffle", [True, False, "batch"])
@pytest.mark.parametrize("batch", [BATCH, ROWS, 2 * ROWS])
def test_listeners_receive_the_rows_for_every_order_that_keras_can_shuffle_in(shuffle, batch):
    model, told = build(), []
    fit(model, told, epochs=2, shuffle=shuffle, batch_size=batch)
    assert told == model.trained_on
    in_order = [list(range(start, min(start + batch, ROWS))) for start in range(0, ROWS, batch)]
    per_pass = len(in_order)
    for rows in (told[:per_pass], told[per_pass:]):
        assert (rows == in_order) == (shuffle is False)
        assert ([sorted(rows_of_one) for rows_of_one in rows] == in_order) == (shuffle is not True or per_pass == 1)


def test_listeners_receive_the_rows_if_every_pass_has_another_order():
    if BACKEND == "tensorflow":
        tf.random.set_seed(None)  # with a seed Keras's passes are all alike
    model, told = build(), []
    fit(model, told, epochs=3)
    assert told == model.trained_on
    if tuple(map(int, keras.__version__.split(".")[:2])) < (3, 16):  # which gives every pass the same order
        assert told[:8] != told[8:16] != told[16:]


def test_listeners_receive_the_rows_if_an_epoch_is_a_part_of_a_pass():
    model, told = build(), []
    with pytest.warns(UserWarning, match="Your input ran out of data"):
        fit(model, told, epochs=4, steps_per_epoch=5)
    assert told == model.trained_on and len(told) >= 16


@needs("tf.distribute")
@pytest.mark.parametrize(
    ("strategy", "device"),
    [(tf.distribute.OneDeviceStrategy, "/cpu:0"), (tf.distribute.MirroredStrategy, ["/cpu:0"])],
)
def test_listeners_receive_the_rows_of_a_model_made_in_the_scope_of_a_strategy(strategy, device):
    class Noting(Watched):
        def train_step(self, data):
            x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
            tf.numpy_function(self.note, [x], [])
            return keras.Sequential.train_step(self, data)

    with strategy(device).scope():
        model = Noting([keras.layers.Dense(1, "sigmoid")])  # built by the first batch that Keras is handed
        model.trained_on, told = [], []
        model.compile("sgd", "binary_crossentropy")
    fit(model, told, epochs=5)
    assert told == model.trained_on and len(told) == 40


@pytest.mark.parametrize("listening", [False, True])
def test_a_train_step_of_the_model_receives_x_alone_as_from_keras(listening):
    kinds = []

    class Bare(keras.Sequential):
        def train_step(self, *arguments):
            kinds.append(hasattr(arguments[-1], "shape"))
            return with_state({"loss": keras.ops.zeros(())}, arguments)

    model = Bare([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", run_eagerly=True)
    ImportanceTraining(model, tau_th=float("inf")).fit(
        X, batch_size=BATCH, verbose=0, on_sample=(lambda *_: None) if listening else None
    )
    assert kinds == [True] * 8


@needs("draws without a seed")
def test_layers_that_draw_without_a_seed_draw_the_same_with_and_without_listeners():
    class Noise(keras.layers.Layer):
        def call(self, x, training=False):
            return x + keras.random.normal(keras.ops.shape(x)) if training else x

    weights = []
    for listening in (False, True):
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((1,)), Noise(), keras.layers.Dense(1, "sigmoid")])
        model.compile("sgd", "binary_crossentropy")
        if listening:
            fit(model, [])
        else:
            model.fit(X, Y, batch_size=BATCH, verbose=0)
        weights.append(model.get_weights()[0])
    np.testing.assert_array_equal(*weights)


@pytest.mark.parametrize("steps", [1, SEVERAL])
def test_after_a_step_that_failed_listeners_receive_the_rows_of_the_next_fit(steps):
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


@pytest.mark.parametrize("steps", [1, SEVERAL])
def test_a_fit_without_listeners_between_two_with_listeners_trains_as_well(steps):
    model, told = build(steps), []
    trainer = ImportanceTraining(model, tau_th=float("inf"))
    for listening in (True, False, True):
        more = dict(on_sample=lambda sampler, rows, *_: told.append(rows.tolist())) if listening else {}
        trainer.fit(X, Y, batch_size=BATCH, verbose=0, **more)
    assert told == model.trained_on[:8] + model.trained_on[16:] and len(model.trained_on) == 24


def test_listeners_do_not_receive_the_rows_that_a_callback_trains_the_model_on():
    model, told = build(), []
    more = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: model.train_on_batch(X[:2], Y[:2]))
    fit(model, told, callbacks=[more])
    assert model.trained_on == [*told, [0, 1]] and len(told) == 8


@needs("several steps per execution")
def test_listeners_receive_all_steps_if_the_steps_per_execution_are_raised():
    model, told = build(), []
    trainer = ImportanceTraining(model, tau_th=float("inf"))
    for steps in (1, 3):
        model.steps_per_execution = steps
        model.train_function = None  # as Keras wants it where they change without `compile`
        trainer.fit(X, Y, batch_size=BATCH, verbose=0, on_sample=lambda sampler, rows, *_: told.append(rows.tolist()))
    assert told == model.trained_on and len(told) == 16


def test_a_train_step_that_was_replaced_after_a_fit_is_used():
    model, told = build(), []
    trainer = ImportanceTraining(model, tau_th=float("inf"))
    listen = {"on_sample": lambda sampler, rows, *_: told.append(rows.tolist())}
    trainer.fit(X, Y, batch_size=BATCH, verbose=0, **listen)
    before, calls = model.train_step, []
    model.train_step = lambda *arguments: calls.append(1) or before(*arguments)
    model.make_train_function(force=True)
    trainer.fit(X, Y, batch_size=BATCH, verbose=0, **listen)
    assert len(calls) == 8 and told == model.trained_on


def test_with_a_gate_that_opens_and_closes_listeners_receive_the_rows_that_keras_draws_for_uniform_steps():
    class Turning(Condition):
        def _decide(self, signals):
            return not self.satisfied

        def explain(self, signals):
            return "turning"

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, "sigmoid")])
    model.compile(
        keras.optimizers.SGD(0.0),
        "binary_crossentropy",
        metrics=["mse"],
        steps_per_execution=several(3),
    )
    trainer = ImportanceTraining(model)
    trainer.condition = Turning()
    told = []
    listen = {"on_sample": lambda sampler, rows, weights, scores: told.append((rows.tolist(), np.isnan(scores).all()))}
    trainer.fit(X, Y, batch_size=BATCH, epochs=8, verbose=0, shuffle=False, **listen)
    assert len(told) == 64 and 0 < sum(is_plain for _, is_plain in told) < 64
    # Keras goes through the rows in their order. Importance steps leave it the first batches of every pass, except on a
    # backend that draws a batch for every step: there they replace the batch.
    batches = [list(range(start, min(start + BATCH, ROWS))) for start in range(0, ROWS, BATCH)]
    for first in range(0, 64, 8):
        places = [place for place in range(8) if told[first + place][1]]
        closed = [told[first + place][0] for place in places]
        assert closed == [batches[n] for n in (places if backend.DRAWS_BEFORE_STEP else range(len(places)))]


def frozen_between(first, second):
    """The weights after two fits, a layer frozen between them without `compile`, which changes nothing in Keras."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy")
    trainer = ImportanceTraining(model, tau_th=float("inf"))
    for fit in (first, second):
        more = dict(on_sample=lambda *_: None) if fit == "listened to" else {}
        (model if fit == "plain" else trainer).fit(X, Y, batch_size=BATCH, verbose=0, **more)
        model.layers[0].trainable = False
    return model.get_weights()


@needs("freezing without compiling")
@pytest.mark.parametrize("fits", [("unheard", "listened to"), ("listened to", "unheard"), ("plain", "listened to")])
def test_a_layer_frozen_after_the_step_was_traced_is_trained_as_by_keras(fits):
    for ours, theirs in zip(frozen_between(*fits), frozen_between("plain", "plain"), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@needs("functions of other steps")
def test_a_train_function_that_was_made_of_another_step_is_used():
    model, told, calls = build(), [], []
    model.train_function = model._make_function(lambda *data: calls.append(1) or model.train_step(*data))
    fit(model, told)
    assert len(calls) == 8 and told == model.trained_on


def test_listening_and_other_batch_sizes_trace_the_step_no_more_often_than_keras_does():
    class Traced(keras.Sequential):
        traces = 0

        def train_step(self, *arguments):
            self.traces += 1
            return super().train_step(*arguments)

    def traces(make, **more):
        model = Traced([keras.Input((1,)), keras.layers.Dense(1, "sigmoid")])
        model.compile("sgd", "binary_crossentropy")
        trainer = make(model)
        for size in (4, 5, 6, 4):
            trainer.fit(X, Y, batch_size=size, verbose=0, **more)
        return model.traces

    ours = traces(lambda model: ImportanceTraining(model, tau_th=float("inf")), on_sample=lambda *_: None)
    assert ours == traces(lambda model: model)


@needs("TensorFlow")
def test_batches_that_were_scored_first_reach_keras_in_order_by_an_iterator_of_the_type_it_was_traced_for():
    dataset, received = tf.data.Dataset.range(7).batch(2), []

    def keras_function(iterator):
        received.append((next(iterator).numpy().tolist(), iterator.element_spec, iterator))

    plan = FitPlan({}, batches_per_pass=4)
    strategy = UniformSteps(types.SimpleNamespace(steps_per_execution=1), keras_function, plan, with_rows=False)
    for _ in range(2):
        batches = PeekableBatches(iter(dataset))
        strategy.begin_pass()
        for peeked in (0, 1, 2, 1):
            batches.peek(peeked)
            assert strategy.step(1, batches).steps == 1
    assert [rows for rows, *_ in received] == [[0, 1], [2, 3], [4, 5], [6]] * 2
    assert all(spec == dataset.element_spec for _, spec, _ in received)
    assert len({id(iterator) for *_, iterator in received}) == 3  # one in each pass, and one for what was scored
