"""Commands about servers, workers and scheduled work."""
