"""`apf new`: a person's data file -> a params file that says what was guessed, and why.

What is seen is what ingestion will see: the rows come from the same readers, and a sample of them goes through the
family's own check.
"""
