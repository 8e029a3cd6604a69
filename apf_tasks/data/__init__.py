"""From rows to batches: ingestion, splits, tokens, the order and the cut of an epoch."""
