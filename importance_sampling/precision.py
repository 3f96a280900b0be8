"""Layers that compute in a shorter type for a while. Variables, losses and training stay as they are.

No source; what Keras's own mixed precision does from the first call on (`keras.DTypePolicy`), for single calls.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from importance_sampling.pre_activations import swapped

DTYPES = (None, "bfloat16")
HALF_COST = 0.6  # of a forward pass in bfloat16, over one in float32, on a processor that has it; measured


@contextlib.contextmanager
def computing_in(model: keras.Model, dtype: str | None) -> Iterator[None]:
    """Calls of the model compute in a shorter type in here, where they would in float32.

    Args:
        model: built.
        dtype: one of `DTYPES`; None: nothing changes.
    """
    with contextlib.ExitStack() as stack:
        if dtype is not None:
            policy = keras.DTypePolicy(f"mixed_{dtype}")
            for layer in model._flatten_layers():
                if layer.dtype_policy.name == "float32":
                    stack.enter_context(swapped(layer, "_dtype_policy", policy))
        yield
