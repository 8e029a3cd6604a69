"""From the text of `data.source` or `model.base` to files and tables."""
