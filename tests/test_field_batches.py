"""Programs from bug reports in which batches have a size of their own: what every way makes of them."""

import keras
import pytest
from field import OPEN, classifier, table
from frameworks import HAS_TENSORFLOW, lacks, tf
from keras import layers
from toys import Stream
from ways import DEFAULT, OFF, POOLS, Setup, added, assert_sampled, assert_trained_alike, plainly, train

from importance_sampling import ImportanceTraining

# A batch size written into a layer


class Noise(layers.Layer):
    """Adds noise for 32 rows."""

    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, z):
        return z + 0.01 * keras.random.normal((32, 16), seed=self.seeds)

    def compute_output_shape(self, input_shape):
        return input_shape


def batch_size_in_a_layer(epochs=2, stream=False, rows=1600):
    x, y = table(rows, 2.0)
    model = classifier(layers.Dense(16, activation="relu"), Noise(), classes=2)
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    if HAS_TENSORFLOW:
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(32, drop_remainder=True)
    else:
        data = Stream(x, y, 32)
    arguments = dict(x=data) if stream else dict(x=x, y=y, batch_size=32)
    return Setup(model, dict(arguments, epochs=epochs))


def test_a_batch_size_in_a_layer_outlives_the_opening_of_the_default_gate():
    plain, run = (train(lambda: batch_size_in_a_layer(8), way) for way in (None, DEFAULT))
    assert_sampled(plain, run)
    assert run.evaluate() <= 1.5 * plain.evaluate() + 0.05


@OPEN
def test_arrays_are_sampled_in_batches_of_the_size_that_a_layer_takes(way):
    plain, run = plainly(batch_size_in_a_layer), train(batch_size_in_a_layer, way)
    assert_sampled(plain, run)
    assert run.evaluate() <= 1.5 * plain.evaluate() + 0.05


@pytest.mark.parametrize("way", [DEFAULT, POOLS], ids=["default", "pools"])
def test_streams_train_with_a_batch_size_in_a_layer(way):
    plain, run = plainly(batch_size_in_a_layer, 2, True), train(lambda: batch_size_in_a_layer(2, True), way)
    assert len(added(plain, run)) <= 1
    if run.trainer.importance_steps:
        assert_sampled(plain, run)
    else:
        assert_trained_alike(plain, run)


@pytest.mark.parametrize("way", [OFF, dict(tau_th=1e9)], ids=["off", "closed"])
def test_a_short_last_batch_that_a_layer_refuses_is_an_error_of_the_same_kind(way):
    plain, run = (train(lambda: batch_size_in_a_layer(rows=170), one, raises=False) for one in (None, way))
    assert type(run.error) is type(plain.error) is not type(None)


# A short batch that comes first


class ShortFirst(keras.utils.PyDataset):
    """Five rows, and then ten batches of 16."""

    def __init__(self):
        super().__init__()
        self.x, self.y = table(165)

    def __len__(self):
        return 11

    def __getitem__(self, index):
        rows = slice(max(16 * index - 11, 0), 16 * index + 5)
        return self.x[rows], self.y[rows]


def short_first_dataset():
    data = ShortFirst()
    return tf.data.Dataset.from_generator(
        lambda: (data[index] for index in range(len(data))),
        output_signature=(tf.TensorSpec((None, 8), "float32"), tf.TensorSpec((None,), "int64")),
    ).apply(tf.data.experimental.assert_cardinality(11))


@pytest.mark.parametrize("make", [ShortFirst, short_first_dataset])
@pytest.mark.parametrize("threshold", [0.0, 1e9], ids=["open", "closed"])
def test_a_short_first_batch_does_not_change_the_size_of_steps_and_probes(make, threshold):
    keras.utils.set_random_seed(1)
    model = classifier()
    model.compile("sgd", "sparse_categorical_crossentropy")
    steps, scored = [], []
    ImportanceTraining(model, tau_th=threshold).fit(
        make(),
        epochs=3,
        verbose=0,
        shuffle=False,
        on_sample=lambda sampler, indices, weights, scores: steps.append(len(indices)),
        on_scores=lambda sampler, scores: scored.append(len(scores)),
    )
    assert len(steps) == 33
    # Drawn one at a time, the first batch is all that is known of the size of others.
    known_later = threshold == 0 and lacks("batches drawn in a step")
    if threshold == 0:
        for epoch in range(3):
            first = 11 * epoch + (known_later and epoch == 0)
            assert set(steps[first : 11 * epoch + 10]) == {16}, steps
    assert scored and min(scored[known_later:]) >= 16, scored
