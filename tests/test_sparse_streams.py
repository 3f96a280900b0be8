"""Batches of sparse tensors as they come, joined to pools of candidates."""

import keras
import numpy as np
import pytest
from frameworks import needs, tf

from importance_sampling import ImportanceTraining, backend

pytestmark = needs("sparse and ragged inputs")


def sparse(rows):
    return tf.sparse.from_dense(np.asarray(rows, "float32"))


def test_sparse_batches_are_joined_row_after_row():
    (joined,) = backend.concatenate([[sparse([[0, 1], [2, 0]])], [sparse([[0, 0], [3, 4], [5, 0]])]])
    expected = [[0, 1], [2, 0], [0, 0], [3, 4], [5, 0]]
    np.testing.assert_array_equal(tf.sparse.to_dense(joined), expected)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed, but will be ignored:UserWarning")
def test_a_generator_of_sparse_batches_is_importance_sampled():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(48, 5)) * (rng.random((48, 5)) < 0.4)
    model = keras.Sequential([keras.Input((5,), sparse=True), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    batches = ((sparse(x[i : i + 4]), x[i : i + 4].sum(1)) for i in range(0, 48, 4))
    history = ImportanceTraining(model, tau_th=0, seed=1).fit(batches, verbose=0).history
    assert history["importance"] == [1.0] and np.isfinite(history["loss"]).all()
    assert int(model.optimizer.iterations) == 4  # a pool is three batches of a source that is read once
