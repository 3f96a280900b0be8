"""The backend protocol: the functions of the framework that Keras runs on.

They compile steps, compute gradients and read candidates; `tensorflow`, `jax` and `torch` implement them under the same
names. All imports of a framework and all uses of private names of Keras (`keras_internals`, `keras_data`) are in this
folder.
"""

import importlib
from typing import Any

import keras

# The modules in which the functions of a backend are looked up, in this order.
MODULES = {
    "tensorflow": ("tensorflow", "tensorflow_data", "tensorflow_pipelines", "defaults"),
    "jax": ("jax", "jax_data", "host_data", "defaults"),
    "torch": ("torch", "torch_data", "host_data", "defaults"),
}

if keras.config.backend() not in MODULES:
    raise ImportError(
        f"importance_sampling needs Keras to run on one of {list(MODULES)}: set the environment variable KERAS_BACKEND "
        f"before Keras is imported. Received: keras.config.backend()={keras.config.backend()!r}"
    )

# The names that are defined for every backend.
PROTOCOL = (
    # Keras's training function
    "stand_in",
    "training_function",
    # Steps
    "JIT_COMPILE_SMALL",
    "compile_step",
    "repeat_steps",
    "repeatable_random",
    "replicas",
    "replicas_in_step",
    "on_replicas",
    "is_distributed",
    "copies_of_batch",
    "spans_processes",
    # Gradients
    "LOSSES_USE_LOGITS",
    "current_trace",
    "differentiate",
    "apply_gradients",
    "dense",
    "per_sample_grad_norms",
    "shapes_of",
    "try_train_step",
    # Tensors
    "to_tensor",
    "to_host",
    "as_bytes",
    "collect_rows",
    "concatenate",
    "distribute_rows",
    "gather",
    "map_chunks",
    "row_spec",
    "searchsorted",
    "slice_tensor",
    "whole_batch",
    "with_rows",
    "without_optionals",
    # Data
    "DRAWS_BEFORE_STEP",
    "STATIC_ROWS",
    "BatchReader",
    "as_column",
    "as_input",
    "batch_reader_factory",
    "clear_later",
    "epoch_dataset",
    "has_rows",
    "is_dataset",
    "is_in_memory",
    "is_infinite",
    "is_loader",
    "is_pipeline_error",
    "pool_iterator",
    "queue_iterator",
    "queued_batches",
    "slice_rows",
    "to_fit_array",
    "without_autotune",
)


def _implementations() -> dict[str, Any]:
    """Return the functions and classes of the protocol by name, of the backend that Keras runs on."""
    names = MODULES[keras.config.backend()]
    modules = [importlib.import_module(f"importance_sampling.backend.{name}") for name in names]
    return {name: next(vars(module)[name] for module in modules if name in vars(module)) for name in PROTOCOL}


globals().update(_implementations())
