"""Predictions and what is made of them: scores, the choice among candidates, comparisons, learning curves, drift."""
