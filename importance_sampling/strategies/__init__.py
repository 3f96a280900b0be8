"""The ways to take a training step, one file each: uniform steps, and importance steps by pool, index or snapshot."""
