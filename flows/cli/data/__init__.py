"""Commands about data and params files."""
