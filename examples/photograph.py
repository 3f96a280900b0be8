"""Train a perceptron to reproduce a photograph: from the place of a pixel to its colour.

    python examples/photograph.py

The photograph comes with scikit-learn, so nothing is downloaded. Most of it is smooth and soon learnt. Importance
sampling draws more pixels at edges and in fine structures. The validation data are a tenth of the pixels.
"""

import numpy as np
from common import Example
from keras import Input, Sequential
from keras.layers import Dense

from importance_sampling import ImportanceTraining
from importance_sampling.comparison import Data

STEP = 2  # every second row and column of the photograph
FREQUENCIES, SCALE = 64, 6.0  # of the random sines and cosines that encode a place


def load(options):
    """Return the encoded places of the pixels, float32 `(pixels, 128)`, and their colours in [0, 1]."""
    from sklearn.datasets import load_sample_image

    image = load_sample_image("flower.jpg")[::STEP, ::STEP].astype("float32") / 255.0
    rows, columns = (np.linspace(-1.0, 1.0, size) for size in image.shape[:2])
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    random = np.random.default_rng(0)
    angles = np.pi * places @ random.normal(0.0, SCALE, (2, FREQUENCIES))
    x, y = np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype("float32"), image.reshape(-1, 3)
    validation, training = np.split(random.permutation(len(x)), [len(x) // 10])
    return Data(x[training], y[training], x[validation], y[validation])


def build(data):
    """Build two hidden layers; Adam at its constant default rate."""
    model = Sequential(
        [
            Input(data.shape),
            Dense(128, activation="relu"),
            Dense(128, activation="relu"),
            Dense(data.output_size, activation="sigmoid"),
        ]
    )
    model.compile("adam", "mse")
    return model


EXAMPLE = Example("photograph", __doc__, load, build, ImportanceTraining, batch_size=256, seconds=7.0)

if __name__ == "__main__":
    EXAMPLE.main()
