"""The same random numbers for every test, whichever tests ran before it."""

import keras
import pytest


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(4)


@pytest.fixture(params=["host", "device"])
def either_side(request, monkeypatch):
    """Formulas that run in NumPy for arrays: once so, and once as they run on tensors."""
    if request.param == "device":
        monkeypatch.setattr("importance_sampling.numerics.HOST_TYPES", ())
