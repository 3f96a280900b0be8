"""The score "full_gnorm": formulas for each kind of layer against gradients of batches of one."""

import keras
import numpy as np
import pytest
from frameworks import gradient_function
from keras import layers, ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.core.logits import Logits
from importance_sampling.core.scoring import Scorer
from importance_sampling.scores import OuterProducts, TokenGradients, convolutions, formulas, register_sample_gradients

ROWS = 3  # as many as positions in some inputs: what mixes them up can't hide behind shapes


def rng(seed=0):
    return np.random.default_rng(seed)


def randomised(model):
    """Give each weight of a model random values."""
    for i, weight in enumerate(model.weights):
        value = rng(i).normal(size=weight.shape) * 0.6
        weight.assign(np.abs(value) + 0.5 if "variance" in weight.path else value)
    return model


def scored(model, data):
    """The exact norms of samples, computed eagerly: compiling would take longer."""
    data = keras.tree.map_structure(ops.convert_to_tensor, tuple(data))
    keras_internals.build_on_batch(model, data)
    data += (None,) * (3 - len(data))
    return ops.convert_to_numpy(Scorer(model, "full_gnorm", Logits(model, warns=False))(data).scores)


def one_by_one(model, data):
    """|d(loss of a sample alone) / d(weights)|, by the framework's own gradient."""
    compute = gradient_function(
        lambda x, y, *weight: model.compute_loss(x, y, model(x, training=False), *weight),
        model.trainable_variables,
        constants=len(data),
    )
    gradients = [compute(*(array[i : i + 1] for array in data)) for i in range(len(data[0]))]
    return np.array([np.sqrt(sum(np.sum(np.square(part)) for part in parts)) for parts in gradients])


def with_data(output, inputs, loss="mse"):
    """A compiled model with random weights, and random data for it."""
    model = randomised(keras.Model(inputs, output))
    model.compile("sgd", loss)
    shape = (ROWS, *inputs.shape[1:])
    x = rng(7).integers(0, 4, shape) if "int" in inputs.dtype else rng(7).normal(size=shape).astype("float32")
    return model, (x, rng(8).normal(size=(ROWS, *output.shape[1:])).astype("float32"))


def check(model, data):
    np.testing.assert_allclose(scored(model, data), one_by_one(model, data), rtol=1e-4)


@pytest.fixture
def by_sample(monkeypatch):
    """The paths of the weights that were differentiated for each sample."""
    paths, run = [], backend.per_sample_grad_norms

    def record(sample_loss, samples, weights, vectorised):
        paths.extend(weight.path for weight in weights)
        return run(sample_loss, samples, weights, vectorised)

    monkeypatch.setattr(backend, "per_sample_grad_norms", record)
    return paths


@pytest.mark.fast
def test_outer_products_are_added_over_positions_by_both_formulas():
    x = np.array([[[1.0, 2.0], [0.0, 1.0]]], "float32")
    d = np.array([[[3.0], [-1.0]]], "float32")
    # 3 (1, 2) - (0, 1) = (3, 5), from the gradients; with more units and inputs from the products of pairs.
    assert float(OuterProducts((x,), d).squared_norms()[0]) == pytest.approx(34)
    units = np.pad(d, ((0, 0), (0, 0), (0, 9)))
    assert float(OuterProducts((np.pad(x, ((0, 0), (0, 0), (1, 1))),), units).squared_norms()[0]) == pytest.approx(34)
    assert float(OuterProducts((x[..., :1], x[..., 1:]), d).squared_norms()[0]) == pytest.approx(34)
    # At one position: (1 + 4) 9; two calls of a layer are two positions.
    first, second = OuterProducts((x[:, :1],), d[:, :1]), OuterProducts((x[:, 1:],), d[:, 1:])
    assert float(first.squared_norms()[0]) == pytest.approx(45)
    assert float(OuterProducts.sum([first, second]).squared_norms()[0]) == pytest.approx(34)


@pytest.mark.fast
def test_token_gradients_are_added_for_equal_tokens_of_a_sample():
    tokens = np.array([[7, 2, 7], [7, 7, 7]])
    d = np.array([[[1.0], [4.0], [2.0]], [[1.0], [-3.0], [5.0]]], "float32")
    part = TokenGradients(tokens, d)
    np.testing.assert_allclose(part.squared_norms(), [(1 + 2) ** 2 + 4**2, (1 - 3 + 5) ** 2])
    np.testing.assert_allclose(TokenGradients.sum([part, part]).squared_norms(), [4 * 25, 4 * 9])
    # With as many features as positions from the products of pairs; the features (1, 2, 2) multiply the norm by 3.
    np.testing.assert_allclose(TokenGradients(tokens, d * np.float32([1, 2, 2])).squared_norms(), [9 * 25, 9 * 9])


KINDS = {
    layers.Dense: lambda: [((4,), layers.Dense(2, "tanh")), ((3, 2), layers.Dense(2))],
    layers.EinsumDense: lambda: [
        ((3, 2), layers.EinsumDense("abc,cde->abde", (3, 2, 2), bias_axes="de", activation="tanh")),
        ((3, 2), layers.EinsumDense("bgd,gdp->bgp", (3, 2), bias_axes="p")),
        ((3, 2), layers.EinsumDense("...x,xy->...y", (4,))),
    ],
    layers.MultiHeadAttention: lambda: [((3, 4), layers.MultiHeadAttention(2, 2))],
    layers.Embedding: lambda: [((5,), layers.Embedding(4, 2))],
    layers.Conv1D: lambda: [((6, 2), layers.Conv1D(3, 3, padding="causal", dilation_rate=2, activation="tanh"))],
    layers.Conv2D: lambda: [
        ((5, 4, 2), layers.Conv2D(3, (3, 2), 2, "same", activation="tanh")),
        ((4, 4, 4), layers.Conv2D(2, 3, groups=2)),
        ((7, 9, 2), layers.Conv2D(3, (2, 3), (2, 4))),  # the last entries of the inputs are left over
        ((5, 7, 2), layers.Conv2D(3, 1, (3, 2))),
    ],
    layers.Conv3D: lambda: [((3, 2, 2, 2), layers.Conv3D(2, 2, padding="same"))],
    layers.DepthwiseConv1D: lambda: [((6, 2), layers.DepthwiseConv1D(3, 2, depth_multiplier=2))],
    layers.DepthwiseConv2D: lambda: [((4, 4, 2), layers.DepthwiseConv2D(3, padding="same", activation="tanh"))],
    layers.SeparableConv1D: lambda: [((6, 2), layers.SeparableConv1D(3, 3, dilation_rate=2, activation="tanh"))],
    layers.SeparableConv2D: lambda: [((4, 4, 2), layers.SeparableConv2D(3, 3, 2, "same", depth_multiplier=2))],
    layers.LayerNormalization: lambda: [
        ((3, 2), layers.LayerNormalization()),
        ((3, 2), layers.LayerNormalization(axis=[1, 2])),
    ],
    layers.GroupNormalization: lambda: [((3, 4), layers.GroupNormalization(2))],
    layers.BatchNormalization: lambda: [
        ((3, 2), layers.BatchNormalization()),
        ((2,), layers.BatchNormalization(scale=False)),
    ],
    layers.SimpleRNN: lambda: [((3, 2), layers.SimpleRNN(2))],
    layers.LSTM: lambda: [((3, 2), layers.Bidirectional(layers.LSTM(2, return_sequences=True)))],
    layers.GRU: lambda: [((3, 2), layers.GRU(2)), ((3, 2), layers.GRU(2, reset_after=False, go_backwards=True))],
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_layer_has_the_norms_of_batches_of_one(kind, by_sample):
    for shape, layer in KINDS[kind]():
        inputs = keras.Input(shape, dtype="int32" if kind is layers.Embedding else "float32")
        output = layer(inputs, inputs) if kind is layers.MultiHeadAttention else layer(inputs)
        check(*with_data(output, inputs))
    assert by_sample == []


@pytest.mark.fast
def test_every_formula_is_tested():
    of_keras = {kind for kind in formulas.FORMULAS if kind.__module__.startswith("keras.")}  # others are of examples
    assert of_keras <= set(KINDS)


@pytest.mark.fast
def test_a_wrong_formula_is_noticed_by_these_tests(monkeypatch):
    model, data = with_data(layers.Dense(2)(inputs := keras.Input((4,))), inputs)
    expected = one_by_one(model, data)
    formula = formulas.FORMULAS[layers.Dense]
    for wrong in (
        lambda layer, x, d: formula.gradients(layer, ops.flip(x, axis=0), d),
        lambda layer, x, d: formula.gradients(layer, x, 1.001 * d),
        lambda layer, x, d: [(layer.kernel, 0.0 * d), *formula.gradients(layer, x, d)[1:]],
    ):
        monkeypatch.setitem(formulas.FORMULAS, layers.Dense, formula._replace(gradients=wrong))
        assert not np.allclose(scored(model, data), expected, rtol=1e-4, atol=0)


def test_gradients_are_added_for_a_layer_that_is_called_twice(by_sample):
    inputs = keras.Input((3,))
    dense = layers.Dense(3, "tanh")
    check(*with_data(dense(dense(inputs)), inputs))
    tokens = keras.Input((3,), dtype="int32")
    embedding = layers.Embedding(4, 3)
    check(*with_data(layers.Add()([embedding(tokens), layers.Dense(3)(embedding(layers.Identity()(tokens)))]), tokens))
    assert by_sample == []


def test_gradients_of_a_convolution_are_added_over_its_calls_in_slices_of_samples(by_sample, monkeypatch):
    monkeypatch.setattr(convolutions, "SLICE", 2)
    inputs = keras.Input((4, 4, 2))
    convolution = layers.Conv2D(2, 3, padding="same", activation="tanh")
    check(*with_data(convolution(inputs), inputs))
    check(*with_data(convolution(convolution(inputs)), inputs))
    assert by_sample == []


class Tied(layers.Layer):
    """Multiplies by the table of an embedding, as the output layer of a language model does."""

    def __init__(self, embedding):
        super().__init__()
        self.embedding = embedding

    def call(self, inputs):
        return ops.matmul(inputs, ops.transpose(self.embedding.embeddings))


class Positions(layers.Layer):
    """Adds the embedding of its position, which has no samples, to that of each token."""

    def __init__(self):
        super().__init__()
        self.tokens, self.positions = layers.Embedding(4, 2), layers.Embedding(ROWS, 2)

    def build(self, shape):
        self.tokens.build(shape)
        self.positions.build((ROWS,))

    def call(self, inputs):
        return self.tokens(inputs) + self.positions(ops.arange(ROWS))


class OwnWeightAround(layers.Layer):
    """Has a weight of its own without a formula, and calls a layer that has one too."""

    def __init__(self):
        super().__init__()
        self.inner = layers.PReLU()

    def build(self, shape):
        self.inner.build(shape)
        self.scale = self.add_weight(shape=(shape[-1],))

    def call(self, inputs):
        return self.inner(inputs) * self.scale


class ReadsAndCalls(layers.Layer):
    """Reads the kernel of a layer, and calls that layer."""

    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(2)

    def build(self, shape):
        self.inner.build(shape)

    def call(self, inputs):
        return ops.matmul(inputs, self.inner.kernel) + self.inner(inputs)


@pytest.mark.parametrize("layer", [OwnWeightAround, ReadsAndCalls])
def test_a_weight_that_is_used_inside_and_outside_of_a_call_counts_once(layer):
    inputs = keras.Input((4,))
    check(*with_data(layer()(inputs), inputs))


def test_a_model_that_multiplies_by_its_own_embedding_has_exact_norms():
    class LanguageModel(keras.Model):
        def __init__(self):
            super().__init__()
            self.embedding, self.hidden = layers.Embedding(4, 2), layers.Dense(2, "tanh")

        def call(self, tokens):
            return ops.matmul(self.hidden(self.embedding(tokens)), ops.transpose(self.embedding.embeddings))

    model, tokens = LanguageModel(), rng(7).integers(0, 4, (ROWS, 3))
    model(tokens)
    randomised(model).compile("sgd", "mse")
    check(model, (tokens, rng(8).normal(size=(ROWS, 3, 4)).astype("float32")))


class ReadsRecurrentKernel(layers.Layer):
    """Multiplies by the recurrent kernel of another layer."""

    def __init__(self, recurrent):
        super().__init__()
        self.recurrent = recurrent

    def call(self, inputs):
        return ops.matmul(inputs, self.recurrent.cell.recurrent_kernel[:, :2])


@pytest.mark.parametrize("kind", [layers.SimpleRNN, layers.LSTM, layers.GRU])
def test_a_recurrent_kernel_that_another_layer_reads_has_exact_norms(kind):
    inputs = keras.Input((3, 2))
    recurrent = kind(2)
    check(*with_data(ReadsRecurrentKernel(recurrent)(recurrent(inputs)), inputs))


class ScaledAfterwards(layers.Dense):
    """Reads a weight after its activation."""

    def build(self, shape):
        super().build(shape)
        self.scale = self.add_weight(shape=(self.units,))

    def call(self, inputs):
        return super().call(inputs) * self.scale


def test_a_weight_without_a_formula_that_is_read_after_the_tapped_tensor_has_exact_norms(monkeypatch):
    monkeypatch.setattr(formulas, "FORMULAS", dict(formulas.FORMULAS))
    register_sample_gradients(ScaledAfterwards, pre_activation=True)(formulas.FORMULAS[layers.Dense].gradients)
    inputs = keras.Input((3,))
    check(*with_data(ScaledAfterwards(2, "tanh")(inputs), inputs))


def test_a_weight_that_two_layers_share_is_differentiated_by_sample(by_sample):
    tokens = keras.Input((3,), dtype="int32")
    embedding = layers.Embedding(4, 2)
    model, data = with_data(Tied(embedding)(layers.Dense(2, "tanh")(embedding(tokens))), tokens)
    check(model, data)
    assert by_sample == [embedding.embeddings.path]


def test_a_layer_without_samples_is_differentiated_with_the_layer_that_calls_it(by_sample):
    tokens = keras.Input((ROWS,), dtype="int32")  # as many positions as samples
    check(*with_data(layers.Dense(2)(Positions()(tokens)), tokens))
    assert len(by_sample) == 1  # the positions; the tokens have samples


class Loop(layers.Layer):
    """Applies a dense layer in a loop, which a backend may compile."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2, "tanh")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, inputs):
        return ops.vectorized_map(lambda row: self.dense(row[None])[0], inputs)


FALLBACKS = {
    "no formula": lambda inputs: layers.PReLU()(layers.Dense(2)(inputs)),
    "an override of call": lambda inputs: Doubled(2)(inputs),
    "a loop": lambda inputs: Loop()(inputs),
    "probabilities with logits": lambda inputs: Softmax()(inputs),
}


class Doubled(layers.Dense):
    def call(self, inputs):
        return super().call(2.0 * inputs)


class Softmax(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],))

    def call(self, inputs):
        return keras.activations.softmax(inputs * self.scale)


@pytest.mark.parametrize("case", FALLBACKS)
def test_other_weights_are_differentiated_by_sample_alone(case, by_sample):
    inputs = keras.Input((3,))
    loss = "categorical_crossentropy" if case == "probabilities with logits" else "mse"
    check(*with_data(FALLBACKS[case](inputs), inputs, loss))
    assert 0 < len(by_sample) <= 2


def test_masks_of_inputs_reach_layers_that_are_computed_again(by_sample):
    tokens = keras.Input((3,), dtype="int32")
    cells = layers.RNN([layers.SimpleRNNCell(2), layers.SimpleRNNCell(2)])
    model, (_, y) = with_data(cells(layers.Embedding(4, 2, mask_zero=True)(tokens)), tokens)
    check(model, (np.array([[0, 1, 2], [3, 0, 1], [2, 0, 0]]), y))
    assert len([path for path in by_sample if "simple_rnn_cell" in path]) == 6


class Scale(layers.Layer):
    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, inputs):
        return inputs * self.factor


def test_a_user_registers_a_formula_for_a_layer(by_sample, monkeypatch):
    monkeypatch.setattr(formulas, "FORMULAS", dict(formulas.FORMULAS))

    @register_sample_gradients(Scale)
    def scale_gradients(layer, inputs, gradient):
        return [(layer.factor, ops.sum(inputs * gradient, axis=1))]

    inputs = keras.Input((3, 2))
    check(*with_data(Scale()(layers.Dense(2)(inputs)), inputs))
    assert by_sample == []

    @register_sample_gradients(layers.Dense, pre_activation=True)
    def wrong(layer, inputs, gradient):
        return [(layer.kernel, 0.0 * gradient), (layer.bias, 0.0 * gradient)]

    model, data = with_data(layers.Dense(2)(inputs), inputs)
    np.testing.assert_array_equal(scored(model, data), 0)  # the last registration counts
    with pytest.raises(
        ValueError, match=r"`layer_class` must be a subclass of `keras.Layer`.*Received: layer_class=<func"
    ):
        register_sample_gradients(wrong)


def test_frozen_weights_and_weights_that_the_loss_does_not_reach_count_nothing():
    inputs = keras.Input((3,))
    frozen, last = layers.Dense(4, "tanh", trainable=False), layers.Dense(2)
    hidden = frozen(inputs)
    output = last(hidden) + ops.stop_gradient(layers.Dense(2)(layers.PReLU()(inputs)))
    model, (x, y) = with_data(output, inputs)
    d = model.predict(x, verbose=0) - y  # of the mean of two squares
    h = keras.Model(inputs, hidden).predict(x, verbose=0)
    expected = np.linalg.norm(d, axis=1) * np.sqrt(1 + np.square(h).sum(axis=1))
    np.testing.assert_allclose(scored(model, (x, y)), expected, rtol=1e-4)
    last.trainable = False
    model.compile("sgd", "mse")
    np.testing.assert_array_equal(scored(model, (x, y)), 0)


class Subclassed(keras.Model):
    """Calls layers in a nested model, and reads a weight itself."""

    def __init__(self):
        super().__init__()
        self.inner = keras.Sequential([layers.Dense(3, "tanh"), layers.Dense(2)])
        self.scale = self.add_weight(shape=(2,), name="scale")

    def call(self, x):
        return self.inner(x) * self.scale


def test_layers_are_found_while_a_subclassed_model_is_called(by_sample):
    model = Subclassed()
    x, y = rng().normal(size=(ROWS, 4)).astype("float32"), rng(1).normal(size=(ROWS, 2)).astype("float32")
    model(x)
    randomised(model).compile("sgd", "mse")
    check(model, (x, y))
    assert by_sample == [model.scale.path]


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum"])
def test_two_outputs_and_sample_weights_scale_the_norms_under_any_reduction(reduction):
    inputs = keras.Input((3, 2))
    hidden = layers.Dense(3, "tanh")(inputs)
    outputs = [layers.Dense(2, "softmax")(hidden), layers.Dense(1, kernel_regularizer="l2")(layers.Flatten()(hidden))]
    model = randomised(keras.Model(inputs, outputs))
    losses = [
        keras.losses.CategoricalCrossentropy(reduction=reduction),
        keras.losses.MeanSquaredError(reduction=reduction),
    ]
    model.compile("sgd", losses, loss_weights=[0.3, 2.0])
    x, y = rng().normal(size=(ROWS, 3, 2)), np.eye(2)[rng().integers(0, 2, (ROWS, 3))]
    data = [x.astype("float32"), [y.astype("float32"), rng(1).normal(size=(ROWS, 1)).astype("float32")]]
    plain, weights = scored(model, data), np.array([0.5, 3.0, 0.0], "float32")
    np.testing.assert_allclose(scored(model, [*data, [weights[:, None], weights]]), plain * weights, rtol=1e-4)
    # A single sample is scored by the gradient of its loss, not by formulas.
    ones = [keras.tree.map_structure(lambda array, i=i: array[i : i + 1], data) for i in range(ROWS)]
    np.testing.assert_allclose(np.concatenate([scored(model, one) for one in ones]), plain, rtol=1e-4)


def test_a_masked_sequence_counts_by_its_share_of_the_valid_entries():
    tokens = keras.Input((4,), dtype="int32")
    hidden = layers.LSTM(2, return_sequences=True)(layers.Embedding(4, 2, mask_zero=True)(tokens))
    model, (_, y) = with_data(layers.Dense(2)(hidden), tokens)
    x = np.array([[1, 2, 0, 0], [0, 3, 3, 1], [2, 0, 0, 0]])
    lengths = np.array([2, 3, 1])  # the loss of a batch of one is divided by its own length
    expected = one_by_one(model, (x, y)) * lengths / lengths.mean()
    np.testing.assert_allclose(scored(model, (x, y)), expected, rtol=1e-4)


@pytest.mark.parametrize("policy, unit", [("mixed_float16", 2**-11), ("mixed_bfloat16", 2**-8)])
def test_half_precision_has_the_norms_of_batches_of_one_and_of_single_precision_within_its_rounding(policy, unit):
    def build(dtype):
        inputs = keras.Input((6, 6, 2))
        hidden = layers.Conv2D(4, 3, activation="tanh", dtype=dtype)(inputs)
        hidden = layers.LayerNormalization(dtype=dtype)(layers.Reshape((16, 4))(hidden))
        return with_data(layers.Dense(2, dtype=dtype)(layers.Flatten()(hidden)), inputs)

    single, data = build("float32")
    half, _ = build(policy)
    norms = scored(half, data)
    np.testing.assert_allclose(norms, one_by_one(half, data), rtol=2 * unit)  # whose gradients are rounded as well
    np.testing.assert_allclose(norms, scored(single, data), rtol=4 * unit)


class ReadingLoss(keras.Model):
    def compute_loss(self, x, y, y_pred, *args, **kwargs):
        return super().compute_loss(x, y, y_pred, *args, **kwargs) * ops.sum(ops.square(self.layers[-1].bias))


def test_a_loss_that_depends_on_weights_is_differentiated_for_each_sample(by_sample):
    inputs = keras.Input((4,))
    model = ReadingLoss(inputs, layers.Dense(2)(inputs))
    randomised(model).compile("sgd", "mse")
    check(model, with_data(layers.Dense(2)(inputs), inputs)[1])
    assert len(by_sample) == 2


def test_the_model_is_called_once_per_pool_and_once_on_one_sample_per_signature(monkeypatch):
    inputs = keras.Input((4,))
    model, (x, y) = with_data(layers.Dense(2)(inputs), inputs)
    rows, call = [], layers.Dense.call
    monkeypatch.setattr(
        layers.Dense, "call", lambda self, x, **options: rows.append(x.shape[0]) or call(self, x, **options)
    )
    keras_internals.build_on_batch(model, (x, y))
    scorer, rows[:] = Scorer(model, "full_gnorm", Logits(model)), []
    data = ops.convert_to_tensor(x), ops.convert_to_tensor(y), None
    first, second = (ops.convert_to_numpy(scorer(data).scores) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    traces = 2 if keras.config.backend() == "jax" else 1  # JAX looks for the tapped tensors before
    assert rows == [1] + [ROWS] * 2 * traces
