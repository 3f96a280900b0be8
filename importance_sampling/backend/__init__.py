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
    dense,
    differentiate,
    gradient_norms,
    has_custom_loop,
    host,
    is_distributed,
    map_slices,
    recording,
    replicas,
    run_steps,
    searchsorted,
)
from importance_sampling.backend.tensorflow_data import (
    Reading,
    as_bytes,
    column,
    concatenate,
    cut,
    gather,
    has_rows,
    is_dataset,
    is_infinite,
    is_loader,
    is_resident,
    kind,
    reading_of,
    resident,
    rows,
    with_rows,
    without_optionals,
)
from importance_sampling.backend.tensorflow_pipelines import feed, is_of_pipeline, passes, pools, untuned
from importance_sampling.backend.tensorflow_summaries import SummaryWriter

__all__ = [
    "Reading",
    "SummaryWriter",
    "as_bytes",
    "column",
    "compile_step",
    "concatenate",
    "cut",
    "dense",
    "differentiate",
    "feed",
    "gather",
    "gradient_norms",
    "has_custom_loop",
    "has_rows",
    "host",
    "is_dataset",
    "is_distributed",
    "is_infinite",
    "is_loader",
    "is_of_pipeline",
    "is_resident",
    "kind",
    "map_slices",
    "passes",
    "pools",
    "reading_of",
    "recording",
    "replicas",
    "resident",
    "rows",
    "run_steps",
    "searchsorted",
    "untuned",
    "with_rows",
    "without_optionals",
]
