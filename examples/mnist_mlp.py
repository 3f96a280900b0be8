"""A perceptron on handwritten digits, trained by importance sampling or, with `--uniform`, by Keras alone.

    python examples/mnist_mlp.py --data mnist.npz

The two ways differ in one line, marked below.
"""

import keras
from common import Example
from keras.layers import Dense, Dropout, Flatten
from loading import digits

from importance_sampling import ImportanceTraining


def build(data):
    """Two hidden layers with dropout; Adam."""
    model = keras.Sequential(
        [
            keras.Input(data.shape),
            Flatten(),
            Dense(512, activation="relu"),
            Dropout(0.2),
            Dense(512, activation="relu"),
            Dropout(0.2),
            Dense(data.output_size, activation="softmax"),
        ]
    )
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


def trainer(model, options):
    """Whose `fit` trains."""
    return model if options.uniform else ImportanceTraining(model, seed=options.seed)  # the one line


EXAMPLE = Example("mnist_mlp", __doc__, digits, build, trainer)

if __name__ == "__main__":
    EXAMPLE.main()
