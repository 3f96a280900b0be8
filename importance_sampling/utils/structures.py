"""Nested structures: the tuples, lists and dicts of arrays and tensors that Keras takes as data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


def map_leaves(function: Callable, structure: Any) -> Any:
    """Apply a function to all leaves of a structure but None, which stays as it is.

    Args:
        function: function of an array or tensor.
        structure: tuples, lists and dicts of arrays or tensors and None.

    Returns:
        The results, in the same structure.

    Example:
        >>> map_leaves(lambda leaf: 2 * leaf, ({"a": 1, "b": None}, [2]))
        ({'a': 2, 'b': None}, [4])
    """
    return keras.tree.map_structure(lambda leaf: None if leaf is None else function(leaf), structure)
