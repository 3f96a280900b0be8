"""The score "full_gnorm": formulas for the gradient norms of single samples, one per type of layer.

The formulas compute the norm of each sample's gradient with respect to the weights of a layer from the layer's input
and the gradient with respect to its output, without a gradient per sample. `register_sample_gradients` adds a formula
for a layer of your own. For weights of layers without a formula, the gradient of each sample is computed, which is also
exact but slower.

Source: Goodfellow, Efficient Per-Example Gradient Computations, 2015 (arXiv 1510.01799), for dense layers; Rochette et
al., Efficient Per-Example Gradient Computations in Convolutional Neural Networks, 2019 (arXiv 1912.06015), for
convolutions; Li et al., Large Language Models Can Be Strong Differentially Private Learners, ICLR 2022 (arXiv
2110.05679), for sequences and embeddings.
"""

from importance_sampling.scores import convolutions, dense, normalization, recurrent  # noqa: F401, they register formulas
from importance_sampling.scores.formulas import register_sample_gradients
from importance_sampling.scores.weight_gradients import OuterProducts, TokenGradients

__all__ = ["OuterProducts", "TokenGradients", "register_sample_gradients"]
