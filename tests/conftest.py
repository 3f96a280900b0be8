"""The same random numbers for every test, whichever tests ran before it."""

import keras
import pytest


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(4)
