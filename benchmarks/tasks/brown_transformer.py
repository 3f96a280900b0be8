"""The 81 tags of the words of the Brown corpus, with a transformer block; sentences of different lengths, masked."""

import keras
from keras import layers, ops

from tasks.brown import LENGTH, TAGS, VOCABULARY, compile_tagger, sentences
from tasks.task import Task

WIDTH, HEADS, BLOCKS = 64, 4, 1


class PositionEmbedding(layers.Layer):
    """Adds a trained vector for each position to a sequence `(rows, LENGTH, WIDTH)`. The mask is unchanged."""

    def __init__(self) -> None:
        super().__init__()
        self.supports_masking = True
        self.embedding = layers.Embedding(LENGTH, WIDTH)

    def build(self, input_shape: tuple) -> None:
        """Create the weights."""
        self.embedding.build(())

    def call(self, sequence: keras.KerasTensor) -> keras.KerasTensor:
        """Return the sum."""
        return sequence + self.embedding(ops.arange(LENGTH))


def block(sequence: keras.KerasTensor) -> keras.KerasTensor:
    """Apply attention and a perceptron, each after a normalisation and with a residual connection."""
    normalised = layers.LayerNormalization()(sequence)
    attended = layers.MultiHeadAttention(HEADS, WIDTH // HEADS)(normalised, normalised)
    sequence = layers.Add()([sequence, attended])
    hidden = layers.Dense(4 * WIDTH, "gelu")(layers.LayerNormalization()(sequence))
    return layers.Add()([sequence, layers.Dense(WIDTH)(hidden)])


def build() -> keras.Model:
    """Build an embedding with positions, a transformer block with 4 heads, and a softmax per word; Adam."""
    tokens = keras.Input((LENGTH,), dtype="int32")
    sequence = PositionEmbedding()(layers.Embedding(VOCABULARY, WIDTH, mask_zero=True)(tokens))
    for _ in range(BLOCKS):
        sequence = block(sequence)
    outputs = layers.Dense(TAGS, "softmax")(layers.LayerNormalization()(sequence))
    return compile_tagger(keras.Model(tokens, outputs))


TASK = Task(load=sentences, build=build, rate=0.001, tuned=0.004, seconds=30, steps=600, batch_size=64, loss_rows=3000)
