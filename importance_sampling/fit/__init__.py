"""Everything that runs inside one `fit`: which `fit` runs the loop, and which models can be importance-sampled."""
