"""Import Keras without the messages that TensorFlow writes while it is imported."""

import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
stderr = os.dup(2)  # TensorFlow writes to the file descriptor, not to `sys.stderr`
with tempfile.TemporaryFile() as log:
    os.dup2(log.fileno(), 2)
    try:
        import keras
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)

__all__ = ["keras"]
