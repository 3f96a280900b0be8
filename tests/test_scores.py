"""Scores against plain per-example autodiff; what they may not move; slices."""

import keras
import numpy as np
import pytest
import scipy.special
from frameworks import dtype_policy, gradient_function, host, needs
from keras import layers

from importance_sampling import ImportanceTraining, backend
from importance_sampling.backend import keras_internals
from importance_sampling.core.logits import Logits
from importance_sampling.core.scoring import Scorer

ROWS, TIME = 6, 6  # as many time steps as rows: what mixes them up can't hide behind shapes


def rng():
    return np.random.default_rng(5)


def rows(classes=3, one_hot=True):
    x = rng().normal(size=(ROWS, 4)).astype("float32")
    y = rng().integers(0, classes, ROWS)
    return x, keras.utils.to_categorical(y, classes) if one_hot else y


def sequences(classes=3):
    x = rng().normal(size=(ROWS, TIME, 4)).astype("float32")
    return x, rng().integers(0, classes, (ROWS, TIME))


def sequential(*last, shape=(4,)):
    return keras.Sequential([keras.Input(shape), layers.Dense(5, "tanh"), layers.Dropout(0.5), *last])


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.out = layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.out(x)


def nested():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    inputs = keras.Input((4,))
    return keras.Model(inputs, inner(inputs))


def compiled(model, loss, **options):
    model.compile("sgd", loss, **options)
    return model


def scored(model, data, score="gnorm", layer=None, slice_size=None):
    x, y, *weights = data
    tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, (x, y))
    data = (*tensors, keras.tree.map_structure(keras.ops.convert_to_tensor, weights[0]) if weights else None)
    keras_internals.build_on_batch(model, data)
    scorer = Scorer(model, score, Logits(model, layer), slice_size)
    return keras.ops.convert_to_numpy(backend.compile_step(lambda *batch: scorer(batch).scores, model)(*data))


def one_by_one(model, data):
    """|d(loss of a sample alone) / d(weights)|, by plain autodiff."""
    compute = gradient_function(
        lambda x, y: model.compute_loss(x, y, model(x, training=False)), model.trainable_variables, constants=2
    )
    gradients = [compute(*(array[i : i + 1] for array in data)) for i in range(ROWS)]
    return np.array([np.sqrt(sum(np.sum(np.square(part)) for part in parts)) for parts in gradients])


def softmax_minus_labels(model, x, y):
    return np.linalg.norm(model.predict(x, verbose=0) - y, axis=1)


HEADS = {
    "fused softmax": lambda: sequential(layers.Dense(3, activation="softmax")),
    "separate activation": lambda: sequential(layers.Dense(3), layers.Activation("softmax")),
    "softmax layer": lambda: sequential(layers.Dense(3), layers.Softmax()),
    "reshaped": lambda: sequential(layers.Dense(3, activation="softmax"), layers.Reshape((3,))),
    "linear activation after": lambda: sequential(layers.Dense(3, "softmax"), layers.Activation("linear")),
    "subclassed": Subclassed,
    "nested": nested,
}

WITHOUT_LAYER = pytest.param("subclassed", marks=needs("logits of probabilities"))


@pytest.mark.parametrize("head", [WITHOUT_LAYER if head == "subclassed" else head for head in HEADS])
def test_gnorm_of_softmax_and_cross_entropy_is_the_distance_of_probabilities_from_labels(head):
    model = compiled(HEADS[head](), "categorical_crossentropy")
    x, y = rows()
    scores = scored(model, (x, y))
    np.testing.assert_allclose(scores, softmax_minus_labels(model, x, y), rtol=1e-4)


def test_gnorm_is_the_same_for_sparse_labels_and_for_logits():
    x, y = rows(one_hot=False)
    logits = sequential(layers.Dense(3))
    compiled(logits, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    p = scipy.special.softmax(logits.predict(x, verbose=0), axis=1)
    expected = np.linalg.norm(p - np.eye(3)[y], axis=1)
    np.testing.assert_allclose(scored(logits, (x, y)), expected, rtol=1e-4)


def test_gnorm_of_sigmoid_and_binary_cross_entropy_is_the_distance_per_unit():
    x, y = rows()
    model = compiled(sequential(layers.Dense(3, activation="sigmoid")), "binary_crossentropy")
    # The loss is a mean over three units.
    np.testing.assert_allclose(scored(model, (x, y)), softmax_minus_labels(model, x, y) / 3, rtol=1e-4)


def test_gnorm_of_a_linear_output_with_squared_error_is_twice_the_distance_per_unit():
    x, y = rows()
    model = compiled(sequential(layers.Dense(3)), "mse")
    np.testing.assert_allclose(scored(model, (x, y)), softmax_minus_labels(model, x, y) * 2 / 3, rtol=1e-4)


def test_gnorm_is_taken_at_the_arguments_of_the_last_activation():
    x, y = rows()
    model = compiled(sequential(layers.Dense(3, activation="tanh")), "mse")
    p = model.predict(x, verbose=0)
    expected = np.linalg.norm((p - y) * 2 / 3 * (1 - p * p), axis=1)
    np.testing.assert_allclose(scored(model, (x, y)), expected, rtol=1e-3)


@pytest.mark.parametrize(
    "last", [lambda: layers.Dense(3, activation="softmax"), lambda: layers.TimeDistributed(layers.Dense(3, "softmax"))]
)
def test_gnorm_of_sequences_takes_all_time_steps_together(last):
    x, y = sequences()
    model = compiled(sequential(last(), shape=(TIME, 4)), "sparse_categorical_crossentropy")
    p = model.predict(x, verbose=0)
    expected = np.sqrt(np.square((p - np.eye(3)[y]) / TIME).sum(axis=(1, 2)))
    np.testing.assert_allclose(scored(model, (x, y)), expected, rtol=1e-4)


def test_sample_weights_of_every_shape_that_keras_accepts_scale_the_score():
    x, y = rows(one_hot=False)
    weights = np.array([0.5, 0.0, 2.0, 1.0, 3.0, 0.1], "float32")
    model = compiled(sequential(layers.Dense(3, activation="softmax")), "sparse_categorical_crossentropy")
    plain = scored(model, (x, y))
    np.testing.assert_allclose(scored(model, (x, y, weights)), plain * weights, rtol=1e-4)
    np.testing.assert_allclose(scored(model, (x, y, weights[:, None])), plain * weights, rtol=1e-4)


def test_sample_weights_of_time_steps_scale_the_score_of_a_sequence():
    x, y = sequences()
    model = compiled(
        sequential(layers.Dense(3, activation="softmax"), shape=(TIME, 4)), "sparse_categorical_crossentropy"
    )
    by_step = np.outer([0.5, 0.0, 2.0, 1.0, 3.0, 0.1], [1, 2, 0, 1, 1, 3]).astype("float32")
    p = model.predict(x, verbose=0)
    expected = np.sqrt(np.square((p - np.eye(3)[y]) * by_step[..., None] / TIME).sum(axis=(1, 2)))
    np.testing.assert_allclose(scored(model, (x, y, by_step)), expected, rtol=1e-4, atol=1e-7)


def two_outputs():
    inputs = keras.Input((4,))
    return compiled(
        keras.Model(inputs, [layers.Dense(3, "softmax")(inputs), layers.Dense(2)(inputs)]),
        ["categorical_crossentropy", "mse"],
        loss_weights=[1.0, 0.25],
    )


def test_scores_of_two_outputs_are_combined_with_their_loss_weights():
    x, y = rows()
    target = rng().normal(size=(ROWS, 2)).astype("float32")
    model = two_outputs()
    p, q = model.predict(x, verbose=0)
    expected = np.sqrt(np.square(p - y).sum(1) + np.square(0.25 * (q - target)).sum(1))
    np.testing.assert_allclose(scored(model, (x, [y, target])), expected, rtol=1e-4)
    losses = -np.log((p * y).sum(1)) + 0.25 * np.square(q - target).mean(1)
    np.testing.assert_allclose(scored(model, (x, [y, target]), "loss"), losses, rtol=1e-4)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum"])
def test_loss_is_the_loss_of_each_sample_under_any_reduction(reduction):
    x, y = rows()
    model = compiled(
        sequential(layers.Dense(3, activation="softmax")), keras.losses.CategoricalCrossentropy(reduction=reduction)
    )
    expected = -np.log((model.predict(x, verbose=0) * y).sum(1))
    np.testing.assert_allclose(scored(model, (x, y), "loss"), expected, rtol=1e-4)
    np.testing.assert_allclose(scored(model, (x, y)), softmax_minus_labels(model, x, y), rtol=1e-4)


@pytest.mark.parametrize("regulariser", [None, "l2"])
def test_full_gnorm_is_the_norm_over_all_weights(regulariser):
    x, y = rows()
    model = compiled(sequential(layers.Dense(3, activation="softmax")), "categorical_crossentropy")
    expected = one_by_one(model, (x, y))
    if regulariser:  # which pulls all samples' gradients alike, and says nothing of any
        weights = model.get_weights()
        model = compiled(
            sequential(layers.Dense(3, activation="softmax", kernel_regularizer="l2")), "categorical_crossentropy"
        )
        model.set_weights(weights)
    np.testing.assert_allclose(scored(model, (x, y), "full_gnorm", slice_size=4), expected, rtol=1e-3)


def test_a_callable_is_used_as_score():
    x, y = rows()
    model = compiled(sequential(layers.Dense(3, activation="softmax")), "categorical_crossentropy")
    scores = scored(model, (x, y), lambda model, x, y: keras.ops.sum(keras.ops.abs(x), axis=1), slice_size=4)
    np.testing.assert_allclose(scores, np.abs(x).sum(1), rtol=1e-5)


def test_a_callable_score_of_another_shape_is_refused():
    x, y = rows()
    model = compiled(sequential(layers.Dense(3, activation="softmax")), "categorical_crossentropy")
    with pytest.raises(ValueError, match=r"one number per sample.*shape \(\) for 6 samples"):
        scored(model, (x, y), lambda model, x, y: keras.ops.sum(x))


def test_gnorm_at_another_layer_is_found_by_the_layer_its_name_and_its_index():
    x, y = rows()
    model = compiled(sequential(layers.Dense(3, activation="softmax")), "categorical_crossentropy")
    hidden = model.layers[0]
    w = np.asarray(model.layers[-1].kernel)
    h = keras.Model(model.inputs[0], hidden.output).predict(x, verbose=0)
    expected = np.linalg.norm(((model.predict(x, verbose=0) - y) @ w.T) * (1 - h * h), axis=1)
    for layer in (hidden, hidden.name, 0):
        np.testing.assert_allclose(scored(model, (x, y), layer=layer), expected, rtol=1e-3)
    with pytest.raises(ValueError, match=r"`layer` must be a layer of the model.*Received: layer='nowhere'"):
        Logits(model, "nowhere")


def masked_model():
    return compiled(
        keras.Sequential(
            [
                keras.Input((TIME,), dtype="int32"),
                layers.Embedding(7, 4, mask_zero=True),
                layers.SimpleRNN(3, return_sequences=True),
                layers.Dense(3, activation="softmax"),
            ]
        ),
        "sparse_categorical_crossentropy",
    )


@pytest.mark.parametrize("score", ["gnorm", "loss", "full_gnorm"])
@pytest.mark.slow
def test_scores_computed_in_slices_are_those_of_the_whole_pool_with_and_without_masks(score):
    lengths = np.array([1, 6, 2, 5, 3, 4])
    tokens = np.where(np.arange(TIME) < lengths[:, None], rng().integers(1, 7, (ROWS, TIME)), 0)
    dense = compiled(sequential(layers.Dense(3, activation="softmax")), "categorical_crossentropy")
    masked = masked_model(), (tokens, sequences()[1]), (4,), 1e-3  # slow to compile; 4 leaves a rest of 2
    for model, data, sizes, tolerance in ((dense, rows(), (1, 4), 1e-4), masked):
        whole = scored(model, data, score)
        for slice_size in sizes:
            np.testing.assert_allclose(scored(model, data, score, slice_size=slice_size), whole, rtol=tolerance)


def test_scores_in_half_precision_are_close_to_those_in_single_precision_and_positive():
    x, y = rows()
    single = compiled(sequential(layers.Dense(3, activation="softmax")), "categorical_crossentropy")
    normal = np.random.default_rng(7).normal
    # Confident: some probabilities are 1 within float16's rounding.
    weights = [normal(size=(4, 5)), np.zeros(5), 4 * normal(size=(5, 3)), np.zeros(3)]
    single.set_weights(weights)
    y = keras.utils.to_categorical(single.predict(x, verbose=0).argmax(1), 3)
    with dtype_policy("mixed_float16"):
        half = compiled(sequential(layers.Dense(3, activation="softmax")), "categorical_crossentropy")
    half.set_weights(weights)
    expected = scored(single, (x, y))
    assert 1e-6 < expected.min() < 1e-3
    scores = scored(half, (x, y))
    assert (scores > 0).all()
    np.testing.assert_allclose(scores, expected, rtol=0.3)


def test_scoring_changes_no_variable_and_no_attribute_of_the_model():
    inputs = keras.Input((4,))
    hidden = layers.Dropout(0.5)(layers.BatchNormalization()(inputs))
    model = compiled(
        keras.Model(inputs, [layers.Dense(3, "softmax")(hidden), layers.Dense(2)(hidden)]),
        ["categorical_crossentropy", "mse"],
        metrics=[["accuracy"], ["mae"]],
    )
    x, y = rows()
    data = (x, [y, rng().normal(size=(ROWS, 2)).astype("float32")])
    scored(model, data)  # builds
    variables = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    assert any("loss" in v.path for v in variables)
    before = [host(v) for v in variables]
    kept = [dict(vars(layer)) for layer in keras_internals.layers_of(model)]
    for score in ("gnorm", "loss", "full_gnorm"):
        scored(model, data, score)
    for v, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(host(v), value, err_msg=v.path)
    for layer, attributes in zip(keras_internals.layers_of(model), kept, strict=True):
        assert vars(layer).keys() == attributes.keys()
        assert vars(layer).get("activation") is attributes.get("activation")


@pytest.mark.parametrize("score", ["gnorm", "loss", "full_gnorm"])
def test_scoring_leaves_weights_of_masked_time_steps_as_they_are(score):
    tokens = rng().integers(0, 7, (ROWS, TIME))
    weights = rng().uniform(0.5, 2, (ROWS, TIME)).astype("float32")
    data = tuple(map(keras.ops.convert_to_tensor, (tokens, sequences()[1], weights.copy())))
    scored(masked_model(), data, score)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(data[2]), weights)


def test_probabilities_without_logits_are_scored_with_a_warning():
    x, y = rows()
    inputs = keras.Input((4,))
    softmax = layers.Dense(3, activation="softmax")(inputs)
    model = compiled(keras.Model(inputs, layers.Average()([softmax, softmax])), "categorical_crossentropy")
    with pytest.warns(UserWarning, match="at the probabilities that the model returns.*`layer=`") as caught:
        assert (scored(model, (x, y)) > 0).all()
        ImportanceTraining(model, tau_th=0).fit(x, y, batch_size=len(x) // 4, verbose=0)  # where it is compiled
    own = [one for one in caught if "at the probabilities" in str(one.message)]  # PyTorch adds warnings
    assert [one.filename for one in own] == [__file__] * 2


@needs("logits of probabilities")
def test_an_output_without_known_logits_counts_in_the_score_beside_one_with_logits():
    inputs = keras.Input((4,))
    known = layers.Dense(3, "softmax")(inputs)
    unknown = layers.Rescaling(2.0)(layers.Dense(1)(inputs))
    model = keras.Model(inputs, [known, unknown])
    model.compile("sgd", ["sparse_categorical_crossentropy", "mse"])
    x, labels = np.eye(4, dtype="float32"), np.array([0, 1, 2, 0])
    model.train_on_batch(x, [labels, np.zeros((4, 1))])
    scores = [
        scored(model, (x, (labels, np.array(targets))))
        for targets in ([[0.0], [0.0], [0.0], [0.0]], [[0.0], [0.0], [1000.0], [0.0]])
    ]
    np.testing.assert_allclose(scores[0][[0, 1, 3]], scores[1][[0, 1, 3]], rtol=1e-5)
    assert scores[1][2] > 100 * scores[0][2]
