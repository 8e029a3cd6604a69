"""Causal language models: text, instructions and conversations."""
