"""What causal and masked language models share."""
