"""Scores of every family from per-row statistics, one module per kind, and the bootstrap over them."""
