"""Situations from scripts and bug trackers: models, losses, data and callbacks that people put together.

Each function builds a `Setup` from the seed that is set ahead of it. `SITUATIONS` says of each if it is
importance-sampled or trained as `model.fit` trains it, and if its rows can be asked for by index.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
from frameworks import HAS_TENSORFLOW, dtype_policy, lacks, several, tf, value_and_gradients
from keras import layers, ops
from ways import Setup

N = 160


@dataclasses.dataclass(frozen=True)
class Situation:
    """A row of the table."""

    build: Callable[[], Setup]
    sampled: bool
    rows: bool
    feature: str | None


SITUATIONS: dict[str, Situation] = {}


def situation(sampled: bool = True, rows: bool = True, feature: str | None = None) -> Callable:
    """Enter a function into the table.

    Args:
        sampled: True (default) if the open ways take importance steps; False if one warning says why they can't.
        rows: True (default) if the data's rows can be asked for by index.
        feature: what Keras must have for it, see `frameworks.LACKING`; None (default): nothing that a backend lacks.
    """

    def enter(build: Callable[[], Setup]) -> Callable[[], Setup]:
        SITUATIONS[build.__name__] = Situation(build, sampled, rows, feature)
        return build

    return enter


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def table(rows: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Eight columns, three classes."""
    x = numbers(rows, 8)
    return x, x[:, :3].argmax(1)


def images(rows: int = N, side: int = 8, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Pictures brighter on the left or on the right."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, rows)
    x = rng.integers(0, 128, (rows, side, side, channels))
    x[y == 0, :, : side // 2] += 100
    x[y == 1, :, side // 2 :] += 100
    return x.astype("uint8"), y


def words() -> tuple[np.ndarray, np.ndarray]:
    """Sentences of up to seven of eleven words, padded with zeros, and how long each is."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 8, N)
    return rng.integers(1, 12, (N, 7)) * (np.arange(7) < lengths[:, None]), lengths


def perceptron(*more: keras.Layer, outputs: int = 3, activation: str | None = "softmax") -> keras.Sequential:
    hidden = layers.Dense(16, activation="relu")
    return keras.Sequential([keras.Input((8,)), hidden, *more, layers.Dense(outputs, activation=activation)])


def adam(**options) -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(**{"learning_rate": 1e-3, **options})


def sgd() -> keras.optimizers.Optimizer:
    """Where another optimizer would do as well: its step is traced sooner than Adam's."""
    return keras.optimizers.SGD(1e-2)


# Architectures


@situation()
def unet_with_weights_per_pixel():
    x = images(96, 16)[0] / np.float32(255)
    y = (x[..., 0] > 0.5).astype("int32")
    inputs = keras.Input((16, 16, 1))
    one = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    two = layers.Conv2D(8, 3, padding="same")(layers.MaxPooling2D()(one))
    two = layers.Activation("relu")(layers.BatchNormalization()(two))
    three = layers.Dropout(0.1)(layers.Conv2D(8, 3, padding="same", activation="relu")(layers.MaxPooling2D()(two)))
    up = layers.Concatenate()([layers.Conv2DTranspose(8, 2, strides=2, padding="same")(three), two])
    up = layers.Concatenate()([layers.UpSampling2D()(layers.Conv2D(4, 3, padding="same", activation="relu")(up)), one])
    model = keras.Model(inputs, layers.Conv2D(2, 1, activation="softmax")(up))
    weights = np.where(y == 1, 2.0, 0.5).astype("float32")
    if lacks("classes of pixels"):
        loss, y = "categorical_crossentropy", keras.utils.to_categorical(y)
    else:
        loss, y = "sparse_categorical_crossentropy", y[..., None]
    model.compile(adam(), loss, metrics=["accuracy"])
    return Setup(model, dict(x=x, y=y, sample_weight=weights, batch_size=16, epochs=2))


@situation()
def transformer_with_padding_masks():
    x, lengths = words()
    inputs = keras.Input((None,), dtype="int32")
    h = layers.Embedding(12, 8, mask_zero=True)(inputs)
    attended = layers.MultiHeadAttention(2, 4, dropout=0.1)(h, h)
    h = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([h, attended]))
    fed = layers.Dense(8)(layers.Dense(16, activation="gelu")(h))
    h = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([h, fed]))
    h = layers.GlobalAveragePooling1D()(h)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.Dropout(0.1)(h)))
    model.compile(keras.optimizers.AdamW(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Setup(model, dict(x=x, y=lengths % 3, batch_size=16, epochs=2))


@situation()
def causal_language_model():
    x, _ = words()
    inputs = keras.Input((7,), dtype="int32")
    h = layers.Embedding(12, 8, mask_zero=True)(inputs)
    h = h + ops.stop_gradient(layers.Embedding(7, 8)(ops.arange(7)))  # a constant of the graph of layers
    h = layers.LayerNormalization()(h + layers.MultiHeadAttention(2, 4)(h, h, use_causal_mask=True))
    model = keras.Model(inputs, layers.Dense(12)(h))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    model.compile(sgd(), loss, weighted_metrics=["accuracy"])
    return Setup(model, dict(x=x, y=np.roll(x, -1, axis=1), batch_size=16, epochs=2))


@situation()
def frozen_mobilenet_under_a_new_head():
    x, y = images(48, 32, 3)
    base = keras.applications.MobileNet(weights=None, alpha=0.25, input_shape=(32, 32, 3), include_top=False)
    base.trainable = False
    inputs = keras.Input((32, 32, 3))
    h = base(layers.Rescaling(1 / 127.5, offset=-1)(inputs), training=False)
    h = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(h))
    model = keras.Model(inputs, layers.Dense(1)(h))
    model.compile(adam(), keras.losses.BinaryCrossentropy(from_logits=True), metrics=[keras.metrics.BinaryAccuracy()])
    return Setup(model, dict(x=x, y=y, batch_size=8, epochs=2))


@situation()
def siamese_network():
    left, _ = table()
    right = np.where(np.arange(N)[:, None] % 2 == 0, left, numbers(N, 8, seed=1)).astype("float32")
    encoder = keras.Sequential([keras.Input((8,)), layers.Dense(8, activation="relu"), layers.Dense(4)], name="encoder")
    a, b = keras.Input((8,)), keras.Input((8,))
    distance = layers.Lambda(lambda pair: ops.abs(pair[0] - pair[1]), output_shape=(4,))([encoder(a), encoder(b)])
    model = keras.Model([a, b], layers.Dense(1, activation="sigmoid")(distance))
    model.compile(sgd(), "binary_crossentropy", metrics=["accuracy"])
    return Setup(model, dict(x=[left, right], y=(np.arange(N) % 2 == 0), batch_size=16, epochs=2))


@situation()
def sequence_to_sequence_with_teacher_forcing():
    x, _ = words()
    source, target = keras.Input((7,), dtype="int32", name="source"), keras.Input((7,), dtype="int32", name="target")
    _, *state = layers.LSTM(6, return_state=True)(layers.Embedding(12, 6, mask_zero=True)(source))
    h = layers.LSTM(6, return_sequences=True)(layers.Embedding(12, 6, mask_zero=True)(target), initial_state=state)
    model = keras.Model([source, target], layers.TimeDistributed(layers.Dense(12, activation="softmax"))(h))
    model.compile("rmsprop", "sparse_categorical_crossentropy", weighted_metrics=["accuracy"])
    shifted = np.concatenate([np.ones((N, 1), x.dtype), x[:, :-1]], axis=1)
    return Setup(model, dict(x={"source": x, "target": shifted}, y=x, batch_size=16, epochs=2))


@situation()
def matrix_factorisation_with_embeddings():
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 20, N), rng.integers(0, 30, N)
    user, item = keras.Input((1,), dtype="int32"), keras.Input((1,), dtype="int32")
    dot = layers.Dot(2)([layers.Embedding(20, 4)(user), layers.Embedding(30, 4)(item)])
    bias = layers.Add()([dot, layers.Embedding(20, 1)(user), layers.Embedding(30, 1)(item)])
    model = keras.Model([user, item], layers.Flatten()(bias))
    model.compile("sgd", "mse", metrics=["mae"])
    return Setup(model, dict(x=(users[:, None], items[:, None]), y=(users + items) / 25, batch_size=16, epochs=2))


# Outputs and losses


class Both(keras.Model):
    """Outputs by name, one of which has no loss."""

    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(8, activation="relu")
        self.kind, self.size = layers.Dense(3, activation="softmax"), layers.Dense(1)

    def call(self, x):
        h = self.hidden(ops.concatenate([x["a"], x["b"]], axis=-1))
        return {"kind": self.kind(h), "size": self.size(h), "hidden": h}


@situation()
def outputs_by_name_one_without_a_loss():
    x, y = table()
    model = Both()
    model.compile(
        adam(),
        {"kind": "sparse_categorical_crossentropy", "size": keras.losses.Huber(), "hidden": None},
        loss_weights={"kind": 1.0, "size": 0.2, "hidden": 0.0},
        metrics={"kind": ["accuracy"], "size": ["mae"]},
    )
    targets = {"kind": y, "size": x[:, :1], "hidden": np.zeros((N, 8), "float32")}
    return Setup(model, dict(x={"a": x[:, :5], "b": x[:, 5:]}, y=targets, batch_size=16, epochs=2))


class Focal(keras.losses.Loss):
    """A loss that counts its calls and anneals what it does by them, and leaves the values unreduced."""

    def __init__(self):
        super().__init__(reduction=None, name="focal")
        self.calls, self.history = 0, []

    def call(self, y_true, y_pred):
        self.calls += 1
        self.history.append(self.calls)
        right = ops.take_along_axis(y_pred, ops.cast(ops.reshape(y_true, (-1, 1)), "int32"), axis=1)[:, 0]
        return -((1 - right) ** 2) * ops.log(right + 1e-7)


@situation(feature="losses that are not reduced")
def loss_object_with_state_and_no_reduction():
    x, y = table()
    model = perceptron()
    model.compile(sgd(), Focal())
    return Setup(model, dict(x=x, y=y, batch_size=16, epochs=2))


class Sealed(keras.losses.Loss):
    """A loss whose settings can't be changed once it is made."""

    def __init__(self, delta):
        super().__init__(name="sealed")
        self.delta = delta
        self.__dict__["is_sealed"] = True

    def __setattr__(self, name, value):
        if getattr(self, "is_sealed", False):
            raise AttributeError(f"{name} is sealed")
        super().__setattr__(name, value)

    def __delattr__(self, name):
        raise AttributeError(f"{name} is sealed")

    def call(self, y_true, y_pred):
        error = ops.abs(y_true - y_pred)
        return ops.mean(ops.where(error < self.delta, 0.5 * error**2, self.delta * (error - 0.5 * self.delta)), axis=-1)


@situation()
def loss_object_that_forbids_new_attributes():
    x, _ = table()
    model = perceptron(outputs=2, activation=None)
    model.compile(adam(), Sealed(0.5))
    return Setup(model, dict(x=x, y=x[:, :2], batch_size=16, epochs=2))


@situation()
def quantile_losses_in_a_lambda():
    x, _ = table()
    model = perceptron(outputs=3, activation=None)
    quantiles = ops.convert_to_tensor(np.array([0.1, 0.5, 0.9], "float32"))
    model.compile(sgd(), lambda y, p: ops.mean(ops.maximum(quantiles * (y - p), (quantiles - 1) * (y - p)), axis=-1))
    return Setup(model, dict(x=x, y=x[:, :1] + x[:, 1:2] ** 2, batch_size=16, epochs=2))


@situation()
def regression_on_flat_targets():
    x, _ = table()
    model = perceptron(layers.BatchNormalization(), outputs=1, activation=None)
    model.compile(adam(), "mean_squared_error", metrics=["mae", keras.metrics.RootMeanSquaredError()])
    return Setup(model, dict(x=x, y=x[:, 0] * x[:, 1], batch_size=16, epochs=2))


@situation()
def several_labels_a_row():
    x, _ = table()
    model = perceptron(layers.Dropout(0.2), outputs=4, activation="sigmoid")
    metrics = [
        keras.metrics.AUC(multi_label=True, num_labels=4, num_thresholds=20),
        keras.metrics.F1Score("micro", 0.5),
    ]
    model.compile(sgd(), keras.losses.BinaryFocalCrossentropy(label_smoothing=0.1), metrics=metrics)
    y = (x[:, :4] > 0.5).astype("float32")
    return Setup(model, dict(x=x, y=y, batch_size=16, epochs=2, validation_split=0.2), dict(x=x[:128], y=y[:128]))


@situation()
def cosine_similarity_is_negative():
    x, _ = table()
    model = perceptron(outputs=4, activation=None)
    model.compile(adam(), keras.losses.CosineSimilarity(axis=-1), metrics=["cosine_similarity"])
    return Setup(model, dict(x=x, y=x[:, :4], batch_size=16, epochs=2))


@situation()
def convolutional_autoencoder():
    x = images()[0] / np.float32(255)
    stack = [
        keras.Input((8, 8, 1)),
        layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
        layers.Flatten(),
        layers.Dense(6),
        layers.Dense(64, activation="relu"),
        layers.Reshape((4, 4, 4)),
        layers.Conv2DTranspose(1, 3, strides=2, padding="same", activation="sigmoid"),
    ]
    model = keras.Sequential(stack)
    model.compile(sgd(), "binary_crossentropy")
    return Setup(model, dict(x=x, y=x, batch_size=16, epochs=2))


# Models that train in ways that are their authors' own


class Generative(keras.Model):
    """Two networks against each other, with an optimizer each."""

    def __init__(self):
        super().__init__()
        self.generator = keras.Sequential([keras.Input((2,)), layers.Dense(8, activation="relu"), layers.Dense(8)])
        self.critic = keras.Sequential([keras.Input((8,)), layers.Dense(8, activation="relu"), layers.Dense(1)])
        self.seeds = keras.random.SeedGenerator(1)
        self.of_critic, self.of_generator = keras.metrics.Mean(name="critic"), keras.metrics.Mean(name="generator")

    def compile(self, for_critic, for_generator):
        super().compile()
        self.for_critic, self.for_generator = for_critic, for_generator

    @property
    def metrics(self):
        return [self.of_critic, self.of_generator]

    def call(self, x):
        return self.critic(x)

    def train_step(self, real):
        noise = keras.random.normal((ops.shape(real)[0], 2), seed=self.seeds)

        def loss():
            of_noise, of_real = ops.softplus(self.critic(self.generator(noise))), ops.softplus(-self.critic(real))
            return ops.mean(of_noise + of_real)

        def fooled():
            return ops.mean(ops.softplus(-self.critic(self.generator(noise))))

        for function, network, optimizer, metric in (
            (loss, self.critic, self.for_critic, self.of_critic),
            (fooled, self.generator, self.for_generator, self.of_generator),
        ):
            value, gradients = value_and_gradients(function, network.trainable_weights)
            optimizer.apply(gradients, network.trainable_weights)
            metric.update_state(value)
        return {metric.name: metric.result() for metric in self.metrics}


@situation(sampled=False, feature="several optimizers")
def generative_adversarial_networks():
    model = Generative()
    model.compile(adam(), sgd())
    return Setup(model, dict(x=table()[0], batch_size=16, epochs=2))


class Variational(keras.Model):
    """An autoencoder whose `compute_loss` adds the divergence of the codes."""

    def __init__(self):
        super().__init__()
        self.encode, self.decode = layers.Dense(4), layers.Dense(8)
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, x, training=False):
        self.mean, self.log_variance = ops.split(self.encode(x), 2, axis=-1)
        noise = keras.random.normal(ops.shape(self.mean), seed=self.seeds)
        return self.decode(self.mean + ops.exp(0.5 * self.log_variance) * noise)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        divergence = 1 + self.log_variance - ops.square(self.mean) - ops.exp(self.log_variance)
        return loss - 0.5 * ops.mean(ops.sum(divergence, axis=-1))


@situation(sampled=False)
def variational_autoencoder_in_compute_loss():
    x, _ = table()
    model = Variational()
    model.compile(adam(), "mse")
    return Setup(model, dict(x=x, y=x, batch_size=16, epochs=2))


class Confusion(keras.metrics.Metric):
    """Counts pairs of classes, and has a result by name."""

    def __init__(self):
        super().__init__(name="confusion")
        self.table = self.add_variable((3, 3), "zeros", name="table")

    def update_state(self, y_true, y_pred, sample_weight=None):
        pairs = 3 * ops.cast(ops.reshape(y_true, (-1,)), "int32") + ops.cast(ops.argmax(y_pred, axis=-1), "int32")
        self.table.assign_add(ops.reshape(ops.sum(ops.one_hot(pairs, 9), axis=0), (3, 3)))

    def result(self):
        return ops.trace(self.table) / ops.maximum(ops.sum(self.table), 1.0)


class Watched(keras.Model):
    """Keeps a metric as an attribute, and updates it in `compute_metrics`."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.entropy = inner, keras.metrics.Mean(name="entropy")

    def call(self, x, training=False):
        return self.inner(x, training=training)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self.entropy.update_state(-ops.sum(y_pred * ops.log(y_pred + 1e-7), axis=-1))
        return super().compute_metrics(x, y, y_pred, sample_weight)


@situation()
def metrics_of_the_models_own():
    x, y = table()
    model = Watched(perceptron())
    model.compile(sgd(), "sparse_categorical_crossentropy", metrics=[Confusion()])
    return Setup(model, dict(x=x, y=y, batch_size=16, epochs=2))


# Data


class Folder(keras.utils.PyDataset):
    """Batches with weights, loaded by two threads; the last has one row."""

    def __init__(self, rows=145, **options):
        super().__init__(**options)
        (self.x, self.y), self.weights = table(rows), np.linspace(0.5, 1.5, rows)
        self.epochs = 0

    def __len__(self):
        return -(-len(self.x) // 16)

    def __getitem__(self, index):
        rows = slice(16 * index, 16 * index + 16)
        return self.x[rows], self.y[rows], self.weights[rows]

    def on_epoch_end(self):
        self.epochs += 1


@situation(rows=False)
def threads_load_batches_with_weights_the_last_of_one_row():
    data = Folder(workers=2, max_queue_size=4)
    model = perceptron(layers.BatchNormalization())
    model.compile(adam(), "sparse_categorical_crossentropy", weighted_metrics=["accuracy"])
    return Setup(model, dict(x=data, epochs=2, shuffle=False), dict(x=Folder()))


class Padded(keras.utils.PyDataset):
    """Batches of sentences of several lengths."""

    def __init__(self, x, lengths):
        super().__init__()
        self.sentences = [row[:length] for row, length in zip(x, lengths, strict=True)]
        self.lengths = lengths

    def __len__(self):
        return -(-len(self.sentences) // 16)

    def __getitem__(self, index):
        rows = slice(16 * index, 16 * index + 16)
        padded = [np.pad(sentence, (0, 7 - len(sentence))) for sentence in self.sentences[rows]]
        return np.stack(padded).astype("int32"), self.lengths[rows] % 3


@situation(rows=False)
def padded_batches_of_several_lengths():
    x, lengths = words()
    fixed: object = Padded(x, lengths)
    if HAS_TENSORFLOW:
        data = tf.data.Dataset.from_generator(
            lambda: ((row[:length], length % 3) for row, length in zip(x, lengths, strict=True)),
            output_signature=(tf.TensorSpec((None,), "int32"), tf.TensorSpec((), "int32")),
        )
        fixed = data.padded_batch(16, padded_shapes=((7,), ()))
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(12, 6, mask_zero=True),
            layers.GRU(6),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(sgd(), "sparse_categorical_crossentropy")
    return Setup(model, dict(x=fixed, epochs=2), dict(x=fixed))


class Endless(keras.utils.PyDataset):
    """Batches that are drawn without end."""

    num_batches = None

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __getitem__(self, index):
        rows = np.random.default_rng(index).permutation(N)[:16]
        return self.x[rows], self.y[rows]


@situation(rows=False, feature="batches drawn in a step")
def endless_stream_with_steps_per_epoch():
    x, y = table()
    y = keras.utils.to_categorical(y, 3)
    if HAS_TENSORFLOW:
        data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(N, seed=1).repeat().batch(16).prefetch(2)
    else:
        data = Endless(x, y)
    model = perceptron(layers.LayerNormalization())
    model.compile(adam(), keras.losses.CategoricalCrossentropy(label_smoothing=0.1), metrics=["accuracy", "mse"])
    return Setup(model, dict(x=data, epochs=3, steps_per_epoch=7), dict(x=x, y=y))


@situation(rows=False, feature="text inputs")
def feature_columns_by_name():
    rng = np.random.default_rng(0)
    columns = {
        "age": rng.normal(40, 10, N).astype("float32"),
        "city": rng.choice(["paris", "oslo", "rome"], N),
        "clicks": rng.integers(0, 9, N),
    }
    age, city, clicks = (
        keras.Input((), name="age"),
        keras.Input((), name="city", dtype="string"),
        keras.Input((), name="clicks", dtype="int64"),
    )
    scale = layers.Normalization(axis=None)
    scale.adapt(columns["age"])
    encoded = [
        layers.Reshape((1,))(scale(age)),
        layers.StringLookup(vocabulary=["paris", "oslo", "rome"], output_mode="one_hot")(city),
        layers.CategoryEncoding(9, output_mode="one_hot")(clicks),
    ]
    model = keras.Model([age, city, clicks], layers.Dense(1, activation="sigmoid")(layers.Concatenate()(encoded)))
    model.compile(sgd(), "binary_crossentropy", metrics=["accuracy"])
    data = tf.data.Dataset.from_tensor_slices((columns, (columns["age"] > 45).astype("int64"))).batch(16)
    return Setup(model, dict(x=data, epochs=2), dict(x=data))


@situation()
def bytes_rescaled_and_augmented_inside():
    x, y = images(N, 8, 3)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.RandomFlip("vertical", seed=1),
            layers.RandomRotation(0.05, seed=2),
            layers.Conv2D(4, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile(adam(), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Setup(model, dict(x=x, y=y.astype("uint8"), batch_size=16, epochs=2))


@situation()
def rare_class_with_class_weights():
    x = numbers(N, 8)
    y = (x[:, :1] > 1.2).astype("float32")
    model = perceptron(outputs=1, activation="sigmoid")
    metrics = [keras.metrics.Precision(name="p"), keras.metrics.Recall(name="r")]
    model.compile(sgd(), "binary_crossentropy", metrics=metrics, weighted_metrics=["accuracy"])
    weights = {0: 0.6, 1: 4.0}
    of_rows = np.where(y[:, 0] == 1, 4.0, 0.6)
    return Setup(
        model, dict(x=x, y=y, batch_size=16, epochs=2, class_weight=weights), dict(x=x, y=y, sample_weight=of_rows)
    )


# Optimizers, callbacks, compile options


@situation()
def averaged_accumulated_and_clipped():
    x, y = table()
    model = perceptron(layers.Dropout(0.1))
    optimizer = adam(
        use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=None, gradient_accumulation_steps=2, clipnorm=0.5
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    return Setup(model, dict(x=x, y=y, batch_size=16, epochs=2, callbacks=[swap]))


@situation()
def rate_on_a_schedule_and_early_stopping():
    x, y = table(200)
    model = perceptron()
    schedule = keras.optimizers.schedules.CosineDecay(1e-2, 40, warmup_target=2e-2, warmup_steps=5)
    model.compile(keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True), "sparse_categorical_crossentropy")
    stop = keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)
    arguments = dict(x=x, y=y, batch_size=16, epochs=4, validation_split=0.2, callbacks=[stop])
    return Setup(model, arguments, dict(x=x[:160], y=y[:160]))


class Examiner(keras.callbacks.Callback):
    """Predicts, evaluates and trains with the model in the middle of `fit`."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y, self.losses = x, y, []

    def on_epoch_end(self, epoch, logs=None):
        self.model.predict(self.x, verbose=0)
        self.losses.append(self.model.evaluate(self.x, self.y, verbose=0))
        if not lacks("training inside a fit"):
            self.model.train_on_batch(self.x, self.y)


@situation()
def callback_that_predicts_evaluates_and_trains():
    x, y = table()
    model = perceptron()
    model.compile(adam(), "sparse_categorical_crossentropy")
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=0, min_delta=10.0)
    calls = [Examiner(x[:16], y[:16]), plateau, keras.callbacks.TerminateOnNaN()]
    return Setup(model, dict(x=x, y=y, batch_size=16, epochs=3, callbacks=calls))


@situation()
def mixed_precision_with_a_head_in_float32():
    x, y = images(N, 8, 1)
    with dtype_policy("mixed_float16"):
        inputs = keras.Input((8, 8, 1))
        h = layers.Conv2D(4, 3, activation="relu")(layers.Rescaling(1 / 255)(inputs))
        h = layers.Dense(2)(layers.Flatten()(layers.BatchNormalization()(h)))
        model = keras.Model(inputs, layers.Activation("softmax", dtype="float32")(h))
        model.compile(sgd(), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return Setup(model, dict(x=x, y=y, batch_size=16, epochs=2))


class Counted(layers.Layer):
    """Counts on the host how often it is called, and has weights that no gradient moves."""

    def __init__(self):
        super().__init__()
        self.mean = self.add_weight(shape=(16,), trainable=False)
        self.count = 0

    def call(self, x, training=False):
        self.count += 1
        if training:
            self.mean.assign(0.9 * self.mean + 0.1 * ops.mean(x, axis=0))
        return x - self.mean


@situation()
def eager_layer_with_state():
    x, y = table()
    model = perceptron(Counted())
    model.compile(adam(), "sparse_categorical_crossentropy", run_eagerly=True)
    return Setup(model, dict(x=x, y=y, batch_size=16, epochs=2))


@situation()
def tied_weights_and_a_regulariser():
    x, _ = table()

    class Tied(layers.Layer):
        def __init__(self, source):
            super().__init__()
            self.source = source

        def call(self, h):
            return ops.matmul(h, ops.transpose(self.source.kernel))

    inputs = keras.Input((8,))
    encoder = layers.Dense(4, kernel_regularizer=keras.regularizers.L1L2(1e-4, 1e-4), kernel_constraint="max_norm")
    model = keras.Model(inputs, Tied(encoder)(layers.PReLU()(encoder(inputs))))
    model.compile(keras.optimizers.Lion(1e-4, weight_decay=1e-3), "mean_absolute_error")
    return Setup(model, dict(x=x, y=x, batch_size=16, epochs=2))


@situation(feature="several steps per execution")
def several_steps_an_execution_by_xla():
    x, y = table()
    inner = keras.Sequential([layers.Dense(16, activation="selu"), layers.AlphaDropout(0.1)], name="inner")
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(inner(inputs)))
    model.compile(sgd(), "sparse_categorical_crossentropy", steps_per_execution=several(4), jit_compile=True)
    return Setup(model, dict(x=x, y=y, batch_size=16, epochs=2))
