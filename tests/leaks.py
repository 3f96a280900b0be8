"""What is left of the data after a `fit`, when nobody but the trainer and the model could hold them."""

import weakref

import pytest

from importance_sampling.data import ArraySource


def columns_left(train):
    """Call `train` and return what is left of the columns of the data that it read, `None` for each that is gone.

    They have to be gone at once, not when Python's collector of cycles comes by.
    """
    columns, make = [], ArraySource.__init__

    def noted(source, data):
        make(source, data)
        columns.extend(map(weakref.ref, source.columns))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ArraySource, "__init__", noted)
        train()
    return [column() for column in columns]
