"""Optimizers, learning-rate schedules, and weights kept in bfloat16."""
