"""What summarization and translation share."""
