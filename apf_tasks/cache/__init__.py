"""Cached stages: the key of a call, its stored result, and the journal of a pipeline run."""
