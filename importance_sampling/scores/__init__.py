"""The score "full_gnorm": formulas for the gradient norms of single samples, one per kind of layer.

The formulas compute the norm of each sample's gradient at the weights of a layer from the input of the layer and the
gradient at its output, without a gradient per sample. `register_sample_gradients` adds a formula for a layer of your
own. Weights of layers without a formula are differentiated for each sample, which is exact too, but slower.

Source: Goodfellow, Efficient Per-Example Gradient Computations, 2015 (arXiv 1510.01799), for dense layers; Rochette et
al., Efficient Per-Example Gradient Computations in Convolutional Neural Networks, 2019 (arXiv 1912.06015), for
convolutions; Li et al., Large Language Models Can Be Strong Differentially Private Learners, ICLR 2022 (arXiv
2110.05679), for sequences and embeddings.
"""

from importance_sampling.scores import convolutions, dense, normalization, recurrent  # noqa: F401, they register formulas
from importance_sampling.scores.formulas import register_sample_gradients
from importance_sampling.scores.weight_gradients import OuterProducts, TokenGradients

__all__ = ["OuterProducts", "TokenGradients", "register_sample_gradients"]
