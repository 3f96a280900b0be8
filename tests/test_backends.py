"""What can fail on one backend: values kept in compiled steps, and callbacks that use the model in an epoch."""

import ast
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from frameworks import BACKEND, host, is_traced, needs
from keras import layers
from test_exact_norms import check, with_data

import importance_sampling
from importance_sampling import ImportanceTraining, backend
from importance_sampling.backend.scopes import NestedScope
from importance_sampling.conditions import GainCondition
from importance_sampling.core import eligibility
from importance_sampling.fit.state import TrainerState
from importance_sampling.fit.state_file import save_state
from importance_sampling.fit.uniform_fit import UniformFit
from importance_sampling.training import ReshuffleTraining

RNG = np.random.default_rng(3)
X = RNG.normal(size=(48, 4)).astype("float32")
Y = X[:, :3].argmax(1)
WAYS = {
    "uniform": lambda model: ImportanceTraining(model, tau_th=1e9, seed=1),
    "pools": lambda model: ImportanceTraining(model, tau_th=0, presample=2, seed=1),
    "reshuffle": lambda model: ReshuffleTraining(model, seed=1),
}
every_way = pytest.mark.parametrize("way", WAYS)


def build():
    """A model without random numbers: on torch whatever draws some changes all that are drawn later."""
    keras.utils.set_random_seed(2)
    stack = [layers.Dense(5, "relu"), layers.BatchNormalization(), layers.Dense(3, "softmax")]
    model = keras.Sequential([keras.Input((4,)), *stack])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    return model


def fit(trainer, **options):
    keras.utils.set_random_seed(5)
    return trainer.fit(X, Y, batch_size=8, shuffle=False, verbose=0, **options).history


def variables_of(model):
    return [*model.variables, *model.optimizer.variables]


@pytest.mark.parametrize("way", ["uniform", "pools"])  # a reshuffle keeps the scores of its samples
def test_a_compiled_step_uses_the_values_that_variables_have_when_it_is_called(way, tmp_path):
    used, other = build(), build()
    trainer = WAYS[way](used)
    fit(trainer)  # compiles the steps
    fresh = TrainerState(1, kind=type(trainer).__name__)
    save_state(fresh, tmp_path / "state.npz")
    trainer.load_state(tmp_path / "state.npz")
    for one, two in zip(variables_of(used), variables_of(other), strict=True):
        value = host(two)
        changed = value + np.abs(RNG.normal(size=value.shape)).astype(value.dtype) if value.dtype.kind == "f" else value
        one.assign(changed)
        two.assign(changed)
    history, expected = fit(trainer), fit(WAYS[way](other))
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-6)
    for one, two in zip(variables_of(used), variables_of(other), strict=True):
        np.testing.assert_allclose(host(one), host(two), rtol=1e-5, atol=1e-7, err_msg=one.path)


def test_exact_norms_are_those_of_batches_of_one():
    tokens = keras.Input((4,), dtype="int32")
    hidden = layers.GRU(3, return_sequences=True)(layers.Embedding(5, 2)(tokens))
    hidden = layers.LayerNormalization()(layers.Conv1D(4, 2)(hidden))
    hidden = layers.PReLU()(layers.MultiHeadAttention(2, 2)(hidden, hidden))  # without a formula
    check(*with_data(layers.Dense(2)(layers.Flatten()(hidden)), tokens))


ACTIONS = {
    "evaluates": lambda model, folder: model.evaluate(X, Y, batch_size=16, verbose=0),
    "predicts": lambda model, folder: model.predict(X, batch_size=16, verbose=0),
    "saves": lambda model, folder: model.save(folder / "model.keras"),
    "reads weights": lambda model, folder: model.get_weights(),
}


@every_way
@pytest.mark.parametrize("action", ACTIONS)
def test_a_callback_that_uses_the_model_in_the_middle_of_an_epoch_changes_no_weight(way, action, tmp_path):
    weights = []
    for is_used in (False, True):
        model, used = build(), []

        class Using(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                used.append(ACTIONS[action](self.model, tmp_path))  # noqa: B023

        fit(WAYS[way](model), epochs=2, callbacks=[Using()] if is_used else [])
        assert len(used) == 12 * is_used
        weights.append([host(variable) for variable in variables_of(model)])
    for variable, one, other in zip(variables_of(model), *weights, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=variable.path)


@pytest.mark.parametrize("steps", [1, pytest.param(4, marks=needs("several steps per execution"))])
def test_switched_off_training_with_validation_equals_fit_bit_for_bit(steps):
    histories, variables = [], []
    for switch in (lambda model: model, lambda model: ImportanceTraining(model, tau_th=float("inf"))):
        model = build()
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], steps_per_execution=steps)
        histories.append(fit(switch(model), epochs=3, validation_split=0.25))
        variables.append([host(variable) for variable in variables_of(model)])
    assert histories[0] == histories[1]
    for one, two in zip(*variables, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.fast
def test_hooks_that_keras_may_call_in_another_thread_do_not_ask_for_the_model():
    counter = UniformFit(build(), GainCondition(), TrainerState(1))
    assert counter.async_safe
    counter.set_model(None)  # on JAX, `Callback.model` writes the state of the running step to the variables
    counter.on_train_batch_begin(0)
    counter.on_train_batch_end(0)
    assert counter.state.counters.steps == 1


class OwnStep(keras.Sequential):
    def train_step(self, *arguments):
        *state, data = arguments
        return super().train_step(*state, data)


def test_an_importance_step_by_a_train_step_of_the_model_equals_the_step_of_the_library():
    models = []
    for kind in (OwnStep, keras.Sequential):
        keras.utils.set_random_seed(2)
        models.append(kind([keras.Input((4,)), layers.Dense(3, "softmax")]))
        models[-1].compile("sgd", "sparse_categorical_crossentropy")
        trainer = ImportanceTraining(models[-1], tau_th=0, sampler="reshuffle", seed=1)
        fit(trainer)
        assert trainer.importance_steps == 6
    for one, other in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)


@pytest.mark.fast
def test_no_module_outside_the_backend_compares_the_name_of_the_backend():
    package = Path(importance_sampling.__file__).parent
    found = []
    for file in sorted(package.rglob("*.py")):
        if "backend" in file.relative_to(package).parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            is_call = isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".backend", "backend.backend"))
            is_name = isinstance(node, ast.Compare) and {"tensorflow", "jax", "torch"} & {
                part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)
            }
            if is_call or is_name:
                found.append(f"{file.name}:{node.lineno}")
    assert found == []


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_shapes_are_known_without_results_and_updates_reach_the_scope_around(run_eagerly):
    model = keras.Sequential([keras.Input((4,)), layers.BatchNormalization(), layers.Dense(3, dtype="float16")])
    model.compile("sgd", "mse", run_eagerly=run_eagerly)
    inputs, before = keras.ops.convert_to_tensor(X), model.get_weights()
    with NestedScope() as scope:
        output = backend.shapes_of(lambda: model(inputs, training=True), model)
    assert tuple(output.shape) == (48, 3) and keras.backend.standardize_dtype(output.dtype) == "float16"
    updated = {variable.path.split("/")[-1] for variable, _ in scope.updates}
    assert updated == {"moving_mean", "moving_variance"}
    for array, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(array, other)


@needs("jax state")
def test_on_jax_a_model_is_checked_without_compiling_its_operations_one_by_one():
    class Noting(layers.Layer):
        seen = []

        def call(self, inputs):
            self.seen.append(is_traced(inputs))
            return inputs

    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax"), Noting()])
    model.compile("sgd", "sparse_categorical_crossentropy")
    batch = (keras.ops.convert_to_tensor(X), keras.ops.convert_to_tensor(Y), None)
    Noting.seen.clear()
    eligibility.check_loss(model, batch)
    assert eligibility.accepts(model, batch, 7)
    assert Noting.seen == [True, True]
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)  # a layer may then look at values
    eligibility.check_loss(model, batch)
    assert Noting.seen == [True, True, False]


def test_an_iterator_whose_deletion_waits_does_not_keep_training_waiting_where_that_happens():
    begun, may_end, deleted = threading.Event(), threading.Event(), threading.Event()

    class Waits:
        def __del__(self):
            begun.set()
            may_end.wait(10)
            deleted.set()

    if BACKEND != "tensorflow":
        may_end.set()
    box = [Waits()]
    thread = backend.clear_later(box)
    assert begun.wait(10)
    assert deleted.is_set() == (BACKEND != "tensorflow") == (thread is None)
    may_end.set()
    if thread is not None:
        thread.join(10)
    assert deleted.is_set() and box == []


def test_after_a_fit_of_several_passes_no_thread_deletes_an_iterator():
    x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    ImportanceTraining(model).fit(x, x[:, :1], batch_size=16, epochs=4, verbose=0)
    assert [one.name for one in threading.enumerate() if "importance_sampling" in one.name] == []
