"""Find wrong labels: predictions of models that haven't seen a sample's label, and a ranking of the labels by them.

`out_of_sample` trains two copies of a model, each on one half of the data, and predicts the other half with each. Its
probabilities are what `cleanlab.filter.find_label_issues` needs. `training.ReducibleLossTraining` uses its losses.
"""

from importance_sampling.labels.out_of_sample import OutOfSample, out_of_sample
from importance_sampling.labels.suspicion import label_suspicion

__all__ = ["OutOfSample", "label_suspicion", "out_of_sample"]
