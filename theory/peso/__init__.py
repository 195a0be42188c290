"""Claims of the PESO paper (subspace optimisation for fine-tuning), read from a second-hand summary."""
