"""The contracts of Keras's private names, one test for each function, and the rule that they are used nowhere else."""

import ast
import importlib
import re
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.sparse
from frameworks import host, needs, tf
from keras import ops

import importance_sampling
from importance_sampling import backend
from importance_sampling.backend import keras_data, keras_internals

ROOT = Path(__file__).parents[1]
BACKEND = ROOT / "importance_sampling" / "backend"
X = np.arange(12, dtype="float32").reshape(6, 2)
Y = np.arange(6, dtype="float32")[:, None]


def linear(loss="mse", **arguments):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile("sgd", loss, **arguments)
    return model


# Import


def test_a_missing_private_module_is_an_import_error_that_names_both_versions_and_the_remedy():
    with pytest.raises(ImportError) as captured:
        keras_internals.private_module("keras.src.no_such_module")
    message = str(captured.value)
    assert "`keras.src.no_such_module`" in message
    assert f"Keras {keras.__version__}" in message
    assert f"importance_sampling {importance_sampling.__version__}" in message
    assert "Upgrade keras-importance-sampling" in message


def test_a_missing_private_attribute_is_an_import_error_that_names_it():
    with pytest.raises(ImportError, match=r"`keras\.src\.tree\.no_such_name`"):
        keras_internals.private_module("keras.src.tree", "no_such_name")
    with pytest.raises(ImportError, match=r"`Model\._no_such_method`"):
        keras_internals.require(keras.Model, "_no_such_method")


def test_a_private_module_that_is_there_is_returned():
    assert keras_internals.private_module("keras.src.tree", "map_structure").map_structure is not None


# Models


def test_the_trainer_class_is_what_every_model_inherits_fit_from_and_plain_layers_do_not():
    trainer = keras_internals.TRAINER_CLASS
    assert issubclass(keras.Model, trainer)
    assert not issubclass(keras.layers.Dense, trainer)
    assert not issubclass(trainer, keras.Layer)
    with pytest.raises(NotImplementedError):
        trainer.fit(None)


def test_a_layer_that_mixes_in_the_trainer_class_is_an_instance_of_it():
    mixed = types.new_class("Mixed", (keras.Model.__bases__[0], keras.layers.Layer))
    assert issubclass(mixed, keras_internals.TRAINER_CLASS)


def test_the_layers_of_a_model_include_the_model_and_those_inside_other_layers():
    inner = keras.layers.Dense(1)
    model = keras.Sequential([keras.Input((3, 2)), keras.layers.TimeDistributed(inner)])
    layers = keras_internals.layers_of(model)
    assert layers[0] is model
    assert any(layer is inner for layer in layers)
    assert list(map(id, keras_internals.layers_of(model, include_self=False))) == list(map(id, layers[1:]))


def test_a_call_that_accepts_training_is_told_from_one_that_does_not():
    class Without(keras.Model):
        def call(self, inputs):
            return inputs

    class With(keras.Model):
        def call(self, inputs, training=False):
            return inputs

    assert not keras_internals.has_training_argument(Without())
    assert keras_internals.has_training_argument(With())


def test_building_on_a_batch_builds_weights_loss_metrics_and_optimizer_and_takes_no_step():
    model = keras.Sequential([keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile("adam", "mse", metrics=["mae"])
    keras_internals.build_on_batch(model, (tf.constant(X), tf.constant(Y)))
    assert model.built
    assert model.optimizer.built
    assert keras_internals.compiled_loss(model).built
    assert keras_internals.compiled_metrics(model).built
    assert int(model.optimizer.iterations) == 0
    np.testing.assert_array_equal(model.get_weights()[0], [[1.0], [1.0]])


# The methods that `fit` calls, by backend.
METHODS = {
    "tensorflow": {"train_step", "make_train_function", "_make_function"},
    "jax": {"train_step", "make_train_function", "_make_function", "compute_loss_and_updates"},
    "torch": {"train_step", "make_train_function"},
}


def test_keras_calls_each_method_of_a_training_step_that_its_backend_has_in_fit():
    called = []

    def recorder(name):
        def method(self, *args, **kwargs):
            called.append(name)
            return getattr(super(model_class, self), name)(*args, **kwargs)

        return method

    methods = (*keras_internals.STEP_METHODS, *keras_internals.COMPILING_METHODS)
    existing = [name for name in methods if hasattr(keras.Model, name)]
    model_class = type("Recorded", (keras.Sequential,), {name: recorder(name) for name in existing})
    model = model_class([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    assert set(called) == METHODS[keras.config.backend()]


def test_a_method_that_a_class_or_a_model_overrides_is_found_and_an_unchanged_model_overrides_none():
    class Custom(keras.Sequential):
        def train_step(self, *args):
            return super().train_step(*args)

    changed = linear()
    changed.make_train_function = changed.make_train_function
    assert not keras_internals.overrides_methods(linear(), ["train_step", "make_train_function", "no_such_method"])
    assert keras_internals.overrides_methods(Custom(), ["train_step"])
    assert keras_internals.overrides_methods(changed, ["make_train_function"])
    assert not keras_internals.overrides_methods(Custom(), ["make_train_function", "compute_loss"])


@pytest.mark.skipif(not hasattr(keras, "RematScope"), reason="Keras has no RematScope before 3.9")
def test_a_layer_that_was_made_in_a_scope_of_rematerialization_is_known_by_it():
    assert not keras_internals.is_rematerialized(keras.layers.Dense(1))
    with keras.RematScope(mode="full"):
        assert keras_internals.is_rematerialized(keras.layers.Dense(1))


def test_the_optimizers_of_a_model_are_the_compiled_one_and_those_that_it_and_its_layers_keep_once_each():
    model = linear()
    model.others = [keras.optimizers.Adam(), {"inner": keras.optimizers.Adam()}]
    model.layers[0].inner = model.others[0]
    assert keras_internals.optimizers_of(model) == [model.optimizer, model.others[0], model.others[1]["inner"]]


def test_metrics_that_are_not_weighted_are_those_of_the_argument_metrics_and_those_of_the_model_itself():
    class WithMetric(keras.Sequential):
        own = keras.metrics.Mean()

        @property
        def metrics(self):
            return [*super().metrics, self.own]

    for kind, options, expected in (
        (keras.Sequential, {}, False),
        (keras.Sequential, {"weighted_metrics": ["mae"]}, False),
        (keras.Sequential, {"metrics": ["mae"]}, True),
        (WithMetric, {}, True),
    ):
        model = kind([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", **options)
        assert keras_internals.has_unweighted_metrics(model) == expected
        keras_internals.build_on_batch(model, (X, Y))
        assert keras_internals.has_unweighted_metrics(model) == expected


def test_the_raw_value_of_a_variable_is_its_array_also_in_a_scope_that_has_another():
    variable = keras.Variable([1.0, 2.0])
    with keras.StatelessScope([(variable, ops.zeros(2))]):
        np.testing.assert_array_equal(ops.convert_to_numpy(keras_internals.raw_value(variable)), [1.0, 2.0])


def test_a_raw_value_that_is_set_is_the_value_of_the_variable_and_none_takes_it_out():
    variable, value = keras.Variable([1.0, 2.0]), ops.convert_to_tensor([3.0, 4.0])
    keras_internals.set_raw_value(variable, value)
    assert keras_internals.raw_value(variable) is value
    np.testing.assert_array_equal(ops.convert_to_numpy(variable.value), [3.0, 4.0])
    keras_internals.set_raw_value(variable, None)
    assert keras_internals.raw_value(variable) is None


@needs("jax state")
@pytest.mark.parametrize("discarded", [False, True])
def test_a_state_that_is_discarded_is_not_written_to_the_variables_when_a_callback_asks_for_its_model(discarded):
    model, callback = linear(), keras.callbacks.Callback()
    callback.set_model(model)
    model._jax_state = {"trainable_variables": [ops.zeros_like(v.value) for v in model.trainable_variables]}
    model._jax_state_synced = False
    if discarded:
        keras_internals.discard_jax_state(model)
    assert float(callback.model.get_weights()[0].sum()) == (2.0 if discarded else 0.0)


def test_optimizer_steps_count_every_step_also_those_that_only_accumulate_gradients():
    model = linear()
    model.compile(keras.optimizers.SGD(0.0, gradient_accumulation_steps=2), "mse")
    model.fit(X, Y, batch_size=2, verbose=0)
    assert int(keras_internals.optimizer_steps(model.optimizer).value) == 3


def test_optimizer_steps_are_found_under_loss_scaling():
    model = linear()
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.0), initial_scale=1.0), "mse")
    model.fit(X, Y, batch_size=2, verbose=0)
    assert int(keras_internals.optimizer_steps(model.optimizer).value) == 3


def test_the_parts_of_an_optimizer_are_itself_also_under_loss_scaling():
    optimizer = keras.optimizers.SGD(0.1)
    assert keras_internals.optimizer_parts(optimizer) == [optimizer]
    assert keras_internals.optimizer_parts(keras.optimizers.LossScaleOptimizer(optimizer)) == [optimizer]


def test_a_schedule_of_steps_is_found_in_an_optimizer_and_under_loss_scaling_and_a_number_is_none():
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 10))
    assert keras_internals.has_step_schedule(optimizer)
    assert keras_internals.has_step_schedule(keras.optimizers.LossScaleOptimizer(optimizer))
    assert not keras_internals.has_step_schedule(keras.optimizers.Adam(0.1))
    assert not keras_internals.has_step_schedule(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1)))


def test_the_producer_of_a_tensor_is_the_layer_the_number_of_its_call_and_the_place_of_the_output():
    split = keras.layers.Lambda(lambda t: [t, 2 * t])
    first, second = keras.Input((2,)), keras.Input((2,))
    split(first)
    _, doubled = split(second)
    operation, call, position = keras_internals.producer(doubled)
    assert operation is split
    assert (call, position) == (1, 1)
    assert keras_internals.first_input(operation, call) is second


def test_the_first_input_of_a_call_is_the_first_of_several():
    a, b = keras.Input((2,)), keras.Input((2,))
    operation, call, _ = keras_internals.producer(keras.layers.Add()([a, b]))
    assert keras_internals.first_input(operation, call) is a


def test_the_inputs_of_a_graph_are_all_tensors_that_it_starts_from():
    a, b = keras.Input((2,)), keras.Input((2,))
    model = keras.Model([a, b], keras.layers.Add()([a, b]))
    assert {id(t) for t in keras_internals.graph_inputs(model)} == {id(a), id(b)}


# Losses and metrics


def test_the_compiled_loss_is_what_compute_loss_evaluates_and_none_where_compile_got_none():
    model = linear()
    keras_internals.build_on_batch(model, (X, Y))
    assert float(keras_internals.compiled_loss(model)(Y, Y + 2.0)) == 4.0
    assert keras_internals.compiled_loss(linear(loss=None)) is None


def test_the_compiled_metrics_are_updated_with_targets_and_predictions_and_none_where_compile_got_none():
    model = linear(metrics=["mae"])
    keras_internals.build_on_batch(model, (X, Y))
    metrics = keras_internals.compiled_metrics(model)
    metrics.update_state(Y, Y + 2.0, np.ones(6))
    assert [float(metric.result()) for metric in metrics.metrics] == [2.0]
    assert any(metric is metrics for metric in model.metrics)
    assert keras_internals.compiled_metrics(linear()) is None


def test_the_loss_tracker_is_the_metric_that_the_logs_show_as_loss_and_compile_replaces_it():
    model = linear()
    tracker = keras_internals.loss_tracker(model)
    keras_internals.build_on_batch(model, (X, Y))
    tracker.update_state(3.0, sample_weight=2)
    tracker.update_state(6.0, sample_weight=1)
    assert float(model.get_metrics_result()["loss"]) == 4.0
    model.compile("sgd", "mse")
    assert keras_internals.loss_tracker(model) is not tracker


def two_outputs():
    inputs = keras.Input((2,))
    outputs = {name: keras.layers.Dense(1, kernel_initializer="ones", name=name)(inputs) for name in ("a", "b")}
    model = keras.Model(inputs, outputs)
    model.compile("sgd", {"a": "mse", "b": "mae"})
    return model


class Doubled(keras.layers.Layer):
    """A layer that isn't registered with Keras."""

    def call(self, x):
        return 2 * x


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.Sequential([keras.Input((2,)), Doubled(), keras.layers.Dense(1)]),
        lambda: keras.Sequential([Doubled(), keras.layers.Dense(1)]),
        two_outputs,
    ],
    ids=["sequential", "lazily built", "functional"],
)
def test_a_clone_has_the_architecture_but_no_layer_of_the_model_and_is_not_compiled(make):
    model = make()
    model.compile("sgd", lambda y, p: p)  # which can't be serialised
    clone = keras_internals.clone_uncompiled(model)
    assert not clone.compiled and model.compiled
    clone(X), model(X)
    assert not set(map(id, clone.layers)) & set(map(id, model.layers))
    clone.set_weights(model.get_weights())
    for one, other in zip(*(keras.tree.flatten(m(X)) for m in (model, clone)), strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))
    assert keras.tree.map_structure(lambda _: 0, clone(X)) == keras.tree.map_structure(lambda _: 0, model(X))


def test_the_loss_weights_are_those_that_compile_was_given():
    assert keras_internals.loss_weights(linear()) is None
    model = two_outputs()
    model.compile("sgd", {"a": "mse", "b": "mae"}, loss_weights={"a": 2.0, "b": 0.5})
    assert keras_internals.loss_weights(model) == {"a": 2.0, "b": 0.5}


def test_a_loss_expects_logits_or_probabilities_or_does_not_tell():
    cases = [("binary_crossentropy", False), (keras.losses.BinaryCrossentropy(from_logits=True), True), ("mse", None)]
    for loss, expected in cases:
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, "sigmoid")])
        model.compile("sgd", loss)
        keras_internals.build_on_batch(model, (X, np.zeros((len(X), 1), "float32")))
        assert keras_internals.expects_logits(model) is expected


def test_output_losses_are_empty_until_built_and_then_one_loss_object_per_output():
    model = two_outputs()
    assert keras_internals.output_losses(model) == []
    keras_internals.build_on_batch(model, (X, {"a": Y, "b": Y}))
    losses = keras_internals.output_losses(model)
    assert all(isinstance(loss, keras.losses.Loss) for loss in losses)
    assert [float(loss(Y, Y + 3.0)) for loss in losses] == [9.0, 3.0]


def test_replaced_losses_are_computed_while_open_and_the_compiled_ones_again_afterwards():
    model = two_outputs()
    y = {"a": Y, "b": Y}
    keras_internals.build_on_batch(model, (X, y))
    y_pred = {"a": ops.convert_to_tensor(Y + 3.0), "b": ops.convert_to_tensor(Y + 3.0)}

    def value():
        return float(keras_internals.compute_loss(model, X, y, y_pred, None, training=True))

    assert value() == 12.0
    with pytest.raises(KeyError), keras_internals.replaced_losses(model, lambda loss: lambda *data: 2 * loss(*data)):
        assert value() == 24.0
        raise KeyError
    assert value() == 12.0


def test_moments_can_be_replaced_in_layers_for_batch_normalisation_and_come_back():
    layer = keras.layers.BatchNormalization(momentum=0.0)
    model = keras.Sequential([keras.Input((2,)), layer])
    rows = np.arange(6, dtype="float32").reshape(3, 2)
    seen = []

    def replace(replaced, moments):
        def doubled(inputs, mask):
            seen.append((replaced, mask))
            mean, variance = moments(inputs, mask)
            return 2 * mean, variance

        return doubled

    with keras_internals.replaced_moments(model, replace):
        model(rows, training=True)
    assert seen == [(layer, None)]
    np.testing.assert_allclose(host(layer.moving_mean), [4.0, 6.0], rtol=1e-6)
    model(rows, training=True)
    np.testing.assert_allclose(host(layer.moving_mean), [2.0, 3.0], rtol=1e-6)


def test_replacing_losses_before_they_are_built_replaces_nothing():
    model = linear()
    with keras_internals.replaced_losses(model, lambda loss: pytest.fail("there is no loss yet")):
        keras_internals.build_on_batch(model, (X, Y))
    assert len(keras_internals.output_losses(model)) == 1


@pytest.mark.parametrize("has_training", [True, False])
def test_the_loss_of_a_batch_comes_from_compute_loss_whether_or_not_it_accepts_training(has_training):
    seen = []

    class With(keras.Sequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            seen.append((x, y, y_pred, sample_weight, training))
            return 7.0

    class Without(keras.Sequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
            seen.append((x, y, y_pred, sample_weight))
            return 7.0

    model = (With if has_training else Without)([keras.Input((2,)), keras.layers.Dense(1)])
    assert keras_internals.compute_loss(model, "x", "y", "p", "w", training=False) == 7.0
    assert seen == [("x", "y", "p", "w", False)[: 4 + has_training]]


def test_the_arguments_of_a_loss_are_those_that_it_passes_to_its_function():
    loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.25)
    arguments = keras_internals.loss_arguments(loss)
    assert arguments["from_logits"] is True
    assert arguments["label_smoothing"] == 0.25
    assert keras_internals.loss_arguments(lambda y_true, y_pred: 0.0) == {}


def test_a_loss_computes_in_the_dtype_that_is_set():
    loss = keras.losses.MeanSquaredError(dtype="float16")
    assert np.isinf(float(loss(np.zeros((1, 1)), np.full((1, 1), 300.0))))  # 90000 is beyond float16
    keras_internals.set_loss_dtype(loss, "float32")
    assert loss.dtype == "float32"
    assert float(loss(np.zeros((1, 1)), np.full((1, 1), 300.0))) == 90000.0


def test_the_function_of_a_mean_metric_returns_its_values_by_entry():
    metric = keras.metrics.TopKCategoricalAccuracy(k=1)
    function, arguments = keras_internals.metric_function(metric)
    y_pred = np.asarray([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.1, 0.2, 0.7]], "float32")
    values = function(np.eye(3, dtype="float32"), y_pred, **arguments)
    np.testing.assert_array_equal(ops.convert_to_numpy(values), [1.0, 0.0, 1.0])


# Masks and logits of tensors


def test_the_mask_of_a_layer_is_read_from_its_output():
    output = keras.layers.Masking()(np.asarray([[[1.0], [0.0], [2.0]]], "float32"))
    np.testing.assert_array_equal(ops.convert_to_numpy(keras_internals.get_mask(output)), [[True, False, True]])
    assert keras_internals.get_mask(ops.ones((1, 2))) is None
    assert keras_internals.get_mask({"a": output}) is None


def test_a_mask_that_is_set_is_used_by_the_losses_of_keras():
    y_pred = ops.convert_to_tensor(np.asarray([[[1.0], [5.0]]], "float32"))
    keras_internals.set_mask(y_pred, ops.convert_to_tensor(np.asarray([[True, False]])))
    loss = keras.losses.MeanSquaredError()(np.zeros((1, 2, 1), "float32"), y_pred)
    assert float(loss) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_logits_of_probabilities_are_what_the_activation_was_given(activation):
    logits = ops.convert_to_tensor(np.asarray([[1.0, -2.0]], "float32"))
    probabilities = keras.activations.get(activation)(logits)
    np.testing.assert_array_equal(ops.convert_to_numpy(keras_internals.get_logits(probabilities)), [[1.0, -2.0]])
    assert keras_internals.get_logits(logits) is None


@needs("losses that use logits")
def test_logits_that_are_set_are_used_by_the_cross_entropies_of_keras():
    wrong = ops.convert_to_tensor(np.asarray([[0.5, 0.5]], "float32"))
    keras_internals.set_logits(wrong, ops.convert_to_tensor(np.log(np.asarray([[0.25, 0.75]], "float32"))))
    loss = keras.losses.categorical_crossentropy(np.asarray([[1.0, 0.0]], "float32"), wrong)
    np.testing.assert_allclose(ops.convert_to_numpy(loss), [-np.log(0.25)], rtol=1e-6)


# Callbacks


@pytest.mark.parametrize("save_freq", ["epoch", 2])
def test_the_path_of_a_checkpoint_is_the_file_that_the_callback_writes(save_freq, tmp_path):
    name = "{epoch:02d}-{loss:.3f}.keras" if save_freq == "epoch" else "{epoch}-{batch}.keras"
    callback = keras.callbacks.ModelCheckpoint(tmp_path / name, save_freq=save_freq)
    model, paths = linear(), []

    class Witness(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if save_freq == 2 and batch % 2 == 1:
                paths.append(keras_internals.checkpoint_path(callback, 0, batch, logs))

        def on_epoch_end(self, epoch, logs=None):
            if save_freq == "epoch":
                paths.append(keras_internals.checkpoint_path(callback, epoch, None, logs))

    model.fit(X, Y, batch_size=1, verbose=0, callbacks=[callback, Witness()])
    assert sorted(paths) == sorted(map(str, tmp_path.iterdir()))
    assert len(paths) == (1 if save_freq == "epoch" else 3)


def test_the_path_of_a_checkpoint_with_an_unknown_placeholder_is_a_key_error(tmp_path):
    callback = keras.callbacks.ModelCheckpoint(tmp_path / "{nothing}.keras")
    with pytest.raises(KeyError, match="nothing"):
        keras_internals.checkpoint_path(callback, 0, None, {"loss": 1.0})


@pytest.mark.parametrize("save_freq, expected", [(2, [1, 3, 5]), (4, [3])])
def test_a_backup_is_due_at_the_batches_that_the_callback_saves_the_model_at(save_freq, expected, tmp_path):
    callback = keras.callbacks.BackupAndRestore(tmp_path, save_freq=save_freq)
    model, due = linear(), []

    class Witness(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if keras_internals.backup_is_due(callback, batch) and keras_internals.backup_is_due(callback, batch):
                due.append(batch)

    saved = []
    callback._save_model = lambda: saved.append(callback._last_batch_seen)
    model.fit(X, Y, batch_size=1, verbose=0, callbacks=[Witness(), callback])
    assert due == saved == expected


# Data


class Arraylike:
    """An object that is an array to NumPy alone."""

    shape = (2,)

    def __array__(self, dtype=None, copy=None):
        return np.zeros(2, dtype)


def arrays():
    import pandas

    frame = pandas.DataFrame({"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]})
    return {
        "numpy": X,
        "pandas frame": frame,
        "pandas series": frame["a"],
        "tensor": tf.constant(X),
        "ragged": tf.ragged.constant([[1.0], [2.0, 3.0]]),
        "sparse": tf.sparse.from_dense(X),
        "scipy": scipy.sparse.csr_matrix(X),
    }


@pytest.mark.parametrize("kind", arrays())
def test_every_kind_of_array_in_memory_is_known_and_an_array_for_fit(kind):
    assert keras_data.is_array_in_memory(arrays()[kind])
    assert keras_data.is_array_for_fit(arrays()[kind])


@pytest.mark.parametrize(
    "value", [[1.0, 2.0], "text", tf.data.Dataset.range(2), Arraylike()], ids=lambda v: type(v).__name__
)
def test_lists_texts_and_objects_that_only_convert_to_arrays_are_no_arrays_in_memory(value):
    assert not keras_data.is_array_in_memory(value)


def test_an_object_that_converts_to_an_array_is_an_array_for_fit_and_a_list_is_not():
    assert keras_data.is_array_for_fit(Arraylike())
    assert not keras_data.is_array_for_fit([1.0, 2.0])


def test_tensors_of_every_kind_are_tensorflow_tensors_and_numpy_arrays_are_not():
    kinds = arrays()
    assert [k for k in kinds if keras_data.is_tensorflow_tensor(kinds[k])] == ["tensor", "ragged", "sparse"]


def test_a_loader_of_pytorch_or_grain_is_known_by_its_class_and_an_array_is_none():
    def loader(name, module):
        return type(name, (), {"__module__": module})()

    assert keras_data.is_loader_for_fit(loader("DataLoader", "torch.utils.data.dataloader"))
    assert not keras_data.is_loader_for_fit(X)
    has_grain = tuple(map(int, keras.__version__.split(".")[:2])) >= (3, 11)
    assert keras_data.is_loader_for_fit(loader("MapDataset", "grain._src.python.dataset.dataset")) == has_grain


def test_sparse_and_ragged_arrays_are_told_from_dense_ones():
    assert keras_data.is_sparse_or_ragged(scipy.sparse.csr_matrix(X))
    assert not keras_data.is_sparse_or_ragged(X)
    assert not keras_data.is_sparse_or_ragged(ops.convert_to_tensor(X))


@needs("sparse and ragged inputs")
@pytest.mark.parametrize("kind", ["ragged", "sparse"])
def test_sparse_and_ragged_tensors_of_tensorflow_are_known(kind):
    assert keras_data.is_sparse_or_ragged(arrays()[kind])


@pytest.mark.parametrize("kind", ["numpy", "pandas frame", "tensor of keras"])
def test_a_numpy_array_of_dense_data_has_the_values_and_the_float_type_that_fit_uses(kind):
    expected = [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]
    array = arrays()["pandas frame"] if kind == "pandas frame" else np.array(expected)
    array = keras_data.to_numpy_array(ops.convert_to_tensor(array, "float32") if kind == "tensor of keras" else array)
    assert type(array) is np.ndarray
    assert array.dtype == "float32"
    np.testing.assert_array_equal(array, expected)


def test_slices_have_the_rows_and_the_float_type_that_fit_uses():
    rows = keras_data.slice_rows(X.astype("float64"), 1, 3)
    np.testing.assert_array_equal(rows, X[1:3])
    assert keras.backend.standardize_dtype(rows.dtype) == "float32"
    assert keras_data.slice_rows(np.arange(4), 1, 3).dtype == "int64"


def test_pipeline_arrays_have_the_float_type_that_fit_uses_and_keep_integers():
    assert keras.backend.standardize_dtype(keras_data.to_pipeline_array(X.astype("float64")).dtype) == "float32"
    assert keras.backend.standardize_dtype(keras_data.to_pipeline_array(np.arange(4)).dtype) == "int64"


@pytest.mark.parametrize("kind", ["scipy", "sparse"])
def test_sparse_arrays_reach_a_pipeline_as_sparse_rows_of_which_rows_are_gathered(kind):
    rows = keras_data.to_pipeline_array(arrays()[kind])
    assert keras_data.is_sparse_rows(rows)
    np.testing.assert_array_equal(tf.sparse.to_dense(rows.sparse), X)
    gathered = keras_data.gather_sparse_rows(rows, tf.constant([4, 0, 4]))
    np.testing.assert_array_equal(tf.sparse.to_dense(gathered), X[[4, 0, 4]])


def test_sparse_rows_of_a_sparse_tensor_hold_the_tensor_and_dense_tensors_are_none():
    sparse = tf.sparse.from_dense(X)
    assert keras_data.to_sparse_rows(sparse).sparse is sparse
    assert not keras_data.is_sparse_rows(tf.constant(X))


def test_the_batches_of_a_data_adapter_have_every_row_once_and_are_shuffled():
    adapter = keras_data.data_adapter(np.arange(60), batch_size=25, shuffle=True)
    batches = [np.asarray(keras.tree.flatten(batch)[0]) for batch in keras_data.adapter_batches(adapter)]
    assert [len(batch) for batch in batches] == [25, 25, 10]
    rows = np.concatenate(batches).tolist()
    assert sorted(rows) == list(range(60))
    assert rows != list(range(60))


def test_a_data_adapter_turns_class_weights_into_sample_weights():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return X[:3], np.array([0, 1, 0])

    adapter = keras_data.data_adapter(Batches(), class_weight={0: 1.0, 1: 5.0})
    adapter.on_epoch_begin()
    _, _, weights = next(iter(keras_data.adapter_batches(adapter)))
    adapter.on_epoch_end()
    np.testing.assert_array_equal(ops.convert_to_numpy(weights), [1.0, 5.0, 1.0])


@needs("host adapters")
def test_fit_reads_a_host_adapter_in_every_epoch_also_after_one_that_ended_early():
    read = []

    def batches():
        for start in (0, 4):
            read.append(start)
            yield X[start : start + 4], Y[start : start + 4]

    class Stopping(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = read == [0, 0]  # the first is read to build the model

        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = False

    adapter = keras_data.host_adapter(batches, 6, 4)
    assert keras_data.data_adapter(adapter) is adapter
    assert (adapter.num_batches, adapter.batch_size, adapter.partial_batch_size) == (2, 4, 2)
    linear().fit(adapter, epochs=2, verbose=0, callbacks=[Stopping()])
    assert read == [0, 0, 0, 4]


def test_a_loader_with_workers_that_persist_is_copied_without_its_iterator_and_other_values_are_not():
    loader = types.SimpleNamespace(persistent_workers=True, _iterator=object())
    copy = keras_data.unshared(loader)
    assert copy is not loader
    assert copy._iterator is None
    assert loader._iterator is not None
    other = types.SimpleNamespace(persistent_workers=False)
    assert keras_data.unshared(other) is other
    assert keras_data.unshared(X) is X


@pytest.mark.parametrize("targets", [[0, 2, 1], [[0], [2], [1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]]])
def test_class_weights_become_the_weights_of_samples_by_class_and_a_class_without_weight_counts_once(targets):
    weights = keras_data.class_weights_to_sample_weights(np.asarray(targets), {0: 3.0, 2: 0.5})
    np.testing.assert_array_equal(weights, [3.0, 0.5, 1.0])


def test_a_validation_split_is_the_one_that_fit_makes():
    x = np.arange(7, dtype="float32")[:, None]
    seen = {"train": 0, "validation": 0}

    class Counting(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen["train"] += 1

        def on_test_batch_end(self, batch, logs=None):
            seen["validation"] += 1

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(x, x, batch_size=1, validation_split=0.3, verbose=0, callbacks=[Counting()])
    assert keras_data.split_rows(7, 0.3) == (seen["train"], seen["validation"])


def test_a_validation_split_that_leaves_no_rows_is_a_value_error():
    with pytest.raises(ValueError, match="validation_split"):
        keras_data.split_rows(1, 0.5)


def test_arrays_that_fit_accepts_pass_the_check_with_class_weights_or_sample_weights():
    keras_data.check_arrays(X, np.zeros(6, "int32"), None, {0: 2.0})
    keras_data.check_arrays(X, Y, np.ones(6))


@pytest.mark.parametrize(
    "arguments",
    [
        (X, Y[:5], None),
        (X, Y, np.ones(5)),
        (X, Y, np.ones(6), {0: 2.0}),
        (X, {"a": Y, "b": Y}, None, {0: 2.0}),
    ],
    ids=["targets too few", "weights too few", "two kinds of weights", "class weights of several outputs"],
)
def test_arrays_that_fit_refuses_are_refused_with_the_words_of_fit(arguments):
    x, y, sample_weight, class_weight = (*arguments, None)[:4]
    with pytest.raises(ValueError) as captured:
        linear().fit(x, y, sample_weight=sample_weight, class_weight=class_weight, verbose=0)
    with pytest.raises(ValueError, match=re.escape(str(captured.value).splitlines()[0][:60])):
        keras_data.check_arrays(*arguments)


def test_a_batch_size_that_fit_refuses_is_refused_and_another_is_not():
    keras_data.check_batch_size(6, 4)
    keras_data.check_batch_size(6, None)
    with pytest.raises((TypeError, ValueError)):
        keras_data.check_batch_size(6, "four")


# Where private names are used


def sources():
    for folder in ("importance_sampling", "examples", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if BACKEND not in path.parents:
                yield path, ast.parse(path.read_text(encoding="utf-8"))


def private_names():
    """The attributes of Keras's objects that the modules of internals use, read or named in a string."""
    names = set()
    for path in (BACKEND / "keras_internals.py", BACKEND / "keras_data.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {
            n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)
        }
        for node in ast.walk(tree):
            name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "value", None)
            if isinstance(name, str) and re.fullmatch(r"_[a-z]\w*", name):
                names.add(name)
        names -= own
    return names - {"_replace", "_iterator"}  # of named tuples, and of torch's loaders


def test_the_names_that_are_looked_for_include_those_that_releases_of_keras_have_changed():
    assert {"_compile_loss", "_flat_losses", "_loss_tracker", "_keras_logits", "_symbolic_build"} <= private_names()


def test_only_the_backend_imports_keras_src_or_a_framework():
    found = []
    for path, tree in sources():
        for node in ast.walk(tree):
            imported = []
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                imported = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                imported = [f"{node.value.id}.{node.attr}"] if node.value.id == "keras" else []
            found += [f"{path}:{node.lineno} {n}" for n in imported if re.match(r"(keras\.src|tensorflow)\b", n)]
    assert found == []


@needs("TensorFlow")
def test_the_stub_of_the_backend_imports_every_name_of_the_protocol_from_where_it_is_defined():
    stub = ast.parse((BACKEND / "__init__.pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    found = {alias.name: node.module for node in imports for alias in node.names}
    assert set(found) == set(backend.PROTOCOL)
    for name, module in found.items():
        assert vars(importlib.import_module(module))[name] is getattr(backend, name), name


SAVED_NAMES = {("per_class.py", "_moments")}  # of arrays in the files of samplers, not of Keras


def test_only_the_backend_uses_private_attributes_of_keras():
    names, found = private_names(), []
    for path, tree in sources():
        for node in ast.walk(tree):
            name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "value", None)
            if isinstance(name, str) and name in names and (path.name, name) not in SAVED_NAMES:
                found.append(f"{path}:{node.lineno} {name}")
    assert found == []


def test_within_the_backend_only_the_modules_of_internals_import_keras_src():
    allowed = {"keras_internals.py", "keras_data.py"}
    for path in set(BACKEND.glob("*.py")):
        uses = re.findall(r"^(?!#).*(?:import|private_module\().*keras\.src", path.read_text(encoding="utf-8"), re.M)
        assert not uses or path.name in allowed, path


def test_every_function_of_the_modules_of_internals_is_tested_here():
    tested = Path(__file__).read_text(encoding="utf-8")
    for module in (keras_internals, keras_data):
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]
        assert [name for name in names if f".{name}(" not in tested] == []
