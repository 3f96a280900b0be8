"""The computations of one training step, and the checks of which models they are possible for."""
