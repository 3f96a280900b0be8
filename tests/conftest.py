"""The same random numbers for every test, whichever tests ran before it, and one thread for each of the workers."""

import contextlib
import os

# Ahead of TensorFlow: the models are tiny, and workers with a pool of threads each would only wait for one another.
os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}

import pytest


@pytest.fixture(autouse=True)
def seeded():
    import keras  # here, so that the process that only hands out tests to the workers starts without it

    keras.utils.set_random_seed(4)


@pytest.fixture(autouse=True, scope="module")
def untuned(request):
    """Nobody waits for the threads that tune what feeds a model, but on real data, which go as users' do."""
    from importance_sampling import backend

    with contextlib.nullcontext() if request.module.__name__ == "test_mnist" else backend.without_autotune():
        yield


@pytest.fixture(params=["host", "device"])
def host_and_device(request, monkeypatch):
    """Run a test twice: formulas on arrays are computed by NumPy, and as on tensors by `keras.ops`."""
    if request.param == "device":
        monkeypatch.setattr("importance_sampling.utils.numerics.HOST_TYPES", ())
