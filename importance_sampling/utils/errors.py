"""The error for models and data whose samples can't be weighted; Keras then trains on them without this library."""

from __future__ import annotations


class Unsupported(ValueError):
    """Samples of this model can't be weighted one by one. The message gives the reason and the remedy."""
