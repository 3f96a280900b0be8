"""From whatever the user handed to `fit` to a source of candidates, by kind."""

from __future__ import annotations

from importance_sampling import backend
from importance_sampling.scores import flat
from importance_sampling.sources.arrays import prepare_arrays
from importance_sampling.sources.prepared import Prepared
from importance_sampling.sources.stores import is_store, with_stores_unread


def prepare(arguments: dict, by_row: bool) -> Prepared:
    """Make the data of a `fit` ready.

    Args:
        arguments: all arguments of `keras.Model.fit`, by name.
        by_row: have Keras draw row numbers, so that it is known which rows plain steps train on. Stores always are
            drawn so.

    Returns:
        `Prepared`. Arguments that Keras refuses are left for it to refuse.
    """
    leaves, _ = flat(tuple(arguments[name] for name in ("x", "y", "sample_weight")))
    if arguments["x"] is not None and all(backend.has_rows(leaf) or is_store(leaf) for leaf in leaves):
        return prepare_arrays(arguments, by_row)
    return Prepared(with_stores_unread(arguments), "candidates are only drawn from arrays so far")
