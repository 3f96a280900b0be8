"""The backend protocol: the functions of the framework that Keras runs on.

They compile steps, compute gradients and read candidates. All imports of a framework and all uses of private names of
Keras (`keras_internals`, `keras_data`) are in this folder.
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
    is_distributed,
    map_chunks,
    overrides_methods,
    per_sample_grad_norms,
    recording,
    repeat_steps,
    replicas,
    searchsorted,
    to_host,
)
from importance_sampling.backend.tensorflow_data import (
    BatchReader,
    as_bytes,
    as_gatherable,
    batch_reader_factory,
    concatenate,
    gather,
    has_rows,
    is_dataset,
    is_in_memory,
    is_infinite,
    is_loader,
    row_spec,
    slice_rows,
    slice_tensor,
    to_tensor,
    with_rows,
    without_optionals,
)
from importance_sampling.backend.tensorflow_pipelines import (
    epoch_dataset,
    is_pipeline_error,
    pool_iterator,
    queue_iterator,
    without_autotune,
)
from importance_sampling.backend.tensorflow_summaries import (
    SummaryWriter,
)

__all__ = [
    "BatchReader",
    "SummaryWriter",
    "as_bytes",
    "as_gatherable",
    "batch_reader_factory",
    "compile_step",
    "concatenate",
    "dense",
    "differentiate",
    "epoch_dataset",
    "gather",
    "has_rows",
    "is_dataset",
    "is_distributed",
    "is_in_memory",
    "is_infinite",
    "is_loader",
    "is_pipeline_error",
    "map_chunks",
    "overrides_methods",
    "per_sample_grad_norms",
    "pool_iterator",
    "queue_iterator",
    "recording",
    "repeat_steps",
    "replicas",
    "row_spec",
    "searchsorted",
    "slice_rows",
    "slice_tensor",
    "to_host",
    "to_tensor",
    "with_rows",
    "without_autotune",
    "without_optionals",
]
