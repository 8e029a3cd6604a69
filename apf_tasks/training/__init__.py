"""Training: one step, the loop around it, validation, checkpoints, the best weights."""
