"""Samplers: which candidates make up the batch. One file an idea."""

from importance_sampling.samplers.pool import Picked, PoolSampler

__all__ = ["Picked", "PoolSampler"]
