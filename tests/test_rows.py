"""The step on rows picked ahead of it: what it moves, what it measures, what it says of the data."""

import keras
import numpy as np
import pytest
import scipy.special
from drop_in_cases import CASES, ROWS, begin_anew
from frameworks import BACKEND, host, lacks, needs
from keras import layers, ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.conditions.signals import row_signals, uniform_signals
from importance_sampling.core.logits import Logits
from importance_sampling.core.scoring import Scorer
from importance_sampling.fit.state import TrainerState
from importance_sampling.strategies.indexed_step import IndexedStep

B = 12


def row_step(model, score="gnorm", layer=None, state=None):
    points = Logits(model, layer)
    return IndexedStep(model, Scorer(model, score, points), state or TrainerState(1))


def batch_of(name, dropout=0.0):
    """A model of the table of the swap, without dropout, and a batch of its data as a source would hand it over.

    With `dropout=None` the layers have their own rates.
    """
    make, arrays, _ = CASES[name]
    begin_anew()
    model = make()
    for layer in model.layers:
        if isinstance(layer, layers.Dropout) and dropout is not None:
            layer.rate = dropout
    arrays = arrays(None)
    sample_weight = arrays.get("sample_weight")
    if sample_weight is not None and isinstance(arrays["y"], list):
        sample_weight = [sample_weight] * len(arrays["y"])
    data = (arrays["x"], arrays["y"], sample_weight)
    data = keras.tree.map_structure(lambda t: None if t is None else tensor(np.asarray(t)[5 : 5 + B]), data)
    keras_internals.build_on_batch(model, data)
    return model, data


def n(tensor):
    return ops.convert_to_numpy(tensor)


def tensor(array):
    return ops.convert_to_tensor(array.astype("float32") if array.dtype == "float64" else array)


def step_of_keras(model, data):
    """Take a training step of Keras; return its logs."""
    model.make_train_function(force=True)
    if hasattr(model, "_record_training_state_sharding_spec"):  # which `fit` of an older Keras calls on JAX
        model._record_training_state_sharding_spec()
    return backend.training_function(model, model.train_function)(iter([data]))


def summed():
    """A loss that is summed, and one that is left as it is."""
    inputs = keras.Input((8,))
    hidden = layers.Dense(4, "relu")(inputs)
    model = keras.Model(inputs, [layers.Dense(3, "softmax", name="a")(hidden), layers.Dense(1, name="b")(hidden)])
    losses = [keras.losses.SparseCategoricalCrossentropy(reduction="sum"), keras.losses.MeanSquaredError("sum")]
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), losses, metrics=[["accuracy"], ["mae"]])
    return model


CASES = CASES | {"summed": (summed, CASES["two outputs"][1], {})}
SAME = [
    "dense",
    "batch norm",
    "two outputs, one weight",
    "sample weights",
    "masked sequences",
    "summed",
    "regularised",
    "half precision",
    "several metrics",
    "compute_loss",
]


# Where a step differs from Keras's by rounding: the case, and the backends. The library multiplies squared differences
# from the mean by the weights. Keras on torch has another formula of the variance, without differences, and JAX
# compiles the products with weights that it doesn't know into other instructions.
ROUNDED = {"batch norm": {"jax", "torch"}}


@pytest.mark.parametrize("name", SAME)
def test_with_weights_of_one_a_step_on_rows_by_index_is_the_step_of_keras_bit_for_bit(name):
    plain, data = batch_of(name, dropout=None)
    for _ in range(3):
        logs = step_of_keras(plain, data)
    model, data = batch_of(name, dropout=None)
    step = backend.compile_step(row_step(model), model)
    for _ in range(3):
        ours, measured = step(data, ops.ones((B,)), ops.ones((B,)))
    assert ours.keys() == logs.keys() and measured.shape == (B,)
    if name == "masked sequences" and lacks("masked training metrics"):
        del logs["accuracy"]
    is_rounded = BACKEND in ROUNDED.get(name, ())
    for key in logs:
        np.testing.assert_allclose(n(ours[key]), n(logs[key]), rtol=1e-5 * is_rounded, err_msg=key)
    # A bias before batch normalisation has a gradient of zero, and Adam scales up what rounding makes of it.
    for mine, theirs in zip(
        [*model.variables, *model.optimizer.variables], [*plain.variables, *plain.optimizer.variables], strict=True
    ):
        tolerances = dict(rtol=1e-4, atol=2e-5) if is_rounded else dict(rtol=0, atol=0)
        np.testing.assert_allclose(host(mine), host(theirs), **tolerances, err_msg=mine.path)


@pytest.mark.parametrize("score", ["gnorm", "loss"])
@pytest.mark.parametrize(
    "name",
    [
        "two outputs, one weight",
        "masked sequences",
        "summed",
        # Without the logits, the gradient of Keras's own loss is NaN where a probability is rounded to 0.
        pytest.param("half precision", marks=needs("losses that use logits")),
    ],
)
def test_a_step_on_rows_measures_the_scores_that_the_scorer_predicts_for_all_weights(name, score):
    model, data = batch_of(name)
    step = row_step(model, score)
    predicted = step.scorer(data).scores
    weights = tensor(np.linspace(0.2, 5, B))
    _, measured = step(data, weights, ops.ones((B,)))
    measured = n(measured)
    if name == "masked sequences":  # up to the number of valid entries, in the batch and by its weights
        measured = measured * np.mean(n(predicted)) / np.mean(measured)
    np.testing.assert_allclose(measured, n(predicted), rtol=2e-2 if name == "half precision" else 1e-4)


@pytest.mark.fast
def test_a_step_on_rows_measures_the_unweighted_loss_and_gradient_norm_of_every_sample():
    model, (x, y, w) = batch_of("sample weights")
    expected = {"gnorm": [], "loss": []}
    for i in range(B):
        z = model.layers[0](x[i : i + 1]) @ model.layers[-1].kernel + model.layers[-1].bias
        probabilities = scipy.special.softmax(ops.convert_to_numpy(z)[0])
        label, weight = int(y[i]), float(w[i])
        expected["loss"].append(-weight * np.log(probabilities[label]))
        expected["gnorm"].append(weight * np.linalg.norm(probabilities - np.eye(len(probabilities))[label]))
    start = model.get_weights()
    for score, values in expected.items():
        model.set_weights(start)
        _, measured = row_step(model, score)((x, y, w), tensor(np.linspace(0.5, 3, B)), ops.ones((B,)))
        np.testing.assert_allclose(n(measured), values, rtol=1e-4)


@pytest.mark.fast
def test_a_callable_score_is_computed_before_the_step_on_rows():
    model, data = batch_of("dense")
    step = row_step(model, lambda model, x, y: x[:, 0] ** 2)
    _, measured = step(data, ops.ones((B,)), ops.ones((B,)))
    np.testing.assert_allclose(n(measured), n(data[0][:, 0] ** 2), rtol=1e-6)


@pytest.mark.parametrize("name", ["summed", "masked sequences", "several metrics"])
def test_metrics_of_batches_drawn_by_known_probabilities_are_unbiased_for_the_data(name):
    model, _ = batch_of(name)
    model.optimizer.learning_rate = 0.0
    _, arrays, _ = CASES[name]
    arrays = arrays(None)
    x, y = (keras.tree.map_structure(np.asarray, arrays[key]) for key in ("x", "y"))
    true = model.evaluate(x, y, batch_size=ROWS, verbose=0, return_dict=True)
    rng = np.random.default_rng(0)
    # Nothing symmetric: a few rows are drawn often, and what is wrong among them.
    p = np.exp(1.5 * rng.normal(size=ROWS)) * (1 + np.ravel(y[0] if isinstance(y, list) else y)[:ROWS])
    p = 0.8 * p / p.sum() + 0.2 / ROWS
    step = row_step(model)
    run = backend.compile_step(
        lambda indices, weights: step(
            (*(keras.tree.map_structure(lambda t: ops.take(t, indices, axis=0), part) for part in (x, y)), None),
            ops.ones((B,)),  # trained on with others, as biased kinds do
            weights,
        ),
        model,
    )
    steps, draws, figures = 100, 8, []
    for _ in range(draws):
        model.reset_metrics()
        for _ in range(steps):
            indices = rng.choice(ROWS, B, p=p)
            logs, _ = run(indices, (1 / (ROWS * p[indices])).astype("float32"))
        figures.append({key: float(value) for key, value in logs.items()})
    for key, value in true.items():
        seen = np.array([one[key] for one in figures])
        if name == "summed" and "loss" in key:
            value = value * B / ROWS  # of a batch
        error = seen.std(ddof=1) / np.sqrt(draws)
        assert abs(seen.mean() - value) < 5 * error + 1e-3 * abs(value), (key, seen.mean(), value, error)


@pytest.mark.fast
def test_signals_of_weighted_rows_are_those_computed_by_hand():
    # w = (1/2, 1, 4), s = (4, 2, 1): sum w s = 2 + 2 + 4, sum w s^2 = 8 + 4 + 4 = 16, sum w^2 s^2 = 4 + 4 + 16 = 24.
    signals = row_signals(ops.array([4.0, 2.0, 1.0]), ops.array([0.5, 1.0, 4.0]))
    assert float(signals.tau) == 1.0  # sqrt(16/3) / (8/3) = 0.87, which no set of scores has, is held at 1
    # q = .9 s / (8/3) + .1 = (1.45, .775, .4375), sum(w s^2 / q) = 8/1.45 + 4/.775 + 4/.4375; seen is 16/24.
    predicted = 16 / (8 / 1.45 + 4 / 0.775 + 4 / 0.4375)
    assert float(signals.gain) == pytest.approx(predicted, rel=1e-5)
    assert float(signals.discount) == pytest.approx(16 / 24 / predicted, rel=1e-5)
    assert float(signals.score) == pytest.approx(8 / 3)


@pytest.mark.fast
def test_signals_of_rows_with_weights_of_one_have_no_discount():
    # s = (8, 2, 1) and weights of one: sum s^2 = 69, sum s = 11, tau = sqrt(23) / (11/3).
    signals = row_signals(ops.array([8.0, 2.0, 1.0]), ops.ones((3,)))
    assert float(signals.tau) == pytest.approx(np.sqrt(23) * 3 / 11, rel=1e-5)
    assert np.isnan(float(signals.discount))  # a uniform draw is no trial of another


@pytest.mark.fast
def test_signals_of_a_uniform_sample_are_those_computed_by_hand():
    # s = (8, 2, 2): mean 4, mean of squares 24, tau = sqrt(24)/4. q = .9 s/4 + .1 = (1.9, .55, .55):
    # variance gain = 72 / (64/1.9 + 8/.55).
    signals = uniform_signals(ops.array([8.0, 2.0, 2.0]))
    assert float(signals.tau) == pytest.approx(np.sqrt(24) / 4, rel=1e-5)
    assert float(signals.gain) == pytest.approx(72 / (64 / 1.9 + 8 / 0.55), rel=1e-5)
    assert float(signals.score) == pytest.approx(4)


@pytest.mark.parametrize("scores", [[np.nan, 1.0], [0.0, 0.0]])
@pytest.mark.fast
def test_unusable_scores_give_signals_of_nan_and_finite_weights_of_the_model(scores):
    signals = row_signals(ops.array(scores), ops.array([0.5, 2.0]))
    assert np.isnan(float(signals.tau)) and np.isnan(float(signals.gain))
    model, (x, y, _) = batch_of("dense")
    state = TrainerState(1)
    step = row_step(model, lambda model, x, y: ops.full((B,), scores[0]), state=state)
    step((x, y, None), ops.ones((B,)), ops.ones((B,)))
    assert np.isnan(state.signals.tau)
    assert all(np.isfinite(host(v)).all() for v in model.trainable_variables)
