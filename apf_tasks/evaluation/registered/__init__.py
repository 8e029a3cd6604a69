"""A registered version in use: what was recorded with it, its model, its answers and scores."""
