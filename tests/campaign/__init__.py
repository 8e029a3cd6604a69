"""Faults on purpose: kills, races, damaged files, odd input, servers that are away."""
