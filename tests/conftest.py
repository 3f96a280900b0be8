"""Seed every test, give each worker one thread, and mark the slow tests."""

import contextlib
import gc
import os

# Ahead of TensorFlow: the models are tiny, and workers with a pool of threads each would only wait for one another.
os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}

import pytest

# Modules without an expensive test; all others are marked as slow. `pytest -m "not slow"` runs these.
FAST = {
    "test_batch_sizes",
    "test_conditions",
    "test_constant_samplers",
    "test_contributing",
    "test_datasets_artificial",
    "test_datasets_named",
    "test_datasets_stream",
    "test_datasets_views",
    "test_eligibility",
    "test_label_errors",
    "test_peekable_batches",
    "test_plotting",
    "test_pool",
    "test_resampling",
    "test_reweighting",
    "test_samplers",
    "test_smoothing",
    "test_state",
    "test_utils",
    "test_vocabulary",
}


def pytest_collection_modifyitems(items):
    """Mark the tests of all other modules as slow."""
    for item in items:
        if item.module.__name__ not in FAST:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True, scope="session")
def collected_seldom():
    """Python's collector leaves the imported modules alone, and comes by less often: TensorFlow's graphs are cyclic."""
    import keras  # noqa: F401

    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


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
