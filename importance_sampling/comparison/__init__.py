"""Train one model in several ways for the same seconds, or the same cost, and see how far each gets."""

from importance_sampling.comparison.clock import Clock, Evaluation, Point, forward_equivalents
from importance_sampling.comparison.data import Data
from importance_sampling.comparison.picture import Panel, draw
from importance_sampling.comparison.training import alike, train

__all__ = ["Clock", "Data", "Evaluation", "Panel", "Point", "alike", "draw", "forward_equivalents", "train"]
