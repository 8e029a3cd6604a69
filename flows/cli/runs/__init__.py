"""Commands that plan, run, compare and repeat experiments."""
