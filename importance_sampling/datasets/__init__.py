"""Datasets that give access to training and test samples by index."""

from importance_sampling.datasets.augmentation import OntheflyAugmentedImages
from importance_sampling.datasets.base import BaseDataset
from importance_sampling.datasets.canevet import CanevetICML2016
from importance_sampling.datasets.generator import GeneratorDataset
from importance_sampling.datasets.in_memory import InMemoryDataset, InMemoryImageDataset
from importance_sampling.datasets.named import CIFAR10, CIFAR100, MNIST, CIFARSanityCheck, PixelByPixelMNIST
from importance_sampling.datasets.penn_treebank import PennTreeBank
from importance_sampling.datasets.whitening import ZCAWhitening

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "BaseDataset",
    "CIFARSanityCheck",
    "CanevetICML2016",
    "GeneratorDataset",
    "InMemoryDataset",
    "InMemoryImageDataset",
    "OntheflyAugmentedImages",
    "PennTreeBank",
    "PixelByPixelMNIST",
    "ZCAWhitening",
]
