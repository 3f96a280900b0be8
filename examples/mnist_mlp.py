"""Train a perceptron on MNIST digits with and without importance sampling, and say which is faster.

    python examples/mnist_mlp.py --data mnist.npz

Both ways have the same model, data, initial weights and training time. If MNIST can't be downloaded, the script trains
on a photograph instead, as `photograph.py` does.
"""

from common import Example
from keras import Input, Sequential
from keras.layers import Dense, Dropout, Flatten
from loading import mnist
from photograph import EXAMPLE as PHOTOGRAPH

from importance_sampling import ImportanceTraining


def build(data):
    """Build two hidden layers with dropout; Adam."""
    model = Sequential(
        [
            Input(data.shape),
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


EXAMPLE = Example("mnist_mlp", __doc__, mnist, build, ImportanceTraining, seconds=30.0, offline=PHOTOGRAPH)

if __name__ == "__main__":
    EXAMPLE.main()
