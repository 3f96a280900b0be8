"""Seed every test, give each worker one thread, and mark the slow tests."""

import contextlib
import gc
import os

# Ahead of TensorFlow: the models are tiny, and workers with a pool of threads each would only wait for one another.
os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}

import pytest

# Modules most of whose tests take long: their tests are slow, except those marked with `pytest.mark.fast`. The tests of
# all other modules are fast, except those marked with `pytest.mark.slow`. `pytest -m "not slow"` runs the fast ones.
SLOW = {
    "test_backends",
    "test_benchmarks",
    "test_controller",
    "test_custom_train_step",
    "test_devices",
    "test_drop_in",
    "test_drop_in_callbacks",
    "test_drop_in_streams",
    "test_drop_in_structures",
    "test_dtypes",
    "test_ended_fit",
    "test_equal_cost",
    "test_evidence",
    "test_exact_norms",
    "test_examples",
    "test_faults",
    "test_field_batches",
    "test_field_cases",
    "test_field_rows",
    "test_full_gradient",
    "test_fuzz",
    "test_held_out",
    "test_history_keys",
    "test_indexed_strategy",
    "test_integration",
    "test_interrupted",
    "test_labels",
    "test_mnist",
    "test_model_wrappers",
    "test_models",
    "test_noisy_labels_benchmark",
    "test_notebooks",
    "test_reducible_loss",
    "test_refused_arguments",
    "test_resized_pool",
    "test_rows",
    "test_sample_weights",
    "test_situations",
    "test_skipping",
    "test_skipping_benchmark",
    "test_tasks",
    "test_trainers",
    "test_training",
    "test_transparent",
    "test_uniform_fit",
    "test_uniform_steps",
    "test_variance_reduced",
}


def pytest_collection_modifyitems(items):
    """Mark the slow tests of the listed modules."""
    for item in items:
        if item.module.__name__ in SLOW and item.get_closest_marker("fast") is None:
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
