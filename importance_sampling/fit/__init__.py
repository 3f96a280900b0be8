"""Everything that runs inside one `fit`: which `fit` runs the loop, what it counts, saves and tells."""
