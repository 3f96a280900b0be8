"""The computations of one training step: weighted loss, scores, logits, gradients and metric updates."""
