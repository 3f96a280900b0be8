"""Shared helpers: validation of arguments, numerics, seeds and deprecations; and imports without a backend."""

import ast
import random
from pathlib import Path

import keras
import numpy as np
import pytest

import importance_sampling
from importance_sampling.utils import validation
from importance_sampling.utils.numerics import array_namespace, as_floats
from importance_sampling.utils.validation import seed_from_python
from importance_sampling.utils.warn import warn_renamed

PACKAGE = Path(importance_sampling.__file__).parent
NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize("value", [3, -1, np.int32(3), np.uint8(0)])
def test_python_and_numpy_integers_are_ints(value):
    assert validation.is_int(value)


@pytest.mark.parametrize("value", [True, np.True_, 3.0, "3", None, np.array([3])])
def test_bools_floats_and_other_types_are_not_ints(value):
    assert not validation.is_int(value)


@pytest.mark.parametrize("value", [3, 0.5, INFINITY, np.float32(0.5), np.int64(3)])
def test_integers_floats_and_infinity_are_real_numbers(value):
    assert validation.is_real(value)


@pytest.mark.parametrize("value", [NAN, True, np.True_, "3", None, 1j])
def test_nan_bools_and_other_types_are_not_real_numbers(value):
    assert not validation.is_real(value)


@pytest.mark.parametrize(
    ("check", "accepted", "refused"),
    [
        (lambda x: validation.check_seed(x), [None, 0, 2**31 - 1], [-1, 2**31, 0.5, True]),
        (lambda x: validation.check_alpha(x), [1, 0.1], [0, 1.1, NAN, "0.1"]),
        (lambda x: validation.check_recompute(x), [0, 2], [-1, 0.5, None]),
        (lambda x: validation.check_positive(x=x), [1, 7], [0, 1.5, True]),
        (lambda x: validation.check_fraction(x=x), [0, 0.9], [1, -0.1, NAN]),
        (lambda x: validation.check_non_negative(x=x), [0, 0.5, 7], [-0.1, INFINITY, NAN]),
    ],
    ids=["seed", "alpha", "recompute", "positive", "fraction", "non-negative"],
)
def test_checks_raise_an_error_with_the_value_outside_the_range_only(check, accepted, refused):
    for value in accepted:
        check(value)
    for value in refused:
        with pytest.raises(ValueError, match=rf"^`\w+` must be .* Received: \w+={value!r}$"):
            check(value)


def test_numpy_arrays_and_python_numbers_are_computed_by_numpy_in_float64():
    assert array_namespace(np.ones(2), 1.0, [1, 2]) is np
    assert as_floats([1, 2], np).dtype == np.float64


def test_tensors_are_computed_by_keras_ops_in_float32():
    tensor = keras.ops.ones(2, dtype="float16")
    assert array_namespace(np.ones(2), tensor) is keras.ops
    assert keras.backend.standardize_dtype(as_floats(tensor, keras.ops).dtype) == "float32"


def test_the_seed_from_python_follows_kerass_seed():
    seeds = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        seeds.append(seed_from_python())
    assert seeds[0] == seeds[1] != seeds[2]


def test_the_seed_from_python_does_not_advance_the_global_generator():
    before = random.getstate()
    seed_from_python()
    assert random.getstate() == before


def test_the_warning_of_a_renamed_name_points_at_the_caller():
    def old():
        warn_renamed("old", "new")

    with pytest.warns(DeprecationWarning, match="`old` is deprecated .* Use `new`") as captured:
        old()
    assert captured[0].filename == __file__


def imports(path):
    """Return the modules that a file imports when it is loaded, without imports inside functions."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("name", ["samplers", "reweighting", "conditions", "utils", "events.py"], ids=str)
def test_the_parts_that_run_in_numpy_import_no_framework_and_no_backend(name):
    path = PACKAGE / name
    files = sorted(path.glob("*.py")) if path.is_dir() else [path]
    assert files
    frameworks = {"tensorflow", "jax", "torch", "importance_sampling.backend"}
    allowed = ("samplers", "reweighting", "conditions", "utils", "events")
    for file in files:
        modules = imports(file)
        assert not modules & frameworks, file
        for module in modules:
            if module.startswith("importance_sampling."):
                assert module.split(".")[1] in allowed, (file, module)
