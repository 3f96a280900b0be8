"""Plots of training histories, scores, importance weights and samples. Requires matplotlib.

The line styles are readable in greyscale and by colour-blind readers.
"""

from importance_sampling.plotting.draws import plot_scores, plot_weights
from importance_sampling.plotting.histories import plot_histories
from importance_sampling.plotting.samples import Tile, as_image, draw_tiles, plot_most_drawn

__all__ = ["Tile", "as_image", "draw_tiles", "plot_histories", "plot_most_drawn", "plot_scores", "plot_weights"]
