"""Side-by-side measurements against what a user would pick instead. See README.md here."""
