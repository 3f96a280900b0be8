"""The rim: the only folder that imports a framework.

It compiles steps, takes gradients and reads candidates for the framework that Keras runs on, behind one set of
function names. It holds no sampling: what is drawn and how it is weighed is decided elsewhere, in `keras.ops`.
"""

import keras

if keras.config.backend() != "tensorflow":
    raise ImportError(
        "importance_sampling needs Keras to run on TensorFlow: set the environment variable KERAS_BACKEND=tensorflow "
        f"before Keras is imported. Received: keras.config.backend()={keras.config.backend()!r}"
    )

from importance_sampling.backend.tensorflow import (
    compile_step,
    concatenate,
    differentiate,
    feed,
    gather,
    gradient_norms,
    has_custom_loop,
    host,
    is_dense,
    is_epoch_iterator,
    map_slices,
    pools,
    recording,
    replicas,
    resident,
    run_steps,
    searchsorted,
)

__all__ = [
    "compile_step",
    "concatenate",
    "differentiate",
    "feed",
    "gather",
    "gradient_norms",
    "has_custom_loop",
    "host",
    "is_dense",
    "is_epoch_iterator",
    "map_slices",
    "pools",
    "recording",
    "replicas",
    "resident",
    "run_steps",
    "searchsorted",
]
