"""The 81 tags of the words of the Brown corpus, with a bidirectional LSTM; sentences of different lengths, masked."""

import keras
from keras import layers

from tasks.brown import LENGTH, TAGS, VOCABULARY, compile_tagger, sentences
from tasks.task import Task


def build() -> keras.Model:
    """Build an embedding of 64 numbers, an LSTM of 64 units in each direction, and a softmax per word; Adam."""
    return compile_tagger(
        keras.Sequential(
            [
                keras.Input((LENGTH,), dtype="int32"),
                layers.Embedding(VOCABULARY, 64, mask_zero=True),
                layers.Bidirectional(layers.LSTM(64, return_sequences=True)),
                layers.Dense(TAGS, "softmax"),
            ]
        )
    )


TASK = Task(load=sentences, build=build, rate=0.001, tuned=0.001, seconds=30, steps=600, batch_size=64, loss_rows=3000)
