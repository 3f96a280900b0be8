"""Models for the swap: every kind that Keras trains, small."""

import inspect

import keras
import pytest
from frameworks import dtype_policy
from keras import layers


def dense(**compile_options):
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(16, activation="relu"), layers.Dropout(0.2), layers.Dense(3, "softmax")]
    )
    return compiled(model, **compile_options)


def compiled(model, loss="sparse_categorical_crossentropy", optimizer="adam", metrics=("accuracy",), **options):
    model.compile(optimizer, loss, metrics=list(metrics) if isinstance(metrics, tuple) else metrics, **options)
    return model


def batch_norm():
    return compiled(
        keras.Sequential(
            [
                keras.Input((8,)),
                layers.Dense(16),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.Dense(3, "softmax"),
            ]
        )
    )


def lazy():
    return compiled(keras.Sequential([layers.Dense(16, activation="relu"), layers.Dense(3, activation="softmax")]))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.dropout, self.out = layers.Dense(16, "relu"), layers.Dropout(0.3), layers.Dense(3)

    def call(self, x, training=False):
        return self.out(self.dropout(self.hidden(x), training=training))


def subclassed():
    return compiled(Subclassed(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))


def nested():
    inner = keras.Sequential([keras.Input((16,)), layers.Dense(3), layers.Activation("softmax")])
    inputs = keras.Input((8,))
    return compiled(keras.Model(inputs, inner(layers.Dense(16, "relu")(inputs))))


def two_outputs(**options):
    inputs = keras.Input((8,))
    hidden = layers.Dense(16, "relu")(inputs)
    model = keras.Model(inputs, [layers.Dense(3, "softmax", name="a")(hidden), layers.Dense(1, name="b")(hidden)])
    return compiled(
        model, ["sparse_categorical_crossentropy", "mse"], metrics=None, loss_weights=[1.0, 0.25], **options
    )


def dict_inputs():
    a, b = keras.Input((5,), name="a"), keras.Input((3,), name="b")
    return compiled(keras.Model({"a": a, "b": b}, layers.Dense(3, "softmax")(layers.Concatenate()([a, b]))))


def regularised():
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(16, kernel_regularizer="l2"), layers.Softmax(), layers.Dense(3)]
    )
    return compiled(model, keras.losses.SparseCategoricalCrossentropy(from_logits=True))


def accumulating():
    return dense(optimizer=keras.optimizers.Adam(gradient_accumulation_steps=2, use_ema=True, clipnorm=1.0))


def half():
    with dtype_policy("mixed_float16"):
        return dense()


def sequences():
    """Word by word, of lengths that differ."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            layers.Embedding(9, 6, mask_zero=True),
            layers.LSTM(8, return_sequences=True),
            layers.Dense(3, "softmax"),
        ]
    )
    return compiled(model, metrics=None, weighted_metrics=["accuracy"])


def sparse_inputs():
    return compiled(
        keras.Sequential([keras.Input((8,), sparse=True), layers.Dense(16, "relu"), layers.Dense(3, "softmax")])
    )


def ragged_words():
    if "ragged" not in inspect.signature(keras.Input).parameters:
        pytest.skip("this Keras has no ragged inputs")
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32", ragged=True),
            layers.Embedding(9, 8),
            layers.GlobalMaxPooling1D(),
            layers.Dense(3, "softmax"),
        ]
    )
    return compiled(model)


def texts():
    model = keras.Sequential(
        [
            keras.Input((1,), dtype="string"),
            layers.TextVectorization(output_sequence_length=2, vocabulary=["red", "green", "blue"]),
            layers.Embedding(5, 4),
            layers.GlobalAveragePooling1D(),  # Keras 3.8 doesn't know how long texts are
            layers.Dense(3, "softmax"),
        ]
    )
    return compiled(model)


def several_metrics():
    metrics = [keras.metrics.AUC(num_thresholds=20), keras.metrics.Precision(), "accuracy"]
    return dense(loss="categorical_crossentropy", metrics=metrics, weighted_metrics=["mse"])


class Halved(Subclassed):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 0.5 * super().compute_loss(x, y, y_pred, sample_weight, training)


def compute_loss():
    return compiled(Halved(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))


def frozen_and_shared():
    inputs = keras.Input((8,))
    shared = layers.Dense(6, "relu")
    frozen = layers.Dense(8, trainable=False)
    hidden = layers.Concatenate()([shared(inputs), shared(frozen(inputs))])
    return compiled(keras.Model(inputs, layers.Dense(3, "softmax")(hidden)), optimizer="rmsprop")


def quantised():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(16, "relu"), layers.Dense(3, "softmax")])
    model.layers[0].quantize("int8")
    model.layers[0].enable_lora(2)
    return compiled(model)
