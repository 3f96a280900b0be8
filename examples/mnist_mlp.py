"""Train a perceptron on MNIST digits by importance sampling or, with `--uniform`, by `model.fit`.

    python examples/mnist_mlp.py --data mnist.npz

The line that differs is marked below.
"""

import keras
from common import Example
from keras.layers import Dense, Dropout, Flatten
from loading import digits

from importance_sampling import ImportanceTraining


def build(data):
    """Build two hidden layers with dropout; Adam."""
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
    """Return the object whose `fit` trains the model."""
    return model if options.uniform else ImportanceTraining(model, seed=options.seed)  # the only difference


EXAMPLE = Example("mnist_mlp", __doc__, digits, build, trainer)

if __name__ == "__main__":
    EXAMPLE.main()
